"""Simulated sequences whose worker becomes slow: they stay, move with their state, or start again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.types import PlanSpec
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, NetworkSpec, PolicySpec
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from tests.examples import examples
from tests.instances import make_instance, make_profile, with_sequences
from tests.simulation.test_simulation_sequences import make_plan, route

STATE_BYTES = 1000
SLOW_AT_S = 0.5
PLACE: dict[str, Any] = {}
"""Where routes feed tokens back."""


@pytest.fixture(params=["home", "last"], autouse=True)
def _place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACE, "loop", request.param)


def instance(
    way: str, *, factor: float = 20.0, bandwidth: float = 1e7, leave: str = "", samples: int = 1, **decode: Any
) -> Instance:
    """Sequences on one of two workers, which becomes slow in their midst; another may leave."""
    profile = with_sequences(make_profile(block_s=[0.003, 0.003]), state_bytes=STATE_BYTES)
    spec = DecodeSpec(**{"prompt": 200, "max_new": 400, **decode})
    known = make_instance(
        profiles=[profile],
        workers={"home": 0.1, "one": 1.0, "two": 1.0},
        networks={
            "lan": NetworkSpec(
                kind="shared", members=("home", "one", "two"), bandwidth_bytes_per_s=bandwidth, latency_s=0.001
            )
        },
        sources={"a": {"arrivals": "batch", "rate_per_s": 0.01, "samples": samples, "decode": spec}},
        policy=PolicySpec.model_validate({"sequences": way}),
    )
    events = [EventSpec(at_s=SLOW_AT_S, action="slow", worker="one", factor=factor)]
    events += [EventSpec(at_s=3.0, action="leave", worker=leave)] if leave else []
    return known.with_scenario(events=tuple(events))


def run(known: Instance, after: tuple[str, ...] = ("two",)) -> list[Record]:
    def over(*workers: str) -> PlanSpec:
        stages = [("one", 0, 1)] if not workers else [(name, block, block) for block, name in enumerate(workers)]
        stages = [(workers[0], 0, 1)] if len(workers) == 1 else stages
        return make_plan(known, {"a": [route(*stages).model_copy(update=PLACE)]})

    def replan(absent: object, slowness: object) -> PlanSpec | None:
        assert isinstance(slowness, dict)
        assert not slowness.keys() - {"one"}
        return over(*after) if slowness and not absent else None

    return simulate(known, policy="planned", plan=over(), seed=1, replan=replan)[0]


def end_s(records: list[Record]) -> float:
    (end,) = (record for record in records if isinstance(record, SampleRecord))
    assert (end.status, end.tokens) == ("completed", 400)
    return end.finished_s


def test_state_moves_with_a_sequence() -> None:
    records = run(instance("move"))
    end_s(records)
    blocks = [record for record in records if isinstance(record, BlockRecord)]
    assert len(blocks) == 2 * 400  # none again
    assert [record.worker for record in blocks] == sorted(record.worker for record in blocks)
    sent = [record for record in records if isinstance(record, TransferRecord) and record.sender == "one"]
    moved = [record for record in sent if record.receiver == "two"]
    assert [record.cut for record in moved] == [0, 1]
    (size,) = {record.size_bytes for record in moved}
    steps = sum(record.worker == "one" for record in blocks) // 2
    assert size == STATE_BYTES * (200 + steps - 1)


@pytest.mark.parametrize(("after", "moved"), [(("one", "two"), [1]), (("two", "one"), [0]), (("home", "two"), [0, 1])])
def test_only_the_blocks_that_change_workers_move(after: tuple[str, ...], moved: list[int]) -> None:
    records = run(instance("move"), after)
    end_s(records)
    blocks = [record for record in records if isinstance(record, BlockRecord)]
    assert len(blocks) == 2 * 400
    state = [
        record.cut
        for record in records
        if isinstance(record, TransferRecord) and record.size_bytes > 1e5 and record.start_s > SLOW_AT_S
    ]
    assert state == moved


@pytest.mark.parametrize("way", ["stay", "restart"])
def test_a_sequence_stays_or_starts_again_where_that_is_asked_for(way: str) -> None:
    records = run(instance(way))
    end_s(records)
    by_worker = Counter(record.worker for record in records if isinstance(record, BlockRecord))
    assert by_worker["one"] == 800 if way == "stay" else by_worker["two"] > 0
    prompts = sum(
        isinstance(record, TransferRecord) and record.cut == 0 and record.size_bytes > 1e5 for record in records
    )
    assert prompts == (1 if way == "stay" else 2)


@pytest.mark.parametrize(
    ("best", "how"),
    [
        ("move", {"prompt": 2000}),
        ("restart", {"prompt": 20, "bandwidth": 2e5}),
        ("stay", {"factor": 1.8, "prompt": 2000, "bandwidth": 1e6, "max_new": 400}),
    ],
)
def test_what_is_cheapest_is_chosen(best: str, how: dict[str, Any]) -> None:
    took_s = {way: end_s(run(instance(way, **how))) for way in ("stay", "move", "restart")}
    assert min(took_s, key=took_s.__getitem__) == best
    assert end_s(run(instance("cheapest", **how))) == pytest.approx(took_s[best], rel=1e-9)


@pytest.mark.parametrize("way", ["stay", "move", "restart", "cheapest"])
@pytest.mark.parametrize("leave", ["one", "two"])
def test_no_token_is_lost_when_a_worker_leaves_afterwards(way: str, leave: str) -> None:
    records = run(instance(way, leave=leave, samples=6))
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(6))
    assert {(record.status, record.tokens) for record in ends} == {("completed", 400)}


def test_a_sequence_on_a_route_that_the_plan_keeps_goes_on() -> None:
    records = run(instance("restart"), ("one",))
    end_s(records)
    assert sum(isinstance(record, BlockRecord) for record in records) == 800


@pytest.mark.parametrize("policy", ["planned", "adaptive"])
@examples(12, nightly=400)
@given(data=st.data())
def test_sequences_survive_any_course_of_plans_and_workers(policy: str, data: st.DataObject) -> None:
    """Each ends once and whole, without a second prompt unless a worker has left or that was asked for."""
    draw = data.draw
    workers, blocks = ("home", "one", "two"), 3
    way = draw(st.sampled_from(["cheapest", "stay", "move", "restart"]))
    profile = with_sequences(make_profile(block_s=[0.003] * blocks), state_bytes=draw(st.sampled_from([10.0, 5000.0])))
    decode = DecodeSpec(prompt=draw(st.integers(1, 60)), max_new=30, chunk=draw(st.sampled_from([None, 7])))
    known = make_instance(
        profiles=[profile],
        workers={name: draw(st.sampled_from([0.5, 1.0, 4.0])) for name in workers},
        sources={"a": {"rate_per_s": 5.0, "samples": 8, "decode": decode}},
        policy=PolicySpec.model_validate({"sequences": way}),
    )
    at_s = st.floats(0.0, 3.0)
    events = [
        EventSpec(at_s=draw(at_s), action="slow", worker=draw(st.sampled_from(workers)), factor=draw(st.floats(1, 30)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    leaves = draw(st.booleans())
    if leaves:
        worker, from_s = draw(st.sampled_from(workers[1:])), draw(at_s)
        events.append(EventSpec(at_s=from_s, action="leave", worker=worker))
        events.append(EventSpec(at_s=from_s + 1.0, action="join", worker=worker))
    known = known.with_scenario(events=tuple(sorted(events, key=lambda event: event.at_s)))
    random = np.random.default_rng(draw(st.integers(0, 1000)))

    def any_plan(present: Sequence[str]) -> PlanSpec:
        names = random.choice(present, blocks)
        begins = [block for block in range(blocks) if block == 0 or names[block] != names[block - 1]]
        ends = [*(begin - 1 for begin in begins[1:]), blocks - 1]
        stages = [(str(names[first]), first, last) for first, last in zip(begins, ends, strict=True)]
        return make_plan(known, {"a": [route(*stages).model_copy(update=PLACE)]})

    def replan(absent: Collection[str], _slowness: object) -> PlanSpec:
        return any_plan([name for name in workers if name not in absent])

    records, _ = simulate(known, policy=policy, plan=any_plan(workers), seed=1, replan=replan)
    ends = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted(record.sample for record in ends) == list(range(8))
    assert {(record.status, record.tokens) for record in ends} == {("completed", 30)}
    runs = Counter((record.sample, record.block) for record in records if isinstance(record, BlockRecord))
    if not leaves and way in {"stay", "move"}:
        assert set(runs.values()) == {len(decode.runs)}
