"""Delays, loads and memory of plans whose samples run as batches."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.sessions import join_blocks, longest_wait_s
from planner.plan.store import plan_document
from planner.plan.summary import describe_plan
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.simulation.simulator import simulate
from planner.solvers.solve import solve
from planner.trace.records import SampleRecord
from tests.instances import linear_batches, make_instance, make_profile

SERVICE_S = 0.01
ROUTE = {
    blocks: Route(model="m", stages=(Stage(worker="a", first_block=0, last_block=blocks - 1),)) for blocks in (1, 4)
}


def instance(blocks: int = 4, fixed: float = 0.8, max_batch: int = 8, goal: Any = "delay", **rates: float) -> Instance:
    profile = make_profile(block_s=[SERVICE_S / blocks] * blocks, batches=linear_batches(blocks, fixed))
    keys = {"worker": "a", "models": ["m"], "samples": 4000, "max_batch": max_batch}
    priorities = {"bulk": 1.0, "urgent": 8.0}
    return make_instance(
        profiles=[profile],
        workers={"a": 1.0},
        sources={name: {**keys, "priority": priorities[name], "rate_per_s": rate} for name, rate in rates.items()},
        objective=ObjectiveSpec(goal=goal),
    )


def evaluated(of: Instance, blocks: int = 4) -> Evaluation:
    return evaluate(of, dict.fromkeys(of.sources, (ROUTE[blocks],)))


def simulated(of: Instance, blocks: int = 4, routes: Mapping[str, tuple[Route, ...]] | None = None) -> dict[str, float]:
    by_source = routes or dict.fromkeys(of.sources, (ROUTE[blocks],))
    sources = {
        name: SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=own)
        for name, own in by_source.items()
    }
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources=sources, workers={}, networks={},
    )  # fmt: skip
    found = simulate_case(of, plan, RunSpec("planned", 1)).metrics.sources
    return {name: own.mean_delay_s or 0.0 for name, own in found.items()}


@pytest.mark.parametrize("wait_s", [0.0, 0.02])
@pytest.mark.parametrize(("fixed", "rate"), [(0.8, 40.0), (0.8, 200.0), (0.5, 120.0), (0.2, 80.0)])
def test_one_class_alone_is_a_bulk_queue(fixed: float, rate: float, wait_s: float) -> None:
    of = instance(fixed=fixed, bulk=rate).with_sources({"bulk": {"max_batch_wait_s": wait_s}})
    close = 0.06 if wait_s else 0.04
    assert evaluated(of).sources["bulk"].delay_s == pytest.approx(simulated(of)["bulk"], rel=close)


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.sampled_from([1, 4]),
    std_s=st.sampled_from([0.0, 0.002]),
    classes=st.lists(st.tuples(st.sampled_from("mn"), st.sampled_from([0.5, 1.0, 8.0])), min_size=1, max_size=4),
    load=st.floats(0.1, 0.7),
)
def test_batches_that_do_not_pay_leave_delays_as_they_are(
    blocks: int, std_s: float, classes: list[tuple[str, float]], load: float
) -> None:
    """Queues by priority of single samples are exact here, whatever else shares the worker."""
    slower = linear_batches(blocks, fixed=-0.2)  # two samples take 2.2 times as long as one
    profiles = [
        make_profile(block_s=[SERVICE_S / blocks] * blocks, std_s=std_s, batches=slower),
        make_profile("n", block_s=[SERVICE_S / blocks] * blocks, std_s=std_s),
    ]
    sources: dict[str, dict[str, Any]] = {
        f"s{number}": {"models": [model], "priority": priority, "rate_per_s": load / len(classes) / SERVICE_S}
        for number, (model, priority) in enumerate(classes)
    }
    routes = {
        name: (ROUTE[blocks].model_copy(update={"model": source["models"][0]}),) for name, source in sources.items()
    }
    delays_s = []
    for most in (1, 8):
        of = make_instance(profiles=profiles, workers={"a": 1.0}, sources=sources)
        keys = {"max_batch": most, "max_batch_wait_s": 0.02 if most > 1 else 0.0}
        of = of.with_sources({name: keys for name in sources if sources[name]["models"] == ["m"]})
        delays_s.append([own.delay_s for own in evaluate(of, routes).sources.values()])
    assert delays_s[1] == pytest.approx(delays_s[0], rel=1e-3)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("fixed", [0.2, 0.8])
def test_much_work_of_others_is_near_the_simulation(fixed: float, *, equal: bool) -> None:
    """Half of the worker's time goes to samples that are more important, or equally so, and run no batches."""
    rates = {"bulk": 0.25 / SERVICE_S, "other": 0.5 / SERVICE_S}
    other = make_profile("n", block_s=[SERVICE_S])
    of = make_instance(
        profiles=[make_profile(block_s=[SERVICE_S], batches=linear_batches(1, fixed)), other],
        workers={"a": 1.0},
        sources={
            "bulk": {"models": ["m"], "max_batch": 8, "rate_per_s": rates["bulk"], "samples": 6000},
            "other": {
                "models": ["n"], "rate_per_s": rates["other"], "samples": 12000, "priority": 1.0 if equal else 8.0
            },
        },
    )  # fmt: skip
    routes = {"bulk": (ROUTE[1],), "other": (ROUTE[1].model_copy(update={"model": "n"}),)}
    predicted, found = evaluate(of, routes).sources, simulated(of, routes=routes)
    for name in of.sources:
        assert predicted[name].delay_s == pytest.approx(found[name], rel=0.12)


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize(("bulk", "urgent"), [(40.0, 10.0), (120.0, 15.0), (200.0, 10.0)])
def test_two_classes_are_near_the_simulation(bulk: float, urgent: float, blocks: int) -> None:
    of = instance(blocks=blocks, bulk=bulk, urgent=urgent).with_sources(
        {"urgent": {"samples": int(4000 * urgent / bulk)}}
    )
    predicted, found = evaluated(of, blocks).sources, simulated(of, blocks)
    for name in of.sources:
        assert predicted[name].delay_s == pytest.approx(found[name], rel=0.12)


