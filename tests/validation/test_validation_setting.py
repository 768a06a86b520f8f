"""How long a validation lasts, and what of the scenario is played."""

from __future__ import annotations

import pytest

from planner.execution.launch.setting import first_samples, first_seconds, in_namespaces, on_this_host
from planner.scenario.arrivals import instance_arrivals
from tests.execution.rig import small_instance

INSTANCE = small_instance(samples=12, rate_per_s=60.0)


def test_so_many_samples_at_most() -> None:
    assert [first_samples(INSTANCE, 5).samples(source) for source in INSTANCE.sources] == [5, 5]
    assert [first_samples(INSTANCE, 50).samples(source) for source in INSTANCE.sources] == [12, 12]


@pytest.mark.parametrize(("duration_s", "seed"), [(0.1, 0), (2.0, 0), (2.0, 1)])
def test_what_arrives_within_a_time_and_no_more(duration_s: float, seed: int) -> None:
    short = first_seconds(INSTANCE, duration_s, seed)
    longer = first_samples(first_seconds(INSTANCE, duration_s + 5.0, seed), 10**6)
    for source in INSTANCE.sources:
        times = list(instance_arrivals(short, source, seed))
        assert len(times) == short.samples(source)
        assert times[-1] <= duration_s
        following = list(instance_arrivals(longer, source, seed))
        assert following[: len(times)] == times
        assert following[len(times)] > duration_s


def test_a_time_in_which_nothing_arrives_leaves_one_sample() -> None:
    assert [first_seconds(INSTANCE, 1e-9, 0).samples(source) for source in INSTANCE.sources] == [1, 1]


def test_what_is_played_where() -> None:
    paced, free = on_this_host(INSTANCE, paced=True), on_this_host(INSTANCE, paced=False)
    assert (paced.paced, paced.emulation is not None) == (True, True)
    assert (free.paced, free.emulation) == (False, None)
    real = in_namespaces(INSTANCE, paced=True)
    assert (real.paced, real.emulation) == (True, None)
    assert INSTANCE.path("a", "b").hops[0].latency_s > 0  # type: ignore[union-attr]
    assert real.instance.path("a", "b").hops[0].latency_s == 0  # type: ignore[union-attr]
