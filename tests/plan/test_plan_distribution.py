"""Distributions of delay: those of queues that are known in closed form, and their means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.distribution import DelayDistribution
from planner.plan.evaluate import evaluate
from planner.plan.journey import journey
from planner.plan.types import Route, Stage
from planner.profiling.types import ExitPoint, OperatingPoint
from tests.instances import make_instance, make_profile, random_instance


def route(*stages: tuple[str, int, int], model: str = "m") -> Route:
    return Route(
        model=model,
        stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
    )


def mean_s(distribution: DelayDistribution) -> float:
    assert distribution.below is not None
    return float((1 - distribution.below).sum() - 0.5 * (1 - distribution.below[0])) * distribution.step_s


@pytest.mark.parametrize("busy", [0.01, 0.5, 0.8, 0.95])
def test_mm1(busy: float) -> None:
    profile = make_profile(block_s=[0.01], std_s=0.01)
    instance = make_instance(profiles=[profile], sources={"s": {"rate_per_s": 100 * busy, "deadline_s": 0.05}})
    found = evaluate(instance, {"s": [route(("slow", 0, 0))]}).sources["s"]
    free_per_s = 100 * (1 - busy)
    levels = np.array([0.5, 0.95, 0.99])
    assert [found.p50_delay_s, found.p95_delay_s, found.p99_delay_s] == pytest.approx(
        (-np.log(1 - levels) / free_per_s).tolist(), rel=2e-3
    )
    assert found.miss_share == pytest.approx(math.exp(-free_per_s * 0.05), abs=2e-4)


@pytest.mark.parametrize("busy", [0.3, 0.8])
def test_md1(busy: float) -> None:
    """Erlang's formula for the wait."""
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01])], sources={"s": {"rate_per_s": 100 * busy, "deadline_s": 1.0}}
    )
    found = evaluate(instance, {"s": [route(("slow", 0, 0))]}).distributions["s"]
    for wait in (0.5, 1.5, 3.2):
        below = (1 - busy) * sum(
            (busy * (passed - wait)) ** passed / math.factorial(passed) * math.exp(-busy * (passed - wait))
            for passed in range(int(wait) + 1)
        )
        assert 1 - found.share_beyond(0.01 * (1 + wait)) == pytest.approx(below, abs=3e-3)


@settings(max_examples=12, deadline=None)
@given(
    rates=st.lists(st.floats(0.5, 8.0), min_size=1, max_size=3),
    std_s=st.sampled_from([0.0, 0.004, 0.02]),
    order=st.permutations([1.0, 2.0, 2.0]),
)
def test_the_mean_of_priority_queues_with_looks_between_blocks(
    rates: list[float], std_s: float, order: list[float]
) -> None:
    """As :mod:`planner.plan.queueing` has it, class by class."""
    profile = make_profile(block_s=[0.01, 0.03, 0.005], std_s=std_s)
    sources = {
        f"s{number}": {"rate_per_s": rate, "priority": priority, "deadline_s": 1.0}
        for number, (rate, priority) in enumerate(zip(rates, order, strict=False))
    }
    instance = make_instance(profiles=[profile], workers={"one": 1.0}, networks={}, sources=sources)
    found = evaluate(instance, {source: [route(("one", 0, 2))] for source in sources})
    for source, own in found.sources.items():
        assert mean_s(found.distributions[source]) == pytest.approx(own.delay_s, rel=5e-3)


def test_samples_leave_at_exits() -> None:
    """Seven of ten stop after the first of two blocks, and send a smaller result home."""
    points = [OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.3))]
    profile = make_profile(
        block_s=[0.04, 0.08],
        cut_bytes=[200_000, 100_000, 4000],
        exits=[ExitPoint(name="e", cut=1, result_bytes=1000)],
        operating_points=points,
    )
    instance = make_instance(profiles=[profile], sources={"s": {"rate_per_s": 0.01, "deadline_s": 0.04}})
    for stages in ((("fast", 0, 1),), (("slow", 0, 0), ("fast", 1, 1)), (("fast", 0, 0), ("slow", 1, 1))):
        trip = journey(instance, "s", route(*stages))
        assert sum(way.probability for way in trip.ways) == pytest.approx(1.0)
        found = evaluate(instance, {"s": [route(*stages)]})
        assert mean_s(found.distributions["s"]) == pytest.approx(found.sources["s"].delay_s, rel=5e-3)
        early_s = min(found.distributions["s"].percentile_s(level) for level in (0.1, 0.6))
        assert found.distributions["s"].share_beyond(early_s * 1.02 + 1e-3) == pytest.approx(0.3, abs=0.01)


def test_a_sample_waits_for_ever_behind_too_much_work() -> None:
    instance = make_instance(sources={"s": {"rate_per_s": 100.0, "deadline_s": 1.0}})
    found = evaluate(instance, {"s": [route(("slow", 0, 1))]}).sources["s"]
    assert (found.p95_delay_s, found.miss_share) == (math.inf, 1.0)


def test_even_arrivals_do_not_wait_for_each_other() -> None:
    sources = {"s": {"rate_per_s": 40.0, "deadline_s": 0.021, "arrivals": "constant"}}
    found = evaluate(make_instance(sources=sources), {"s": [route(("slow", 0, 1))]})
    assert found.sources["s"].miss_share == pytest.approx(0.0, abs=1e-6)
    assert found.sources["s"].p99_delay_s == pytest.approx(0.02, rel=0.01)


def test_in_a_row_of_equal_workers_only_the_first_makes_wait() -> None:
    """Friedman's reduction: with constant times, the wait of a row is that of its slowest queue."""
    profile = make_profile(block_s=[0.01, 0.01], cut_bytes=[0, 0, 0])
    workers = {"a": 1.0, "b": 1.0}
    sources = {"s": {"rate_per_s": 80.0, "deadline_s": 1.0}}
    instance = make_instance(profiles=[profile], workers=workers, sources=sources)
    row = evaluate(instance, {"s": [route(("a", 0, 0), ("b", 1, 1))]}).distributions["s"]
    alone = make_instance(profiles=[make_profile(block_s=[0.01], cut_bytes=[0, 0])], workers=workers, sources=sources)
    one = evaluate(alone, {"s": [route(("a", 0, 0))]}).distributions["s"]
    for level in (0.5, 0.95, 0.99):  # two hops of 1 ms of latency
        assert row.percentile_s(level) == pytest.approx(one.percentile_s(level) + 0.012, rel=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_levels_are_in_order(seed: int) -> None:
    instance = random_instance(seed, sources=3, links=seed % 2 == 0)
    instance = instance.with_sources({name: {"percentiles_s": {"p95": 1.0}} for name in instance.sources})
    routes = {
        source: [
            route((instance.workers[seed % 3], 0, 1), (instance.workers[(seed + index) % 3], 2, 3), model=f"m{index}")
        ]
        for index, source in enumerate(instance.sources)
    }
    for source, found in evaluate(instance, routes).distributions.items():
        times_s = [found.percentile_s(level) for level in (0.01, 0.5, 0.9, 0.95, 0.99, 0.999)]
        assert times_s == sorted(times_s)
        if found.below is not None:
            least_s = journey(instance, source, routes[source][0]).unloaded_s
            assert times_s[0] >= least_s * 0.97
            assert [found.share_beyond(time_s) for time_s in times_s[1:5]] == pytest.approx(
                [0.5, 0.1, 0.05, 0.01], abs=5e-3
            )
