"""Long prompts of low priority, read in chunks, hold up the tokens of an urgent source by about a block."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from planner.execution.coordinator.deployment import deploy
from planner.execution.session.session import LiveSession
from planner.execution.session.source import SourceHandle
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from tests.execution.rig import agents_in_threads
from tests.instances import make_instance, make_profile
from tests.model.decoder_models import EXPECTED, export

BLOCKS = 4
BLOCK_S = 0.012
READERS = 4
CHUNK = 8
LONG = 96
TURNS = 3
CASE = EXPECTED["llama-fp32"][0]


def _instance(urgent: float) -> Instance:
    """Return an instance whose blocks take as long whatever they run on."""
    cut_bytes = [cut.bytes for cut in export("llama-fp32", BLOCKS).chain.cuts]
    return make_instance(
        profiles=[make_profile("llama", block_s=[BLOCK_S] * BLOCKS, cut_bytes=cut_bytes)],
        workers={"a": 1.0, "b": 1.0},
        sources={
            "urgent": {"rate_per_s": 5.0, "priority": urgent, "worker": "a"},
            "other": {"rate_per_s": 5.0, "priority": 1.0, "worker": "a"},
        },
    )


def _over_both() -> PlanSpec:
    stages = (Stage(worker="a", first_block=0, last_block=1), Stage(worker="b", first_block=2, last_block=3))
    own = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(share=1.0, model="llama", stages=stages),)
    )
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": own, "other": own}, workers={}, networks={},
    )  # fmt: skip


@contextmanager
def _session(urgent: float, folder: Path) -> Iterator[LiveSession]:
    models = {"llama": export("llama-fp32", BLOCKS)}
    deployment = deploy(_instance(urgent), _over_both(), models, policy="planned", live=True, paced=True)
    with LiveSession(deployment, agents_in_threads(("a", "b"), folder), limit=2 * READERS) as session:
        yield session


def _tpot_s(source: SourceHandle) -> float:
    generation = source.generate(CASE["prompt"], max_new=len(CASE["tokens"]))
    assert list(generation) == CASE["tokens"]
    assert generation.restarts == 0
    return float(np.mean(np.diff(generation.times_s)))


@contextmanager
def _reading(source: SourceHandle) -> Iterator[list[int]]:
    """Let one long prompt after the other be read, several at a time; give a list of what was read."""
    over, read = threading.Event(), list[int]()

    def one_after_the_other() -> None:
        while not over.is_set():
            list(source.generate([token % 256 for token in range(LONG)], max_new=1, chunk=CHUNK))
            read.append(LONG)

    threads = [threading.Thread(target=one_after_the_other) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    try:
        yield read
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _idle_and_loaded_s(urgent: float, folder: Path) -> tuple[float, float]:
    """Return the time per token alone and beside readers, of which each has read a prompt each time."""
    with _session(urgent, folder) as session:
        source, other = session.source("urgent"), session.source("other")
        idle_s, loaded_s, prompts = [], [], 0
        for _ in range(TURNS):
            idle_s.append(_tpot_s(source))
            with _reading(other) as read:
                loaded_s.append(_tpot_s(source))
            prompts += len(read)
    assert prompts >= READERS * TURNS
    return median(idle_s), median(loaded_s)


def _loaded_s(urgent: float, folder: Path) -> float:
    """Return the time per token beside readers."""
    with _session(urgent, folder) as session, _reading(session.source("other")):
        return _tpot_s(session.source("urgent"))


def test_urgent_tokens_wait_for_about_a_block_of_a_long_prompt(tmp_path: Path) -> None:
    idle_s, loaded_s = _idle_and_loaded_s(8.0, tmp_path / "urgent")
    assert loaded_s <= 1.3 * idle_s + 2 * BLOCK_S
    equal_s = _loaded_s(1.0, tmp_path / "equal")
    assert equal_s > 1.3 * idle_s + 2 * BLOCK_S  # the load is heavy enough to tell
