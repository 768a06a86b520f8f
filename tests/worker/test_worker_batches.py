"""Samples that run as one batch on a worker."""

from __future__ import annotations

from math import inf

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, SampleRecord
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Effect,
    Fail,
    RunBlock,
    SetTimer,
    TimedOut,
    Timer,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.instances import linear_batches, make_instance, make_profile

BLOCK_S = 0.01


def key(source: str, sample: int) -> SampleKey:
    return SampleKey(source, sample, 0)


def instance(fixed: float = 0.8, wait_s: float = 0.0, max_batch: int = 4, blocks: int = 2) -> Instance:
    profile = make_profile(block_s=[BLOCK_S] * blocks, batches=linear_batches(blocks, fixed))
    keys = {"worker": "a", "models": ["m"], "max_batch": max_batch, "max_batch_wait_s": wait_s}
    names = {"urgent": 8.0, "yard": 1.0, "gate": 1.0}
    return make_instance(
        profiles=[profile],
        workers={"a": 1.0},
        sources={name: {**keys, "priority": priority} for name, priority in names.items()},
    )


def worker(of: Instance, policy: str = "planned") -> Worker:
    return Worker("a", of, make_policy(policy, of, plan_of(of)), Patience(first_s=inf))


def plan_of(of: Instance) -> PlanSpec:
    stage = Stage(worker="a", first_block=0, last_block=of.length("m") - 1)
    source = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=(stage,)),))
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(of.sources, source), workers={}, networks={},
    )  # fmt: skip


def runs(effects: list[Effect]) -> list[tuple[SampleKey, ...]]:
    return [effect.keys for effect in effects if isinstance(effect, RunBlock)]


def busy(own: Worker, *waiting: tuple[str, int]) -> list[tuple[SampleKey, ...]]:
    """Have samples arrive while another one runs; return what runs after it."""
    assert runs(own.step(0.0, Arrived("gate", 100))) == [(key("gate", 100),)]
    for source, sample in waiting:
        assert runs(own.step(0.001, Arrived(source, sample))) == []
    (first,) = runs(own.step(0.01, BlockEnded(key("gate", 100), 0, BLOCK_S)))
    if first == (key("gate", 100),):
        (first,) = runs(own.step(0.02, BlockEnded(key("gate", 100), 1, BLOCK_S)))
    return [first]


def test_samples_of_one_priority_run_together_and_all_complete() -> None:
    own = worker(instance())
    assert busy(own, ("yard", 0), ("gate", 0), ("yard", 1)) == [(key("yard", 0), key("gate", 0), key("yard", 1))]
    assert own._view.running_until_s == pytest.approx(0.02 + BLOCK_S * (0.8 + 0.2 * 3))
    assert own._view.backlog_s == {1.0: pytest.approx(3 * BLOCK_S)}
    effects = own.step(0.034, BlockEnded(key("yard", 0), 0, 0.014))
    assert runs(effects) == [(key("yard", 0), key("gate", 0), key("yard", 1))]
    ended = own.step(0.048, BlockEnded(key("yard", 0), 1, 0.014))
    assert [effect.key for effect in ended if isinstance(effect, Complete)] == [
        key("yard", 0), key("gate", 0), key("yard", 1),
    ]  # fmt: skip
    assert own.queued == 0
    assert own.running is None
    assert own._view.backlog_s == {}
    assert own.slowness(0.05) == 1.0


def test_a_batch_is_no_larger_than_its_source_allows_nor_than_pays() -> None:
    waiting = [("yard", sample) for sample in range(6)]
    assert len(busy(worker(instance()), *waiting)[0]) == 4
    assert len(busy(worker(instance(max_batch=8)), *waiting)[0]) == 6
    assert len(busy(worker(instance(fixed=0.0)), *waiting)[0]) == 4  # costs nothing, gains nothing: equal time each
    assert len(busy(worker(instance(max_batch=1)), *waiting)[0]) == 1


def test_what_does_not_pay_runs_alone() -> None:
    of = instance()
    costs = of.profile("m", "a").batches
    assert costs is not None
    slower = costs.model_copy(update={"relative": ((1.0, 2.5, 6.0, 16.0),) * 2})
    profile = of.profile("m", "a").model_copy(update={"batches": slower})
    of = of.model_copy(update={"profiles": {"m": {"reference": profile}}})
    assert busy(worker(of), ("yard", 0), ("yard", 1)) == [(key("yard", 0),)]


def test_urgent_samples_run_first_and_others_do_not_prolong_their_batch() -> None:
    own = worker(instance())
    first = busy(own, ("yard", 0), ("urgent", 0), ("yard", 1), ("urgent", 1))
    assert first == [(key("urgent", 0), key("urgent", 1))]


