"""Where tokens are fed back makes no difference to them: over real agents, on one, two and three workers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from planner.execution.agent.outbox import Outbox
from planner.execution.coordinator.deployment import deploy
from planner.execution.session import generation
from planner.execution.session.session import LiveSession
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Data
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.worker.events import ResultMessage, TaskMessage
from tests.execution.rig import agents_in_threads
from tests.execution.test_execution_feedback import drawn
from tests.instances import make_instance, make_profile
from tests.model.decoder_models import EXPECTED, export

BLOCKS = 4
MODEL = export("llama-fp32", BLOCKS)
CASES = EXPECTED["llama-fp32"]
COUNT = len(CASES[0]["tokens"])
INSTANCE = make_instance(
    profiles=[make_profile("llama", block_s=[0.001] * BLOCKS, cut_bytes=[cut.bytes for cut in MODEL.chain.cuts])],
    workers=dict.fromkeys("abcd", 1.0),
    sources={"s": {"rate_per_s": 5.0, "priority": 1.0, "worker": "a"}},
)
STAGES = {1: [("b", 0, 3)], 2: [("b", 0, 1), ("c", 2, 3)], 3: [("b", 0, 0), ("a", 1, 2), ("c", 3, 3)]}


def plan(workers: int, loop: Any) -> PlanSpec:
    stages = tuple(Stage(worker=name, first_block=first, last_block=last) for name, first, last in STAGES[workers])
    own = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="llama", stages=stages, loop=loop),)
    )
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"s": own}, workers={}, networks={},
    )  # fmt: skip


@contextmanager
def session(workers: int, loop: str, folder: Path) -> Iterator[LiveSession]:
    deployment = deploy(INSTANCE, plan(workers, loop), {"llama": MODEL}, policy="planned", live=True)
    with LiveSession(deployment, agents_in_threads(tuple("abcd"), folder)) as opened:
        yield opened


def side_by_side(opened: LiveSession, **options: Any) -> list[generation.Generation]:
    """Generate after all prompts at the same time."""
    running = [opened.source("s").generate(case["prompt"], max_new=COUNT, **options) for case in CASES]
    threads = [threading.Thread(target=list, args=(one,)) for one in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return running


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("loop", ["home", "last"])
def test_tokens_are_the_same_at_any_place(
    loop: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step but the first one comes from home, unless the plan says so; and no sequence starts again."""
    sent: list[tuple[str, str, Any]] = []
    take_note = Outbox._send_data

    def noting(outbox: Outbox, to: str, data: Data, tensors: Tensors, level: int) -> None:
        sent.append((data.sender, to, data.message))
        take_note(outbox, to, data, tensors, level)

    monkeypatch.setattr(Outbox, "_send_data", noting)
    monkeypatch.setattr(generation, "AHEAD_S", 1e3)
    with session(workers, loop, tmp_path) as opened:
        likeliest = side_by_side(opened)
        drawings = side_by_side(opened, temperature=1.5, seed=7, chunk=2)
    assert [one.tokens for one in likeliest] == [case["tokens"][:COUNT] for case in CASES]
    assert [one.tokens for one in drawings] == [
        drawn(case["prompt"], COUNT, temperature=1.5, seed=[7]) for case in CASES
    ]
    assert {one.restarts for one in (*likeliest, *drawings)} == {0}
    last = STAGES[workers][-1][0]
    begun = Counter(
        sender for sender, to, message in sent if isinstance(message, TaskMessage) and message.task.next_block == 0
    )
    pieces = sum(-(-len(case["prompt"]) // 2) + 1 for case in CASES)
    steps = 2 * (COUNT - 1) * len(CASES)
    assert begun[last] == (steps - 2 * len(CASES) if loop == "last" and workers > 1 else 0)
    assert begun["a"] == pieces + (steps if loop == "home" else 2 * len(CASES))
    results = [message for _, to, message in sent if isinstance(message, ResultMessage) and to == "a"]
    assert sum(message.goes_on for message in results) == (0 if loop == "home" else steps - 2 * len(CASES))


@pytest.mark.parametrize("loop", ["home", "last"])
def test_a_stop_token_ends_a_sequence_at_any_place(loop: str, tmp_path: Path) -> None:
    tokens: Sequence[int] = CASES[0]["tokens"]
    end = next(place for place, token in enumerate(tokens) if place > 4 and token not in tokens[:place]) + 1
    with session(2, loop, tmp_path) as opened:
        assert list(opened.source("s").generate(CASES[0]["prompt"], stop=[tokens[end - 1]])) == tokens[:end]
