"""Memory that binds: whenever there is a plan that fits, every method finds one, and the bounds hold."""

from __future__ import annotations

import dataclasses
import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.infeasibility import tried
from planner.solvers.core.problem import Problem
from planner.solvers.core.room import lacks_room, largest_load_bound, without_binary_residency
from planner.solvers.core.search_state import Options, Search
from planner.solvers.methods import convex, exhaustive
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.memory import no_room
from planner.solvers.methods.mip import method as milp
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.copies import with_copies
from planner.solvers.routes.delay_annealing import DelayAnnealing
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.order_search import OrderSearch
from tests.examples import either, examples
from tests.instances import make_instance, make_profile
from tests.solvers.test_solvers_best_response import GOALS, crowded
from tests.solvers.test_solvers_dominance import within
from tests.solvers.test_solvers_milp import with_exits

MIB = 2**20


def uneven(seed: int, *, goal: str, sources: int, workers: int, blocks: int, room: float, models: int = 1) -> Instance:
    """Return an instance with uneven blocks, workers and links, with ``room`` times the memory of each block's copy."""
    random = np.random.default_rng(seed)
    names = [f"w{number}" for number in range(workers)]
    profiles = [
        make_profile(
            f"m{number}",
            block_s=random.uniform(0.005, 0.02, blocks).tolist(),
            weight_bytes=random.integers(1 * MIB, 8 * MIB, blocks).tolist(),
            activation_bytes=0,
            cut_bytes=random.integers(1000, 50_000, blocks + 1).tolist(),
        )
        for number in range(models)
    ]
    needed = sum(block.weight_bytes for profile in profiles for block in profile.blocks)
    share = random.uniform(0.5, 1.5, workers)
    memory_bytes = room * needed * share / share.sum()
    volume = {"rate_per_s": 0.5, "samples": 20}
    pairs = [(a, b) for number, a in enumerate(names) for b in names[number + 1 :]]
    return make_instance(
        profiles=profiles,
        workers={
            name: {"speed": float(random.uniform(1, 8)), "memory_bytes": float(int(size)), "base_memory_bytes": 0.0}
            for name, size in zip(names, memory_bytes, strict=True)
        },
        networks={
            f"n{number}": NetworkSpec(
                kind="point-to-point",
                latency_s=1e-3,
                links=(pair,),
                bandwidth_bytes_per_s=float(random.uniform(5e6, 5e7)),
            )
            for number, pair in enumerate(pairs)
        },
        sources={
            f"s{number}": {"worker": names[number % workers], "models": [f"m{number % models}"], **volume}
            for number in range(sources)
        },
        objective=ObjectiveSpec(goal=goal),  # type: ignore[arg-type]  # checked by pydantic
    )


def filled(problem: Problem) -> Search:
    found = Search(problem, Options())
    for choices in BestResponse(found).filling.plans():
        found.offer(choices)
    return found


@examples(2, nightly=40)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1.05, 1.2, 1.5]), st.sampled_from([None, 1]))
def test_every_method_finds_a_plan_if_there_is_one(seed: int, goal: str, room: float, max_visits: int | None) -> None:
    instance = crowded(seed, goal=goal, room=room)
    problem = build_problem(instance, max_visits=max_visits)
    oracle = exhaustive.solve(problem, Options())
    if oracle.status == "infeasible":
        assert not filled(problem).incumbents
    for method in ("auto", "search", "milp", "colgen"):
        solution = solve(instance, method=method, gap=0.5, max_visits=max_visits)
        if oracle.status == "infeasible":
            assert method == "colgen" or solution.plan is None
            continue
        assert solution.plan is not None, (method, solution.reasons)
        verify(instance, solution.plan)
        if method != "colgen":
            assert solution.plan.bound <= oracle.bound * (1 + 1e-9)