def test_urgent_work_goes_ahead_between_the_blocks_of_a_batch() -> None:
    own = worker(instance())
    busy(own, ("yard", 0), ("yard", 1))
    assert runs(own.step(0.021, Arrived("urgent", 0))) == []
    assert runs(own.step(0.032, BlockEnded(key("yard", 0), 0, 0.012))) == [(key("urgent", 0),)]
    own.step(0.042, BlockEnded(key("urgent", 0), 0, BLOCK_S))
    effects = own.step(0.052, BlockEnded(key("urgent", 0), 1, BLOCK_S))
    assert runs(effects) == [(key("yard", 0), key("yard", 1))]


def test_samples_at_other_blocks_run_apart() -> None:
    own = worker(instance())
    busy(own, ("yard", 0))
    own.step(0.021, Arrived("yard", 1))
    assert runs(own.step(0.03, BlockEnded(key("yard", 0), 0, BLOCK_S))) == [(key("yard", 0),)]
    assert runs(own.step(0.04, BlockEnded(key("yard", 0), 1, BLOCK_S))) == [(key("yard", 1),)]


@pytest.mark.parametrize(("within_s", "together"), [(10.0, 3), (0.0275, 3), (0.0235, 2), (0.0225, 1)])
def test_no_batch_makes_a_sample_too_late_that_must_start_by_a_time(within_s: float, together: int) -> None:
    own = worker(instance())
    own.step(0.0, Arrived("gate", 100))
    own.step(0.001, Arrived("yard", 0, within_s=within_s))
    own.step(0.001, Arrived("yard", 1, within_s=10.0))
    own.step(0.002, Arrived("yard", 2))
    own.step(0.01, BlockEnded(key("gate", 100), 0, BLOCK_S))
    # Each of both blocks takes 2 ms longer for each further sample, and the first one starts at 20 ms.
    (first,) = runs(own.step(0.02, BlockEnded(key("gate", 100), 1, BLOCK_S)))
    assert first == tuple(key("yard", sample) for sample in range(together))


def test_a_sample_of_a_batch_whose_time_is_up_is_dropped_and_the_others_go_on() -> None:
    own = worker(instance())
    busy(own, ("yard", 0), ("yard", 1))
    own._running.others[0].task.latest_s = own._running.others[0].latest_s = 0.03  # type: ignore[union-attr]
    effects = own.step(0.0321, BlockEnded(key("yard", 0), 0, 0.012))
    assert runs(effects) == [(key("yard", 0),)]
    timer = next(effect for effect in effects if isinstance(effect, SetTimer) and effect.timer.purpose == "latest")
    dropped = own.step(0.0322, TimedOut(timer.timer))
    assert [effect.key for effect in dropped if isinstance(effect, Fail)] == [key("yard", 1)]
    assert not runs(own.step(0.0421, BlockEnded(key("yard", 0), 1, BLOCK_S)))


@pytest.mark.parametrize("order", ["priority", "slack", "value"])
def test_samples_with_deadlines_run_together_whatever_the_order(order: str) -> None:
    of = instance(max_batch=8)
    of = of.with_sources({name: {"deadline_s": 1.0} for name in ("yard", "gate")})
    of = of.with_scenario(policy=of.scenario.policy.model_copy(update={"order": order}))
    assert len(busy(worker(of), *(("yard", sample) for sample in range(3)), ("gate", 0))[0]) == 4


def test_a_sample_that_would_miss_its_deadline_waits_for_no_larger_batch() -> None:
    # It needs 20 ms by itself, and 12 ms more in the largest batch.
    of = instance(wait_s=1.0).with_sources({name: {"deadline_s": 0.04} for name in ("yard", "gate")})
    own = worker(of)
    first = own.step(0.0, Arrived("yard", 0))
    (timer,) = timers(first)
    assert runs(first) == []
    assert timer.at_s == pytest.approx(0.008)
    own.step(0.001, Arrived("gate", 0))
    ((*together,),) = runs(own.step(timer.at_s, TimedOut(timer.timer)))
    assert sorted(together) == [key("gate", 0), key("yard", 0)]
    late = worker(of.with_sources({name: {"deadline_s": 0.03} for name in ("yard", "gate")}))
    assert runs(late.step(0.0, Arrived("yard", 0))) == [(key("yard", 0),)]


@pytest.mark.parametrize(("limit", "together"), [(1, 1), (2, 2), (None, 4)])
@pytest.mark.parametrize("by", ["worker", "plan"])
def test_a_worker_or_the_plan_limits_batches(by: str, limit: int | None, together: int) -> None:
    of = instance()
    if by == "worker":
        workers = {"a": of.scenario.workers["a"].model_copy(update={"max_batch": limit})}
        of = of.with_scenario(workers=workers)
    own = worker(of)
    if by == "plan":
        for source, (route,) in own._policy._routes.items():  # type: ignore[attr-defined]
            stage = route.stages[0].model_copy(update={"max_batch": limit})
            own._policy._routes[source] = (route.model_copy(update={"stages": (stage,)}),)  # type: ignore[attr-defined]
    assert len(busy(own, *(("yard", sample) for sample in range(6)))[0]) == together