def test_without_batches_nothing_changes() -> None:
    plain = make_instance(
        profiles=[make_profile(block_s=[SERVICE_S / 4] * 4)],
        workers={"a": 1.0},
        sources={"bulk": {"worker": "a", "models": ["m"], "rate_per_s": 50.0}},
    )
    assert evaluated(instance(max_batch=1, bulk=50.0)).sources == evaluated(plain).sources
    assert instance(max_batch=1, bulk=50.0).in_full_batches() is not None


def test_more_than_full_batches_can_carry_waits_for_ever() -> None:
    most = 8 / (SERVICE_S * (0.8 + 0.2 * 8))  # samples per second
    assert np.isfinite(evaluated(instance(bulk=0.99 * most)).sources["bulk"].delay_s)
    assert evaluated(instance(bulk=1.01 * most)).sources["bulk"].delay_s == np.inf
    assert evaluated(instance(bulk=most)).workers["a"].utilisation == pytest.approx(1.0)


def test_room_for_the_activations_of_a_full_batch() -> None:
    alone, together = (evaluated(instance(max_batch=most, bulk=10.0)) for most in (1, 8))
    activations = make_profile().blocks[0].activation_bytes
    assert together.workers["a"].memory_bytes - alone.workers["a"].memory_bytes == 7 * activations


def solved(of: Instance, method: str = "milp") -> PlanSpec | None:
    return solve(of, method=method, time_limit_s=10.0).plan


