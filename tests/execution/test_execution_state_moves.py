"""Sequences whose plan changes in their midst: real agents stay, move the state, or start again; tokens are exact."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from planner.execution.coordinator.deployment import Deployment, deploy
from planner.execution.coordinator.run_result import Observer
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.session import generation
from planner.execution.session.generation import Generation
from planner.execution.session.session import LiveSession
from planner.execution.wire.messages import Load
from planner.plan.replan import ReplanAnswer, Situation, TakeAnswer
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.runtime.state import MAX_SEQUENCES
from planner.scenario.instance import Instance
from planner.scenario.types import PaceParameters, PolicySpec
from tests.execution.rig import agents_in_threads
from tests.instances import make_instance, make_profile, with_sequences
from tests.model.decoder_models import EXPECTED, export

BLOCKS = 4
MODEL = export("llama-fp32", BLOCKS)
BEFORE = [("a", 0, 1), ("b", 2, 3)]
SOON_S = 60.0


class Blocks(Observer):
    """Counts the blocks that workers have computed, and tells of new plans."""

    def __init__(self) -> None:
        self.computed: Counter[str] = Counter()
        self.plans = 0

    def on_load(self, load: Load) -> None:
        self.computed[load.worker] = max(self.computed[load.worker], load.blocks)

    def on_replanned(self, plan: PlanSpec) -> None:  # noqa: ARG002 - the observer's signature
        self.plans += 1


class Solver:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.take: TakeAnswer

    def start(self, _instance: Instance, _plan: PlanSpec | None, take: TakeAnswer) -> Solver:
        self.take = take
        return self

    def request(self, situation: Situation) -> None:
        pass

    def close(self) -> None:
        pass


PLACE: dict[str, Any] = {}
"""Where routes feed tokens back."""


@pytest.fixture(params=["home", "last"], autouse=True)
def _place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACE, "loop", request.param)
    monkeypatch.setattr(generation, "AHEAD_S", 0.05)  # so that another plan applies soon


def plan(stages: list[tuple[str, int, int]]) -> PlanSpec:
    built = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages)
    own = SourcePlan(
        accuracy=1.0,
        delay_s=0.1,
        surrogate_delay_s=0.1,
        routes=(Route(share=1.0, model="llama", stages=built, **PLACE),),
    )
    return PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources={"s": own}, workers={}, networks={},
    )  # fmt: skip


def deployment(
    sequences: str, stages: list[tuple[str, int, int]], replan: Solver | None = None, *, emulated: bool = False
) -> Deployment:
    cut_bytes = [cut.bytes for cut in MODEL.chain.cuts]
    profile = with_sequences(make_profile("llama", block_s=[0.02] * BLOCKS, cut_bytes=cut_bytes))
    policy = PolicySpec.model_validate({"sequences": sequences, "pace": PaceParameters(slow=1000.0)})
    instance = make_instance(
        profiles=[profile],
        workers=dict.fromkeys("abc", 1.0),
        sources={"s": {"rate_per_s": 10.0, "worker": "a"}},
        policy=policy,
    )
    emulation = EmulatedNetwork(instance) if emulated else None
    found = deploy(
        instance, plan(stages), {"llama": MODEL}, policy="planned", paced=True, emulation=emulation, live=True
    )
    return found if replan is None else dataclasses.replace(found, replan=replan_of(replan, found))


def replan_of(solver: Solver, of: Deployment) -> Callable[[TakeAnswer], Solver]:
    return lambda take: solver.start(of.instance, of.plan, take)


def await_that(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


CASE = EXPECTED["llama-fp32"][0]


def halves(session: LiveSession, change: Callable[[], None]) -> tuple[Generation, list[int]]:
    """Generate tokens, and change the plan in their midst: a step takes 10 ms, so few follow one another unasked."""
    found = session.source("s").generate(CASE["prompt"], max_new=len(CASE["tokens"]))
    tokens = list(itertools.islice(found, 8))
    change()
    return found, [*tokens, *found]


WAYS = ["stay", "move", "restart"]


AFTER = {
    "another worker": [("a", 0, 1), ("c", 2, 3)],
    "another border": [("a", 0, 0), ("b", 1, 3)],
    "two others": [("c", 0, 1), ("a", 2, 2), ("c", 3, 3)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", AFTER)
def test_a_plan_that_replaces_another_costs_no_token(way: str, after: str, tmp_path: Path) -> None:
    blocks = Blocks()
    with LiveSession(deployment(way, BEFORE), agents_in_threads(tuple("abc"), tmp_path), observer=blocks) as session:
        found, tokens = halves(session, lambda: session.apply(deployment(way, AFTER[after])))
        assert tokens == CASE["tokens"]
        assert found.restarts == (way == "restart")
        if way != "stay" and after != "another border":
            await_that(lambda: blocks.computed["c"] > 0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("emulated", [False, True])
def test_a_plan_made_again_in_a_run_costs_no_token(way: str, *, emulated: bool, tmp_path: Path) -> None:
    solver, blocks = Solver(), Blocks()
    before = deployment(way, BEFORE, solver, emulated=emulated)
    with LiveSession(before, agents_in_threads(tuple("abc"), tmp_path), observer=blocks) as session:

        def change() -> None:
            solver.take(ReplanAnswer(Situation(), plan([("c", 0, 3)])))
            await_that(lambda: blocks.plans == 1)

        found, tokens = halves(session, change)
        assert tokens == CASE["tokens"]
        assert found.restarts == (way == "restart")
        if way != "stay":
            await_that(lambda: blocks.computed["c"] > 0)


def test_a_prompt_moves_between_its_pieces_and_drawn_tokens_with_their_draws(tmp_path: Path) -> None:
    changed = [("c", 0, 2), ("b", 3, 3)]
    with LiveSession(deployment("move", BEFORE), agents_in_threads(tuple("abc"), tmp_path)) as session:
        source = session.source("s")

        def generate() -> Generation:
            return source.generate(CASE["prompt"], max_new=12, temperature=1.0, seed=3, chunk=2)

        whole = list(generate())
        moved = generate()
        steps = moved._steps()
        run = next(steps)
        outputs = source.submit(run.inputs, further=run.further, progress=run.progress).result().outputs
        session.apply(deployment("move", changed))
        with suppress(StopIteration):
            while True:
                run = steps.send(outputs)
                outputs = source.submit(run.inputs, further=run.further, progress=run.progress).result().outputs
        assert list(moved) == whole
        assert moved.restarts == 0


def test_state_that_is_nowhere_is_begun_again(tmp_path: Path) -> None:
    """A worker that should have the state may have dropped it; nothing hangs."""
    with LiveSession(deployment("move", BEFORE), agents_in_threads(tuple("abc"), tmp_path)) as session:
        source = session.source("s")

        others = [source.generate([1], max_new=50) for _ in range(MAX_SEQUENCES)]

        def change() -> None:
            for other in others:  # a block keeps the state of the last ones
                next(other)
            session.apply(deployment("move", [("a", 0, 1), ("c", 2, 3)]))

        found, tokens = halves(session, change)
        assert tokens == CASE["tokens"]
        assert found.restarts == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_sequences_that_have_ended_leave_room_for_others(temperature: float, tmp_path: Path) -> None:
    with LiveSession(deployment("move", BEFORE), agents_in_threads(tuple("abc"), tmp_path)) as session:
        source = session.source("s")

        def change() -> None:
            for length in range(MAX_SEQUENCES + 1):
                list(source.generate([1, 2, 3], max_new=1 + length % 2, chunk=2, temperature=temperature))
            (stop,) = source.generate([1, 2], max_new=1)
            assert list(source.generate([1, 2], max_new=9, stop=[stop])) == [stop]

        found, tokens = halves(session, change)
        assert tokens == CASE["tokens"]
        assert found.restarts == 0


def test_sequences_that_a_program_gives_up_leave_room_for_others(tmp_path: Path) -> None:
    """Whether it says so or just forgets them; the next sample of the source tells the workers."""
    with LiveSession(deployment("move", BEFORE), agents_in_threads(tuple("abc"), tmp_path)) as session:
        source = session.source("s")

        def change() -> None:
            for number in range(MAX_SEQUENCES + 1):
                other = source.generate([1, 2, 3], max_new=50)
                next(other)
                if number % 2:
                    other.close()
                    assert list(other) == []

        found, tokens = halves(session, change)
        assert tokens == CASE["tokens"]
        assert found.restarts == 0


def test_many_sequences_follow_many_plans(tmp_path: Path) -> None:
    """State goes to and fro between workers, at any time, while sequences begin and end."""
    solver, blocks = Solver(), Blocks()
    cases = [*EXPECTED["llama-fp32"]] * 4
    found: dict[int, list[int]] = {}
    restarts: dict[int, int] = {}
    with LiveSession(
        deployment("move", BEFORE, solver), agents_in_threads(tuple("abc"), tmp_path), limit=8, observer=blocks
    ) as session:

        def generate(number: int) -> None:
            prompt, tokens = cases[number]["prompt"], cases[number]["tokens"]
            own = session.source("s").generate(prompt, max_new=len(tokens), chunk=(None, 2)[number % 2])
            found[number], restarts[number] = list(own), own.restarts

        threads = [threading.Thread(target=generate, args=(number,)) for number in range(len(cases))]
        for thread in threads:
            thread.start()
        for stages in (*AFTER.values(), [("c", 0, 3)], BEFORE, *AFTER.values()):
            if not any(thread.is_alive() for thread in threads):
                break
            solver.take(ReplanAnswer(Situation(), plan(stages)))
            time.sleep(0.15)
        for thread in threads:
            thread.join()
    assert [found[number] for number in range(len(cases))] == [case["tokens"] for case in cases]
    assert Counter(restarts.values())[0] >= 6  # where a result is late, its home asks again, for state that has gone
    assert blocks.plans >= 3