@examples(4, nightly=60)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1.1, 1.4, 1.7]), st.integers(1, 2))
def test_the_bound_with_memory_is_at_most_the_optimum_of_the_reference(
    seed: int, goal: str, room: float, models: int
) -> None:
    instance = uneven(seed, goal=goal, sources=2, workers=3, blocks=4, room=room, models=models)
    problem = build_problem(instance)
    exact = milp.solve(problem, Options(gap=1e-6, time_limit_s=60))
    assert exact.status in {"optimal", "infeasible"}
    optimum = min(map(problem.objective, exact.incumbents), default=np.inf)
    for method in (search, colgen):
        found = method.solve(problem, Options(gap=1e-4, time_limit_s=either(1.5, nightly=20.0)))
        value = min(map(problem.objective, found.incumbents), default=np.inf)
        assert found.bound <= value
        assert found.status != "infeasible" or optimum == np.inf
        assert found.bound <= optimum * (1 + 1e-6)
        assert method is colgen or value >= optimum * (1 - 1e-5)  # shared routes may be better


@pytest.mark.parametrize(("seed", "sources", "models"), [(0, 1, 1), (1, 3, 1), (2, 4, 2)])
@pytest.mark.parametrize("goal", GOALS)
def test_larger_instances_are_no_worse_than_filled_workers(seed: int, sources: int, models: int, goal: str) -> None:
    instance = uneven(seed, goal=goal, sources=sources, workers=8, blocks=24, room=1.3, models=models)
    problem = build_problem(instance)
    simple = filled(problem)
    assert simple.incumbents
    outcome = search.solve(problem, dataclasses.replace(within(problem, 300), known=()))
    best = min(problem.objective(choices) for choices in outcome.incumbents)
    assert outcome.bound <= best <= simple.best


@pytest.mark.parametrize("method", ["auto", "colgen"])
def test_many_blocks_with_little_room_have_a_plan(method: str) -> None:
    instance = uneven(3, goal="delay", sources=2, workers=12, blocks=40, room=1.1)
    solution = solve(instance, method=method, gap=0.9, time_limit_s=5.0)
    assert solution.plan is not None, solution.reasons
    verify(instance, solution.plan)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1.02, 1.1, 1.4]), st.integers(1, 2))
def test_filled_workers_keep_within_their_memory(seed: int, sources: int, room: float, models: int) -> None:
    instance = uneven(seed, goal="delay", sources=sources, workers=5, blocks=8, room=room, models=models)
    problem = build_problem(instance, max_visits=1)
    for choices in BestResponse(Search(problem, Options())).filling.plans():
        assert (problem.memory_used(choices) <= problem.memory_bytes).all()


def test_one_copy_serves_all_sources() -> None:
    """Six sources of one model, with room for one copy of it and a little more."""
    problem = build_problem(uneven(5, goal="delay", sources=6, workers=6, blocks=12, room=1.4))
    assert filled(problem).incumbents


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["throughput", "makespan"]), st.sampled_from([0.9, 1.05, 1.3]))
def test_the_bound_of_room_holds(seed: int, goal: str, room: float) -> None:
    problem = build_problem(crowded(seed, goal=goal, room=room))
    oracle = exhaustive.solve(problem, Options())
    if lacks_room(problem):
        assert oracle.status == "infeasible"
    if oracle.status == "infeasible":
        return
    assert not no_room(problem, Options())
    busiest = min(float(problem.load(choices).sum(axis=0).max()) for choices in oracle.incumbents)
    assert largest_load_bound(problem, np.inf, lambda: False) <= busiest * (1 + 1e-6)


def of_two_models(seed: int, goal: str, room: float, sources: int = 2) -> Problem:
    return build_problem(
        uneven(seed, goal=goal, sources=sources, workers=2, blocks=3, room=room, models=1 + seed % 2 * (sources > 1))
    )


