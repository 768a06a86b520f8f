from __future__ import annotations

import dataclasses
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.types import ModelSpec
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice, Problem, stages
from planner.solvers.core.search_state import Options, Search
from planner.solvers.methods import exhaustive
from planner.solvers.methods.local_search import method as local_search
from planner.solvers.methods.local_search.annealing import Annealing
from planner.solvers.methods.local_search.peak_bound import PeakBound
from tests.examples import examples
from tests.instances import make_instance, make_profile, random_instance


def annealed(problem: Problem, seed: int) -> Annealing:
    """A state after a run that cannot reach its target, so that all its moves are made."""
    local = tuple(
        (Choice(demand.variants[0], (demand.home,) * len(problem.variants[demand.variants[0]])),)
        for demand in problem.demands
    )
    annealing = Annealing(problem, local, Random(seed))  # noqa: S311  # not cryptographic
    load = problem.load(local).sum(axis=0).max()
    annealing.run(0.2 * load, 0.01)
    return annealing


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 6)),
    goal=st.sampled_from(["throughput", "makespan"]),
    links=st.booleans(),
    tight=st.booleans(),
    visits=st.sampled_from([None, 1, 2]),
)
def test_measures_stay_those_of_the_routes(
    seed: int, size: tuple[int, int, int], goal: str, visits: int | None, *, links: bool, tight: bool
) -> None:
    sources, workers, blocks = size
    instance = random_instance(
        seed, sources=sources, workers=workers, blocks=blocks, goal=goal, links=links, tight_memory=tight
    )
    check(build_problem(instance, max_visits=visits), seed)


def test_measures_stay_those_of_routes_with_exits_and_pins() -> None:
    profile = make_profile(
        block_s=[0.01] * 5,
        exits=[ExitPoint(name="early", cut=2, result_bytes=50_000)],
        operating_points=[
            OperatingPoint(name="mixed", accuracy=0.8, thresholds=(0.5,), reach=(1.0, 1.0, 0.4, 0.4, 0.4))
        ],
        stage_overhead_s=2e-3,
    )
    instance = make_instance(
        profiles=[profile],
        workers={"a": 1.0, "b": 2.0, "c": 3.0},
        sources={"camera": {"rate_per_s": 5.0, "max_mean_delay_s": 1.0}, "other": {"rate_per_s": 5.0, "worker": "b"}},
    )
    problem = dataclasses.replace(build_problem(instance, pins={"camera": {3: "a"}}), goal="makespan")
    annealing = check(problem, 0)
    assert annealing.chains[0].workers[4] == 0


def check(problem: Problem, seed: int) -> Annealing:
    annealing = annealed(problem, seed)
    choices = annealing._routes()
    measure = np.array(annealing.measure)
    np.testing.assert_allclose(measure[: annealing.delays], problem.load(choices).sum(axis=0), rtol=1e-9, atol=1e-9)
    if annealing.memory > annealing.delays:
        unloaded = [problem.cost(source, choice).unloaded_s for source, (choice,) in enumerate(choices)]
        np.testing.assert_allclose(measure[annealing.delays : annealing.memory], unloaded, rtol=1e-9)
    if annealing.visits > annealing.memory:
        weights, _ = problem.resident_bytes(problem.residency(choices))
        np.testing.assert_allclose(measure[annealing.memory : annealing.visits], weights, rtol=1e-9)
    for source, chain in enumerate(annealing.chains):
        if chain.visits >= 0:
            visited = [worker for worker, _, _ in stages(choices[source][0].workers)]
            counted = [annealing.measure[chain.visits + worker] for worker in range(len(problem.workers))]
            assert counted == [visited.count(worker) for worker in range(len(problem.workers))]
    return annealing


@examples(4, nightly=40)
@given(seed=st.integers(0, 10_000), goal=st.sampled_from(["throughput", "makespan"]), links=st.booleans())
def test_the_bound_holds_and_the_search_finds_the_optimum(seed: int, goal: str, *, links: bool) -> None:
    problem = build_problem(random_instance(seed, sources=2, workers=3, blocks=3, goal=goal, links=links))
    optimum = exhaustive.solve(problem, Options()).bound
    outcome = local_search.solve(problem, Options(brief=True))
    assert outcome.bound <= optimum * (1 + 1e-9)
    assert min(map(problem.objective, outcome.incumbents)) == pytest.approx(optimum, rel=0.05)


@examples(4, nightly=40)
@given(seed=st.integers(0, 10_000), goal=st.sampled_from(["throughput", "makespan"]))
def test_the_bound_holds_for_sources_with_models_of_unlike_lengths(seed: int, goal: str) -> None:
    instance = random_instance(seed, sources=2, workers=3, blocks=3, goal=goal)
    short = make_profile("short", block_s=[0.05, 0.04], cut_bytes=[600_000, 300_000, 4_000])
    scenario = instance.scenario
    models = {**scenario.models, "short": ModelSpec(profile="short")}
    profiles = {**instance.profiles, "short": {"reference": short}}
    both = instance.with_scenario(models=models).model_copy(update={"profiles": profiles})
    both = both.with_sources({name: {"models": (*spec.models, "short")} for name, spec in scenario.sources.items()})
    problem = build_problem(both)
    optimum = exhaustive.solve(problem, Options()).bound
    outcome = local_search.solve(problem, Options(brief=True))
    assert outcome.bound <= optimum * (1 + 1e-9)
    assert min(map(problem.objective, outcome.incumbents)) == pytest.approx(optimum, rel=0.05)


def test_heavy_transfers_raise_the_bound() -> None:
    """Shared routes divide a heavy input among links, which one route cannot."""
    problem = build_problem(random_instance(2, sources=1, workers=5, blocks=4, goal="throughput"))
    search = Search(problem, Options())
    for worker in range(5):
        search.offer(((Choice(0, (worker,) * 4),),))
    bound = PeakBound(search)
    bound.share()
    shared = search.bound
    while bound.raise_once():
        pass
    optimum = exhaustive.solve(problem, Options()).bound
    assert shared < search.bound <= optimum