@pytest.mark.parametrize("method", ["milp", "colgen", "exhaustive", "convex", "search"])
def test_solvers_count_on_batches_and_their_plans_hold(method: str) -> None:
    of = instance(bulk=200.0, urgent=20.0)
    plan = solved(of, method)
    assert plan is not None
    verify(of, plan)
    assert plan.bound <= plan.objective * (1 + 1e-6)
    assert solved(instance(max_batch=1, bulk=200.0, urgent=20.0), method) is None


def test_no_plan_whose_batches_are_too_small_for_its_rates() -> None:
    of = instance(bulk=295.0, urgent=15.0)
    assert evaluated(of).workers["a"].utilisation < 0.95
    found = solve(of, method="milp", time_limit_s=10.0)
    assert (found.status, found.plan) == ("no_solution", None)
    assert found.reasons == (
        "samples of bulk wait for ever: batches of different priorities are not full at these rates",
    )
    throughput = solved(instance(goal="throughput", bulk=295.0, urgent=15.0))
    assert throughput is not None
    assert np.isfinite([own.delay_s for own in throughput.sources.values()]).all()
    verify(instance(goal="throughput", bulk=295.0, urgent=15.0), throughput)


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_the_bottleneck_is_that_of_full_batches(goal: str) -> None:
    of = instance(goal=goal, bulk=200.0)
    plan, alone = solved(of), solved(instance(goal=goal, max_batch=1, bulk=200.0))
    assert plan is not None
    assert alone is not None
    verify(of, plan)
    assert plan.objective == pytest.approx((0.8 + 0.2 * 8) / 8 * alone.objective, rel=1e-6)


def test_the_deadline_of_another_source_is_held_against_batches() -> None:
    profile, other = (
        make_profile(block_s=[SERVICE_S / 4] * 4, batches=linear_batches(4, 0.8)),
        make_profile("n", block_s=[0.005]),
    )
    of = make_instance(
        profiles=[profile, other],
        workers={"a": 1.0},
        sources={
            "bulk": {"worker": "a", "models": ["m"], "rate_per_s": 150.0, "max_batch": 8, "samples": 6000},
            "urgent": {
                "worker": "a",
                "models": ["n"],
                "rate_per_s": 10.0,
                "priority": 8.0,
                "deadline_s": 0.02,
                "samples": 400,
            },
        },
    )
    own = Route(model="n", stages=(Stage(worker="a", first_block=0, last_block=0),))
    found = evaluate(of, {"bulk": [ROUTE[4]], "urgent": [own]}).sources["urgent"]
    assert found.p95_delay_s is not None
    assert 0.005 < found.delay_s < found.p95_delay_s < 0.02


def stages_of(plan: PlanSpec, source: str) -> list[Stage]:
    return [stage for route in plan.sources[source].routes for stage in route.stages]


@pytest.mark.parametrize(("max_wait_s", "most"), [(1.0, None), (0.006, None), (0.0055, 7), (0.0031, 2), (0.0, 1)])
def test_batches_keep_more_urgent_work_waiting_no_longer_than_asked(max_wait_s: float, most: int | None) -> None:
    of = instance(bulk=40.0, urgent=10.0)  # a block takes 2 ms and 0.5 ms for each sample
    routes = join_blocks(of, dict.fromkeys(of.sources, (ROUTE[4],)), max_wait_s)
    assert routes["bulk"][0].stages[0].max_batch == most
    assert routes["urgent"][0].stages[0].max_batch is None
    assert longest_wait_s(of, routes) == pytest.approx(0.0 if most == 1 else 0.002 + 0.0005 * (most or 8))
    again = join_blocks(of, routes, 0.0031)  # of an earlier plan
    assert again["bulk"][0].stages[0].max_batch == 2
    alone = of.only_sources(["bulk"])
    assert join_blocks(alone, {"bulk": routes["bulk"]}, 0.0)["bulk"][0].stages[0].max_batch is None