@examples(4, nightly=60)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1.1, 1.4, 1.7]), st.integers(1, 2))
def test_the_bound_with_parts_of_blocks_holds_for_all_residencies(
    seed: int, goal: str, room: float, sources: int
) -> None:
    """Shared routes over each set of resident blocks that fits; those over the best set are the optimum."""
    problem = of_two_models(seed, goal, room, sources)
    relaxed = colgen.solve(without_binary_residency(problem), Options(gap=1e-6))
    unlimited = dataclasses.replace(problem, memory_bytes=np.full(2, np.inf))
    least = np.inf
    shapes = [weights.shape for weights in problem.weight_bytes]
    cells = sum(length * workers for length, workers in shapes)
    for chosen in itertools.islice(itertools.product([True, False], repeat=cells), 2**8 if cells > 6 else None):
        flat, held = np.array(chosen), []
        for length, workers in shapes:
            held.append(flat[: length * workers].reshape(length, workers))
            flat = flat[length * workers :]
        if np.any(sum(problem.resident_bytes(tuple(held))) > problem.memory_bytes):
            continue
        outcome = colgen.solve(dataclasses.replace(unlimited, resident=tuple(held)), Options(gap=1e-6))
        least = min([least, *map(problem.objective, outcome.incumbents)])
    single = exhaustive.solve(problem, Options())
    assert relaxed.bound <= min(least, single.bound if single.incumbents else np.inf) * (1 + 1e-9)
    if relaxed.status == "infeasible":
        assert single.status == "infeasible"


@examples(4, nightly=60)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1.05, 1.3]), st.integers(1, 4))
def test_both_programs_of_shared_routes_agree_with_parts_of_blocks(
    seed: int, goal: str, room: float, sources: int
) -> None:
    instance = uneven(seed, goal=goal, sources=sources, workers=4, blocks=6, room=room, models=min(sources, 2))
    problem = without_binary_residency(build_problem(instance))
    generated, arcs = colgen.solve(problem, Options(gap=1e-4)), convex.solve(problem, Options(gap=1e-4))
    assert (generated.status == "infeasible") == (arcs.status == "infeasible")
    if arcs.incumbents:
        assert generated.bound <= min(map(problem.objective, arcs.incumbents)) * (1 + 1e-6)
        assert generated.bound == pytest.approx(arcs.bound, rel=2e-3)


def of_equal_blocks() -> Instance:
    """Six equal blocks, and four equal workers with room for five of them each."""
    profile = make_profile(block_s=[0.01] * 6, weight_bytes=MIB, activation_bytes=0, cut_bytes=[1] * 7)
    names = [f"w{number}" for number in range(4)]
    return make_instance(
        profiles=[profile],
        workers={name: {"speed": 1.0, "memory_bytes": 5.0 * MIB, "base_memory_bytes": 0.0} for name in names},
        networks={"lan": NetworkSpec(kind="shared", members=tuple(names), bandwidth_bytes_per_s=1e9, latency_s=0.0)},
        sources={"s": {"rate_per_s": 10.0}},
        objective=ObjectiveSpec(goal="throughput"),
    )


def test_equal_blocks_are_counted() -> None:
    """Rates in proportion would be 1.5 blocks on each worker: some worker runs two."""
    solution = solve(of_equal_blocks(), method="search")
    assert solution.plan is not None
    assert solution.plan.objective == pytest.approx(0.2)
    assert solution.status == "optimal"


def test_shared_routes_use_several_copies_of_a_block() -> None:
    """Each worker runs one block and a half, which takes copies in memory that one route would leave free."""
    instance = of_equal_blocks()
    solution = solve(instance, method="colgen", gap=1e-3)
    assert solution.plan is not None
    verify(instance, solution.plan)
    assert solution.plan.objective == pytest.approx(0.15, rel=2e-3)
    assert solution.status == "optimal"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1.2, 1.6, 2.5]), st.integers(1, 2))
