"""Simulated workers that leave, slow down and come back: plans are solved again, and slow workers are avoided."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, ObjectiveSpec
from planner.simulation.simulator import DETECTION_S, REPLANNING_S, Simulator, simulate
from planner.solvers.replan.replanner import Replanner, replanner
from planner.solvers.solve import solve
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import Effect, Event, Replanned
from tests.instances import make_instance, make_profile
from tests.simulation.observed import ObservedSimulator


def instance(*events: dict[str, Any], rate_per_s: float = 14.0, samples: int = 300) -> Instance:
    """A slow home, two fast workers, and more work than any one of them can do with ease."""
    found = make_instance(
        profiles=[make_profile(block_s=[0.02] * 4, cut_bytes=[10_000] * 4 + [1_000])],
        workers={"home": 1.0, "near": 2.0, "far": 2.0},
        sources={
            "urgent": {"rate_per_s": rate_per_s, "priority": 5.0, "samples": samples},
            "other": {"rate_per_s": rate_per_s, "priority": 1.0, "samples": samples},
        },
    )
    scenario = found.scenario.model_copy(update={"events": tuple(EventSpec(**event) for event in events)})
    return found.model_copy(update={"scenario": scenario})


def plan_for(found: Instance) -> PlanSpec:
    plan = solve(found, routes="shared").plan
    assert plan is not None
    return plan


LEAVES, COMES_BACK = (
    {"at_s": at_s, "worker": "near", "action": action} for at_s, action in ((4.0, "leave"), (12.0, "join"))
)


def test_the_rest_of_an_instance_has_neither_the_worker_nor_its_sources_nor_paths_over_it() -> None:
    rest = instance(LEAVES).without_workers({"near"})
    assert rest.workers == ("home", "far")
    assert rest.scenario.networks["wifi"].members == ("home", "far")
    assert set(rest.paths["home"]) == {"far"}
    assert rest.sources == ("urgent", "other")
    assert instance().without_workers({"home"}).sources == ()


def test_a_new_plan_avoids_who_left_and_the_first_one_is_back_when_all_are() -> None:
    found = instance()
    plan = plan_for(found)
    replan = Replanner(found, plan)
    without = replan({"near"})
    assert without is not None
    assert {stage.worker for own in without.sources.values() for r in own.routes for stage in r.stages} == {
        "home",
        "far",
    }
    assert replan({"near"}) is without
    assert replan(()) is plan
    assert replan({"home"}) is None


@pytest.mark.parametrize("policy", ["planned", "adaptive"])
def test_plans_are_solved_again_when_workers_leave_and_come_back(policy: str) -> None:
    found = instance(LEAVES, COMES_BACK)
    plan = plan_for(found)
    replans: list[tuple[str, float]] = []

    def observe(worker: str, now_s: float, event: Event, _effects: list[Effect]) -> None:
        if isinstance(event, Replanned):
            replans.append((worker, now_s))

    records: list[Record] = []
    replan = replanner(found, policy, plan)
    ObservedSimulator(
        found, policy=policy, plan=plan, seed=1, sink=records.append, observe=observe, replan=replan
    ).run()
    after_s = DETECTION_S + REPLANNING_S
    assert [worker for worker, _ in replans] == ["home", "far", "home", "far", "near"]
    assert [now_s for _, now_s in replans] == pytest.approx([4.0 + after_s] * 2 + [12.0 + after_s] * 3)
    ended = [record for record in records if isinstance(record, SampleRecord)]
    assert sorted((r.source, r.sample) for r in ended) == [(s, k) for s in ("other", "urgent") for k in range(300)]
    assert all(record.status == "completed" for record in ended)
    assert share_of("near", records, 4.0, 12.0) == 0.0
    assert share_of("near", records, 14.0, 20.0) > 0.1


def test_a_new_plan_is_better_than_what_is_left_of_the_old_one() -> None:
    found = instance(LEAVES, rate_per_s=4.0)
    route = Route(model="m", stages=(Stage(worker="near", first_block=0, last_block=3),))
    plan = plan_for(found)
    all_near = {name: own.model_copy(update={"routes": (route,)}) for name, own in plan.sources.items()}
    plan = plan.model_copy(update={"sources": all_near})
    delays = []
    for replan in (None, replanner(found, "planned", plan)):
        records: list[Record] = []
        Simulator(found, policy="planned", plan=plan, seed=1, sink=records.append, replan=replan).run()
        delays.append(weighted_delay_s(records))
    assert delays[1] < 0.8 * delays[0]


def test_a_plan_for_a_slow_worker_is_that_for_one_of_less_speed() -> None:
    found = instance()
    plan = plan_for(found)
    replan = Replanner(found, plan)
    slow = replan((), {"near": 10.0})
    assert slow is not None
    assert blocks_on("near", slow) < blocks_on("near", plan)
    assert replan((), {"near": 10.0}) is slow
    assert found.slowed({"near": 10.0}).scenario.workers["near"].speed == pytest.approx(0.2)
    assert replan({"near"}, {"near": 10.0}) is replan({"near"})
    assert replan((), {}) is plan


def test_all_samples_there_at_once_a_new_plan_takes_work_from_a_slow_worker() -> None:
    slow = {"at_s": 4.0, "worker": "near", "action": "slow", "factor": 10.0}
    found = instance(slow, samples=1500)
    sources = {name: spec.model_copy(update={"arrivals": "batch"}) for name, spec in found.scenario.sources.items()}
    update = {"sources": sources, "objective": ObjectiveSpec(goal="makespan")}
    found = found.model_copy(update={"scenario": found.scenario.model_copy(update=update)})
    plan = solve(found, routes="shared").plan
    assert plan is not None
    makespans_s = []
    for replan in (None, replanner(found, "adaptive", plan)):
        records: list[Record] = []
        Simulator(found, policy="adaptive", plan=plan, seed=1, sink=records.append, replan=replan).run()
        makespans_s.append(max(record.finished_s for record in records if isinstance(record, SampleRecord)))
    assert makespans_s[1] < 0.8 * makespans_s[0]


@pytest.mark.parametrize(
    ("policy", "again_s"),
    [
        ("ddi", 28),
        ("pa-mdi", 28),
        ("planned", 44),  # the new plan leaves the slow worker a few blocks, and it takes many to tell that it is fast
        ("adaptive", 28),
    ],
)
def test_a_worker_that_slows_down_is_avoided_until_it_recovers(policy: str, again_s: float) -> None:
    events = (
        {"at_s": 4.0, "worker": "near", "action": "slow", "factor": 10.0},
        {"at_s": 14.0, "worker": "near", "action": "recover"},
    )
    found = instance(*events, rate_per_s=8.0, samples=480)
    plan = plan_for(found)
    records, _ = simulate(found, policy=policy, plan=plan, seed=1, replan=replanner(found, policy, plan))
    before, while_slow, after = (
        share_of("near", records, *span) for span in ((0, 4), (6, 14), (again_s, again_s + 12))
    )
    assert while_slow < before / 4
    assert after > before / 2


def blocks_on(worker: str, plan: PlanSpec) -> float:
    """Give how many blocks a worker runs, of one sample of each source."""
    return sum(
        route.share * (stage.last_block + 1 - stage.first_block)
        for own in plan.sources.values()
        for route in own.routes
        for stage in route.stages
        if stage.worker == worker
    )


def share_of(worker: str, records: list[Record], from_s: float, to_s: float) -> float:
    """Give the share of the blocks begun in a span of time that a worker ran."""
    begun = [r.worker for r in records if isinstance(r, BlockRecord) and from_s <= r.start_s < to_s]
    return begun.count(worker) / len(begun)


def weighted_delay_s(records: list[Record]) -> float:
    ended = [record for record in records if isinstance(record, SampleRecord)]
    weights = {"urgent": 5.0, "other": 1.0}
    return statistics.fmean(weights[r.source] * r.delay_s for r in ended) / statistics.fmean(weights.values())
