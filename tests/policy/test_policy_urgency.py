"""Order of service where samples have deadlines, what is refused, and the policies that know deadlines alone."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.urgency import Job, by_priority, by_slack, in_time
from planner.scenario.instance import Instance
from planner.scenario.types import PolicySpec, ServiceOrder
from planner.simulation.simulator import simulate
from planner.trace.metrics import RunMetrics, summarise
from planner.trace.records import BlockRecord, SampleRecord
from tests.instances import make_instance, make_profile

JOBS = st.lists(
    st.builds(
        Job,
        due_s=st.floats(0.1, 10.0),
        work_s=st.floats(0.1, 3.0),
        priority=st.sampled_from([1.0, 2.0, 10.0]),
        queue=st.integers(),
    ),
    min_size=1,
    max_size=7,
)


def fits(jobs: list[Job]) -> bool:
    done_s = 0.0
    for job in sorted(jobs, key=lambda job: job.due_s):
        done_s += job.work_s
        if done_s > job.due_s:
            return False
    return True


@given(JOBS)
def test_what_is_kept_is_done_in_time_and_as_much_as_can_be_of_equal_worth(jobs: list[Job]) -> None:
    kept = in_time(0.0, jobs)
    assert fits(kept)
    assert [job.due_s for job in kept] == sorted(job.due_s for job in kept)
    equal = [job._replace(priority=1.0) for job in jobs]
    most = max(size for size in range(len(jobs) + 1) for some in combinations(equal, size) if fits(list(some)))
    assert len(in_time(0.0, equal)) == most


@given(JOBS)
def test_where_all_can_be_in_time_none_is_put_aside(jobs: list[Job]) -> None:
    assert (len(in_time(0.0, jobs)) == len(jobs)) == fits(jobs)
    assert by_slack(0.0, jobs).start_s == min(job.start_s for job in jobs)
    assert by_priority(0.0, jobs).priority == max(job.priority for job in jobs)


def plan_at(instance: Instance, *stages: tuple[str, int, int]) -> PlanSpec:
    route = Route(model="m", stages=tuple(Stage(worker=w, first_block=f, last_block=a) for w, f, a in stages))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip


def metrics_of(instance: Instance, policy: str, seed: int = 0) -> tuple[RunMetrics, list[SampleRecord]]:
    plan = plan_at(instance, ("one", 0, 1))
    records, _ = simulate(instance, policy=policy, plan=plan, seed=seed)
    priorities = {name: spec.priority for name, spec in instance.scenario.sources.items()}
    ended = [record for record in records if isinstance(record, SampleRecord)]
    return summarise(records, priorities, instance.workers, deadlines=instance.deadlines), ended


def overloaded(late: str, policy: PolicySpec | None = None) -> Instance:
    """One worker, half as much again as it can do, two thirds of it of little importance."""
    sources = {
        "urgent": {"rate_per_s": 25.0, "samples": 250, "priority": 10.0, "deadline_s": 0.12, "late": late},
        "other": {"rate_per_s": 50.0, "samples": 500, "priority": 1.0, "deadline_s": 0.12, "late": late},
    }
    return make_instance(workers={"one": 1.0}, networks={}, sources=sources, policy=policy)


@pytest.mark.parametrize("policy", ["planned", "adaptive"])
def test_under_overload_the_important_are_in_time(policy: str) -> None:
    by_priority = PolicySpec(order="priority") if policy == "planned" else None  # otherwise it refuses none
    metrics, ended = metrics_of(overloaded("drop", by_priority), policy)
    assert (metrics.sources["urgent"].miss_share or 0.0) < 0.05
    assert metrics.sources["other"].dropped > 100
    refused = [record for record in ended if record.reason.startswith("refused")]
    assert refused
    assert {record.source for record in refused} == {"other"}
    assert all(record.status == "dropped" and record.late_s is not None for record in refused)
    assert all(record.delay_s == 0 for record in refused)


def test_planned_by_value_saves_what_is_worth_most() -> None:
    metrics, _ = metrics_of(overloaded("drop"), "planned")
    assert (metrics.sources["urgent"].miss_share or 0.0) < 0.05
    edf, _ = metrics_of(overloaded("drop"), "edf")
    assert (edf.sources["urgent"].miss_share or 0.0) > 0.2


@pytest.mark.parametrize("policy", ["planned", "adaptive"])
def test_only_what_may_be_dropped_is_refused(policy: str) -> None:
    metrics, ended = metrics_of(overloaded("finish"), policy)
    assert all(record.status == "completed" for record in ended)
    without, _ = metrics_of(overloaded("drop", PolicySpec(admission=False)), policy)
    assert all(own.failed == 0 for own in (*metrics.sources.values(), *without.sources.values()))


@pytest.mark.parametrize("policy", ["planned", "adaptive"])
def test_what_cannot_be_saved_is_left_for_later(policy: str) -> None:
    """Of late samples that are finished all the same, others that are not late yet do not wait for them."""
    both = {"rate_per_s": 60.0, "samples": 300, "deadline_s": 0.1}
    instance = make_instance(workers={"one": 1.0}, networks={}, sources={"a": both})
    ours, edf = (metrics_of(instance, name)[0].sources["a"].miss_share or 0.0 for name in (policy, "edf"))
    assert ours < 0.7 * edf


def test_planned_serves_as_a_plan_with_limits_is_evaluated() -> None:
    """By priority, where a source limits its late samples; else what is due first, while all can be in time."""
    sources = {
        "first": {"deadline_s": 2.0},
        "urgent": {"deadline_s": 1.0, "priority": 10.0},
        "other": {"deadline_s": 0.5},
    }
    orders = {}
    for name, limit in (("by value", {}), ("limited", {"miss_at_most": 0.05})):
        own = {source: {"samples": 1, "arrivals": "batch", **keys} for source, keys in sources.items()}
        own["urgent"] |= limit
        profiles = [make_profile(block_s=[0.01, 0.01])]
        instance = make_instance(profiles=profiles, workers={"one": 1.0}, networks={}, sources=own)
        records, _ = simulate(instance, policy="planned", plan=plan_at(instance, ("one", 0, 1)))
        orders[name] = [record.source for record in records if isinstance(record, BlockRecord)]
    assert orders["by value"] == ["first", "other", "other", "urgent", "urgent", "first"]
    assert orders["limited"] == ["first", "urgent", "urgent", "other", "other", "first"]


@pytest.mark.parametrize(
    ("policy", "order", "limit"),
    [
        ("planned", "value", {"miss_at_most": 0.05}),
        ("planned", "priority", {}),
        ("adaptive", "priority", {}),
        ("adaptive", "slack", {}),
        ("adaptive", "value", {}),
    ],
)
def test_samples_of_one_source_do_not_take_turns(policy: str, order: ServiceOrder, limit: dict[str, float]) -> None:
    """Slack grows with each block that is computed; who has begun goes on all the same."""
    source = {"rate_per_s": 20.0, "samples": 150, "deadline_s": 5.0, **limit}
    profiles = [make_profile(block_s=[0.01] * 4)]
    spec = PolicySpec(order=order)
    instance = make_instance(profiles=profiles, workers={"one": 1.0}, networks={}, sources={"s": source}, policy=spec)
    records, _ = simulate(instance, policy=policy, plan=plan_at(instance, ("one", 0, 3)))
    served = [(record.sample, record.block) for record in records if isinstance(record, BlockRecord)]
    assert served == [(sample, block) for sample in range(150) for block in range(4)]


def test_where_a_class_has_one_deadline_planned_has_the_delays_of_priority_queues() -> None:
    """By these a plan with limits is verified."""
    sources = {
        "high": {"rate_per_s": 5.0, "samples": 100, "priority": 5.0},
        "low": {"rate_per_s": 10.0, "samples": 200},
    }
    limits = {"high": {"deadline_s": 2.0, "miss_at_most": 0.01}, "low": {"deadline_s": 9.0, "miss_at_most": 0.5}}
    plain = make_instance(
        profiles=[make_profile(block_s=[0.02, 0.01, 0.02])], workers={"one": 1.0}, networks={}, sources=sources
    )
    limited = plain.with_sources(limits)
    with_limits, without = (
        [
            record
            for record in simulate(instance, policy="planned", plan=plan_at(instance, ("one", 0, 2)))[0]
            if isinstance(record, BlockRecord)
        ]
        for instance in (limited, plain)
    )
    assert with_limits == without


@pytest.mark.parametrize(("late", "used"), [("drop", {"one"}), ("finish", {"one", "slow"})])
def test_planned_leaves_out_routes_on_which_all_would_be_dropped(late: str, used: set[str]) -> None:
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01, 0.01])],
        workers={"one": 1.0, "slow": 0.1},
        sources={"a": {"rate_per_s": 5.0, "samples": 40, "deadline_s": 0.15, "late": late, "worker": "one"}},
    )
    routes = tuple(
        Route(model="m", share=0.5, stages=(Stage(worker=worker, first_block=0, last_block=1),))
        for worker in ("one", "slow")
    )
    plan = plan_at(instance, ("one", 0, 1))
    plan = plan.model_copy(update={"sources": {"a": plan.sources["a"].model_copy(update={"routes": routes})}})
    records, _ = simulate(instance, policy="planned", plan=plan)
    assert {record.worker for record in records if isinstance(record, BlockRecord)} == used
    assert [record.status for record in records if isinstance(record, SampleRecord)] == ["completed"] * 40


def batch(**deadlines_s: float) -> Instance:
    """Samples of equal work that are all there at once."""
    sources = {
        name: {"samples": 1, "arrivals": "batch", "deadline_s": deadline_s, "late": "drop"}
        for name, deadline_s in deadlines_s.items()
    }
    profiles = [make_profile(block_s=[0.01, 0.01])]
    return make_instance(profiles=profiles, workers={"one": 1.0}, networks={}, sources=sources)


@pytest.mark.parametrize("policy", ["edf", "least-laxity"])
def test_the_next_deadline_goes_first(policy: str) -> None:
    """The first begins at once; of those that wait, the order of deadlines counts, between blocks, too."""
    records, _ = simulate(batch(first=1.0, c=0.3, a=0.1, b=0.2), policy=policy)
    blocks = [record.source for record in records if isinstance(record, BlockRecord)]
    assert blocks == ["first", "a", "a", "b", "b", "c", "c", "first"]


def test_laxity_counts_the_work_that_is_left() -> None:
    """Of equal deadlines, the longer sample goes first, and after a block the other has less time to spare."""
    profiles = [make_profile("long", block_s=[0.03, 0.03]), make_profile("short", block_s=[0.02, 0.02])]
    sources = {
        "begun": {"samples": 1, "arrivals": "batch", "deadline_s": 9.0, "models": ("short",)},
        "short": {"samples": 1, "arrivals": "batch", "deadline_s": 1.0, "models": ("short",)},
        "long": {"samples": 1, "arrivals": "batch", "deadline_s": 1.0, "models": ("long",)},
    }
    instance = make_instance(profiles=profiles, workers={"one": 1.0}, networks={}, sources=sources)
    order = {}
    for policy in ("edf", "least-laxity"):
        records, _ = simulate(instance, policy=policy)
        order[policy] = [record.source for record in records if isinstance(record, BlockRecord)]
    assert order["edf"] == ["begun", "short", "short", "long", "long", "begun"]
    assert order["least-laxity"] == ["begun", "long", "short", "long", "short", "begun"]


def test_thousands_of_waiting_samples_may_be_refused_at_once() -> None:
    """All come at once; of those that wait in the reservoir, nearly none can be in time."""
    source = {"samples": 3000, "arrivals": "batch", "deadline_s": 0.5, "late": "drop", "in_flight": 2}
    instance = make_instance(workers={"one": 1.0}, networks={}, sources={"s": source})
    metrics, ended = metrics_of(instance, "planned")
    assert len(ended) == 3000
    assert 10 <= metrics.sources["s"].completed <= 25


def test_a_job_that_just_fits_is_kept_beside_one_that_is_put_aside() -> None:
    due_s = 0.2580431358349629  # less than itself plus 2 minus 2
    just, long = (Job(due_s=due_s, work_s=work_s, priority=1.0, queue=0) for work_s in (due_s, 2.0))
    assert in_time(0.0, [just, long]) == [just]
