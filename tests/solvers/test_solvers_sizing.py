"""Sizing against an independent oracle: all placements on all fleets, on tiny instances."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from planner.errors import SolveError
from planner.plan.evaluate import evaluate
from planner.plan.types import Route, Stage
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.search_state import Options
from planner.solvers.sizing.fleet import Counts, Kind
from planner.solvers.sizing.fleet_model import FleetModel
from planner.solvers.sizing.method import FleetSolution, size
from tests.examples import examples
from tests.solvers.fleets import Fleet, fleets


def all_fleets(kinds: list[Kind]) -> Iterator[tuple[float, dict[str, int]]]:
    """Yield all fleets with their prices, the cheapest first."""
    counts = itertools.product(*(range(kind.most + 1) for kind in kinds))
    fleets = [dict(zip((kind.name for kind in kinds), numbers, strict=True)) for numbers in counts]
    priced = [(sum(kind.price * fleet[kind.name] for kind in kinds), fleet) for fleet in fleets]
    yield from sorted(priced, key=lambda entry: entry[0])


def has_plan(instance: Instance) -> bool:
    """Return whether some placement of all blocks, one route per source, keeps every limit by its evaluation."""
    routes = []
    for workers in itertools.product(instance.workers, repeat=instance.length("m")):
        stages = []
        for worker, run in itertools.groupby(enumerate(workers), key=lambda entry: entry[1]):
            numbers = [block for block, _ in run]
            stages.append(Stage(worker=worker, first_block=numbers[0], last_block=numbers[-1]))
        routes.append(Route(model="m", stages=tuple(stages)))
    return any(
        keeps_limits(instance, dict(zip(instance.sources, ([route] for route in chosen), strict=True)))
        for chosen in itertools.product(routes, repeat=len(instance.sources))
    )


def keeps_limits(instance: Instance, routes: Mapping[str, list[Route]]) -> bool:
    result = evaluate(instance, routes)
    busy = {name: use.utilisation for name, use in (*result.workers.items(), *result.networks.items())}  # type: ignore[attr-defined]
    return all(share <= min(0.95, instance.max_utilisation[name]) for name, share in busy.items()) and all(
        result.sources[name].delay_s <= (spec.max_mean_delay_s or np.inf)
        for name, spec in instance.scenario.sources.items()
    )


def check(fleet: Fleet, solution: FleetSolution) -> None:
    assert solution.plan is not None
    verify(fleet(solution.counts), solution.plan)
    assert solution.bound <= solution.price * (1 + 1e-9)


@examples(4, nightly=60)
@given(seed=st.integers(0, 10_000), goal=st.sampled_from(["delay", "energy", "throughput"]), links=st.booleans())
@example(seed=1213, goal="delay", links=False)  # HiGHS 1.16 fails on it, when it starts from a plan
def test_without_deadlines_the_cheapest_fleet_is_found_and_proven(seed: int, goal: str, *, links: bool) -> None:
    fleet, kinds = fleets(seed, goal=goal, links=links)
    solution = size(fleet, kinds, time_limit_s=20.0)
    oracle = next((price for price, counts in all_fleets(kinds) if has_plan(fleet(counts))), None)
    if oracle is None:
        assert solution.plan is None
        assert solution.status in {"infeasible", "no_solution"}
        assert solution.reasons
        return
    check(fleet, solution)
    assert solution.price == pytest.approx(oracle)
    assert solution.bound <= oracle * (1 + 1e-9)


@examples(3, nightly=30)
@given(seed=st.integers(0, 10_000), links=st.booleans())
def test_with_deadlines_the_bound_holds_for_every_fleet(seed: int, *, links: bool) -> None:
    """Of plans that keep deadlines despite queueing a solver may overlook some, but never says that there is none."""
    fleet, kinds = fleets(seed, links=links, deadlines=True)
    oracle = next((price for price, counts in all_fleets(kinds) if has_plan(fleet(counts))), None)
    assume(oracle is not None)
    solution = size(fleet, kinds, time_limit_s=2.0)
    assert solution.bound <= oracle * (1 + 1e-9)  # type: ignore[operator]  # assumed above
    assert solution.status != "infeasible"
    if solution.plan is not None:
        check(fleet, solution)
        assert solution.price >= oracle * (1 - 1e-9)  # type: ignore[operator]  # assumed above


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 4))])
def test_with_deadlines_the_cheapest_fleet_is_found(seed: int) -> None:
    fleet, kinds = fleets(seed, links=seed % 2 == 0, deadlines=True)
    oracle = next(price for price, counts in all_fleets(kinds) if has_plan(fleet(counts)))
    solution = size(fleet, kinds, time_limit_s=20.0)
    check(fleet, solution)
    assert solution.price == pytest.approx(oracle)


@examples(2, nightly=30)
@given(seed=st.integers(0, 10_000), links=st.booleans())
def test_shared_routes_need_no_dearer_fleet(seed: int, *, links: bool) -> None:
    fleet, kinds = fleets(seed, links=links)
    single, shared = (size(fleet, kinds, routes=routes, time_limit_s=20.0) for routes in ("single", "shared"))
    assume(single.plan is not None)
    check(fleet, shared)
    assert shared.price <= single.price * (1 + 1e-9)
    assert shared.status == "optimal"


def test_more_room_is_a_dearer_fleet_and_an_excluded_one_does_not_come_back() -> None:
    fleet, kinds = fleets(3, deadlines=True)
    widest = fleet({kind.name: 1 for kind in kinds})
    model = FleetModel(widest, kinds)
    seen: list[dict[str, int]] = []
    bound = 0.0
    while (found := model.cheapest(10.0, Options())).counts is not None:
        assert found.bound >= bound - 1e-9
        assert all(any(found.counts[kind] > counts[kind] for kind in counts) for counts in seen)
        seen.append(found.counts)
        bound = found.bound
        model.exclude(found.counts)
    assert found.end == "infeasible"
    assert {"cheap": 2, "dear": 1} in seen
    roomier = FleetModel(widest, kinds, 0.8).cheapest(10.0, Options())
    assert roomier.counts is None or roomier.bound >= FleetModel(widest, kinds).cheapest(10.0, Options()).bound - 1e-9


def test_a_batch_has_no_rates_to_size_for() -> None:
    fleet, kinds = fleets(1, goal="makespan")
    with pytest.raises(SolveError, match="a batch has no rate"):
        size(fleet, kinds)
    without, kinds = fleets(1, goal="throughput")

    def silent(counts: Counts) -> Instance:
        return without(counts).with_sources({"s0": {"rate_per_s": None}})

    with pytest.raises(SolveError, match=r"sources\.s0\.rate"):
        size(silent, kinds)


def test_an_interrupt_ends_the_trial_and_the_search_around_it() -> None:
    outer, inner = threading.Event(), threading.Event()
    with on_interrupt(outer), on_interrupt(inner):
        signal.raise_signal(signal.SIGINT)
    assert outer.is_set()
    assert inner.is_set()
    with on_interrupt(alone := threading.Event()):
        signal.raise_signal(signal.SIGINT)
    assert alone.is_set()