def test_blocks_are_joined_less_where_that_leaves_room_for_batches() -> None:
    of = instance(bulk=40.0, urgent=10.0)
    saving = of.profile("m", "a").model_copy(update={"fusion_saving_s": (0.0001,) * 3})
    of = of.model_copy(update={"profiles": {"m": {"reference": saving}}})
    routes = dict.fromkeys(of.sources, (ROUTE[4],))

    def found(max_wait_s: float) -> tuple[tuple[int, ...], int | None]:
        (stage,) = join_blocks(of, routes, max_wait_s)["bulk"][0].stages
        return stage.sessions, stage.max_batch

    assert found(inf) == ((3,), None)
    assert found(0.006) == ((), None)  # all eight samples block by block, or two samples as one session
    assert found(0.0031) == ((), 2)
    assert found(0.0) == ((), 1)


def test_a_limit_of_the_plan_or_of_a_worker_counts_in_loads_bounds_and_delays() -> None:
    of, full = instance(bulk=150.0), instance(bulk=150.0, max_batch=4)
    limited = (ROUTE[4].model_copy(update={"stages": (ROUTE[4].stages[0].model_copy(update={"max_batch": 4}),)}),)
    worker = {"a": of.scenario.workers["a"].model_copy(update={"max_batch": 4})}
    own = of.with_scenario(workers=worker)
    expected = evaluated(full)
    by_plan, by_worker = evaluate(of, {"bulk": limited}), evaluated(own)
    assert by_worker.sources == expected.sources
    assert by_worker.workers == expected.workers
    assert by_plan.sources["bulk"].delay_s == expected.sources["bulk"].delay_s
    assert by_plan.workers["a"].utilisation == expected.workers["a"].utilisation
    assert solved(own).bound == pytest.approx(solved(full).bound)  # type: ignore[union-attr]


def test_the_solver_limits_batches_as_far_as_urgent_work_is_worth_it() -> None:
    def most(priority: float, fixed: float, bulk: float) -> list[int | None]:
        of = instance(blocks=1, fixed=fixed, bulk=bulk, urgent=20.0).with_sources({"urgent": {"priority": priority}})
        plan = solved(of)
        assert plan is not None
        verify(of, plan)
        assert PlanSpec.model_validate(plan_document(plan)) == plan
        assert (plan.max_wait_s is None) == (stages_of(plan, "bulk")[0].max_batch == 1)
        return [stage.max_batch for stage in stages_of(plan, "bulk")]

    assert most(2.0, 0.8, 120.0) == [None]
    (limit,) = most(1000.0, 0.3, 60.0)
    assert limit is not None
    assert limit < 8
    asked = solve(instance(bulk=120.0, urgent=20.0), method="milp", time_limit_s=10.0, max_wait_s=0.003).plan
    assert asked is not None
    assert [stage.max_batch for stage in stages_of(asked, "bulk")] == [2]
    assert "batches of at most 2 at a, so that more urgent work waits up to 3.0 ms" in list(
        describe_plan(asked, instance(bulk=120.0, urgent=20.0))
    )


@pytest.mark.parametrize(("fixed", "rate"), [(0.8, 40.0), (0.8, 120.0), (0.8, 200.0)])
def test_the_tail_of_samples_in_batches_is_near_the_simulation(fixed: float, rate: float) -> None:
    of = instance(fixed=fixed, bulk=rate).with_sources({"bulk": {"deadline_s": 1.0, "samples": 4000}})
    source = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(ROUTE[4],))
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"bulk": source}, workers={}, networks={},
    )  # fmt: skip
    records, _ = simulate(of, policy="planned", plan=plan, seed=1)
    delays_s = [each.finished_s - each.created_s for each in records if isinstance(each, SampleRecord)]
    found = evaluated(of).sources["bulk"]
    assert found.delay_s == pytest.approx(np.mean(delays_s), rel=0.05)
    assert found.p50_delay_s == pytest.approx(np.percentile(delays_s, 50), rel=0.15)
    assert found.p95_delay_s is not None
    assert 0.9 < found.p95_delay_s / np.percentile(delays_s, 95) < 1.2