def test_a_worker_says_how_long_it_waits_in_place_of_the_source() -> None:
    of = instance(wait_s=1.0)
    workers = {"a": of.scenario.workers["a"].model_copy(update={"max_batch_wait_s": 0.002})}
    (timer,) = timers(worker(of.with_scenario(workers=workers)).step(0.0, Arrived("yard", 0)))
    assert timer.at_s == pytest.approx(0.002)


def timers(effects: list[Effect]) -> list[SetTimer]:
    return [effect for effect in effects if isinstance(effect, SetTimer) and effect.timer.purpose == "batch"]


def test_an_idle_worker_waits_for_a_larger_batch_until_its_time_is_over() -> None:
    own = worker(instance(wait_s=0.005))
    first = own.step(0.0, Arrived("yard", 0))
    assert timers(first) == [SetTimer(Timer("batch", key("yard", 0)), 0.005)]
    assert runs(first) == []
    second = own.step(0.001, Arrived("gate", 0))
    assert (runs(second), timers(second)) == ([], [])
    assert runs(own.step(0.005, TimedOut(Timer("batch", key("yard", 0))))) == [(key("yard", 0), key("gate", 0))]
    assert runs(own.step(0.006, TimedOut(Timer("batch", key("yard", 0))))) == []


def test_a_full_batch_waits_no_longer() -> None:
    own = worker(instance(wait_s=1.0))
    found = [runs(own.step(0.001 * sample, Arrived("yard", sample))) for sample in range(4)]
    assert found == [[], [], [], [tuple(key("yard", sample) for sample in range(4))]]


def test_an_urgent_sample_waits_for_no_batch_and_breaks_no_other_one() -> None:
    own = worker(instance(wait_s=1.0))
    assert runs(own.step(0.0, Arrived("yard", 0))) == []
    assert runs(own.step(0.1, Arrived("urgent", 0))) == [(key("urgent", 0),)]
    own.step(0.11, BlockEnded(key("urgent", 0), 0, BLOCK_S))
    assert runs(own.step(0.12, BlockEnded(key("urgent", 0), 1, BLOCK_S))) == []
    assert runs(own.step(1.0, TimedOut(Timer("batch", key("yard", 0))))) == [(key("yard", 0),)]


def test_nothing_waits_while_other_work_is_there() -> None:
    of = instance(wait_s=1.0)
    other = make_profile("n", block_s=[BLOCK_S])
    of = of.model_copy(update={"profiles": {**of.profiles, "n": {"reference": other}}})
    of = of.with_sources({"gate": {"models": ("n",), "max_batch": 1, "max_batch_wait_s": 0.0}})
    own = worker(of)
    own._policy._routes["gate"] = (  # type: ignore[attr-defined]
        Route(model="n", stages=(Stage(worker="a", first_block=0, last_block=0),)),
    )
    assert runs(own.step(0.0, Arrived("yard", 0))) == []
    assert runs(own.step(0.1, Arrived("gate", 0))) == [(key("yard", 0),)]


def test_samples_of_a_batch_that_fails_run_alone_and_only_the_bad_one_fails() -> None:
    own = worker(instance())
    busy(own, ("yard", 0), ("yard", 1), ("gate", 0))
    effects = own.step(0.03, BlockFailed(key("yard", 0), 0, "a bad sample"))
    assert not [effect for effect in effects if isinstance(effect, Fail)]
    assert runs(effects) == [(key("yard", 0),)]
    assert own._view.backlog_s == {1.0: pytest.approx(5 * BLOCK_S)}
    failed = own.step(0.04, BlockFailed(key("yard", 0), 0, "a bad sample"))
    assert runs(failed) == [(key("yard", 1),)]
    own.step(0.05, BlockEnded(key("yard", 1), 0, BLOCK_S))
    assert runs(own.step(0.06, BlockEnded(key("yard", 1), 1, BLOCK_S))) == [(key("gate", 0),)]


@pytest.mark.parametrize("policy", ["planned", "local", "adaptive", "ddi", "ar-mdi", "ms-mdi", "pa-mdi"])
def test_only_planned_runs_batches(policy: str) -> None:
    of = instance().with_sources({name: {"rate_per_s": 80.0, "samples": 50} for name in ("urgent", "yard", "gate")})
    records, _ = simulate(of, policy=policy, plan=plan_of(of))
    sizes = [record.batch for record in records if isinstance(record, BlockRecord)]
    assert (max(sizes) > 1) == (policy == "planned")
    assert sum(isinstance(record, SampleRecord) and record.status == "completed" for record in records) == 150


def test_a_policy_that_does_not_look_between_blocks_keeps_its_batch() -> None:
    own = worker(instance())
    own._policy.looks_between_blocks = False
    assert busy(own, ("yard", 0), ("yard", 1)) == [(key("yard", 0), key("yard", 1))]
    own.step(0.021, Arrived("urgent", 0))
    assert runs(own.step(0.032, BlockEnded(key("yard", 0), 0, 0.012))) == [(key("yard", 0), key("yard", 1))]
    assert runs(own.step(0.044, BlockEnded(key("yard", 0), 1, 0.012))) == [(key("urgent", 0),)]