def test_copies_keep_within_memory(seed: int, sources: int, room: float, models: int) -> None:
    problem = build_problem(
        uneven(seed, goal="throughput", sources=sources, workers=5, blocks=8, room=room, models=models)
    )
    for choices in filled(problem).incumbents:
        needed, held = problem.residency(choices), with_copies(problem, choices)
        assert all((own <= more).all() for own, more in zip(needed, held, strict=True))
        assert np.all(sum(problem.resident_bytes(held)) <= problem.memory_bytes)
        assert sum(blocks.sum() for blocks in held) > sum(blocks.sum() for blocks in needed)


@pytest.mark.parametrize("method", ["search", "colgen"])
def test_the_delay_of_equal_blocks_is_nearly_proven(method: str) -> None:
    """Equal blocks without transfers: the fastest workers are full, which prices of memory prove."""
    random = np.random.default_rng(0)
    room, speed = random.integers(2, 9, 10), np.exp(random.uniform(0, 2, 10))
    names = [f"w{number}" for number in range(10)]
    profile = make_profile(block_s=[0.01] * 30, weight_bytes=MIB, activation_bytes=0, cut_bytes=[1] * 31)
    instance = make_instance(
        profiles=[profile],
        workers={
            name: {"speed": float(fast), "memory_bytes": float(MIB * most), "base_memory_bytes": 0.0}
            for name, fast, most in zip(names, speed, room, strict=True)
        },
        networks={"lan": NetworkSpec(kind="shared", members=tuple(names), bandwidth_bytes_per_s=1e9, latency_s=0.0)},
        sources={"s": {"rate_per_s": 1e-6}},
    )
    fastest = np.argsort(-speed)
    taken = np.minimum(room[fastest], np.maximum(30 - np.cumsum(room[fastest]) + room[fastest], 0))
    best_s = float((taken * 0.01 / speed[fastest]).sum())
    solution = solve(instance, method=method, gap=1e-2)
    assert solution.plan is not None
    assert solution.plan.objective == pytest.approx(best_s * 1e-6, rel=1e-2)
    assert solution.status == "optimal"


def test_better_orders_are_found() -> None:
    problem = build_problem(uneven(8, goal="delay", sources=3, workers=8, blocks=20, room=1.3), max_visits=1)
    found = filled(problem)
    before = found.best
    OrderSearch(BestResponse(found), np.random.default_rng(0)).improve(until_s=np.inf)
    assert found.best < 0.98 * before


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 2))
def test_annealing_counts_loads_and_memory_exactly(seed: int, sources: int, models: int) -> None:
    """What it believes to be its best routes fits and is no worse than the routes that it began with."""
    problem = build_problem(uneven(seed, goal="delay", sources=sources, workers=5, blocks=10, room=1.4, models=models))
    found = filled(problem)
    for choices, value in list(found.incumbents.items())[:1]:
        annealing = DelayAnnealing(problem, choices, Random(seed))  # noqa: S311
        best = annealing.run(3000, lambda: False)
        assert problem.feasible(best)
        assert problem.objective(best) <= value
        now = annealing.routes
        assert np.allclose(annealing.sigma, problem.classes.nested(problem.load(now)), atol=1e-9)
        assert np.allclose(annealing.size, problem.resident_bytes(problem.residency(now))[0])


def test_annealing_counts_exits_exactly() -> None:
    problem = build_problem(with_exits(0, 0.0))
    (choices,) = greedy_rounds(problem, 1)
    annealing = DelayAnnealing(problem, choices, Random(0))  # noqa: S311
    annealing.run(500, lambda: False)
    assert np.allclose(annealing.sigma, problem.classes.nested(problem.load(annealing.routes)), atol=1e-9)


def test_without_a_plan_the_reasons_name_what_was_tried_and_how_much_memory_there_is() -> None:
    instance = crowded(0, goal="delay", room=1.2)
    problem = build_problem(instance)
    impossible = dataclasses.replace(
        problem, demands=tuple(dataclasses.replace(demand, deadline_s=1e-9) for demand in problem.demands)
    )
    text = " ".join(tried(impossible, 1.0))
    assert "speed" in text
    assert "MiB" in text
