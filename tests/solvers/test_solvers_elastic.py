from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.infeasibility import Relaxations
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options
from planner.solvers.methods import exhaustive
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.memory import no_room
from planner.solvers.methods.mip import method as milp
from planner.solvers.methods.mip.elastic import relaxations
from planner.solvers.methods.mip.elastic_lp import shared_relaxations
from tests.instances import MIB, make_instance, make_profile, random_instance

OPTIONS = Options()


def hard_problem(seed: int) -> Problem:
    """Return a problem of two sources on three workers in which several limits are too tight at once."""
    random = np.random.default_rng(seed)
    problem = build_problem(random_instance(seed, blocks=2, load=float(random.uniform(0.5, 1.2)), tight_memory=True))
    demands = tuple(
        dataclasses.replace(demand, deadline_s=float(random.choice([0.005, 0.02, 0.05, np.inf])))
        for demand in problem.demands
    )
    return dataclasses.replace(
        problem, demands=demands, memory_bytes=problem.memory_bytes * random.choice([0.1, 0.5, 1.0], size=3)
    )


def solvable(problem: Problem) -> bool:
    """Return whether any combination of routes satisfies every limit."""
    routes = [exhaustive._routes(problem, source) for source in range(len(problem.demands))]
    combinations = (tuple((choice,) for choice in combination) for combination in itertools.product(*routes))
    return any(problem.objective(choices) < np.inf and problem.feasible(choices) for choices in combinations)


def relax(problem: Problem, relaxed: Relaxations, factor: float = 1 + 1e-6) -> Problem:
    """Return the problem with relaxed limits, except overload, whose cap is a constant."""
    memory_bytes = problem.memory_bytes.copy()
    demands = list(problem.demands)
    for (kind, index), amount in relaxed.items():
        if kind == "lack_bytes":
            memory_bytes[index] += amount * factor + 1
        elif kind == "late_s":
            demands[index] = dataclasses.replace(demands[index], deadline_s=demands[index].deadline_s + amount * factor)
    return dataclasses.replace(problem, memory_bytes=memory_bytes, demands=tuple(demands))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_the_relaxations_suffice_and_fewer_limits_do_not(seed: int) -> None:
    problem = hard_problem(seed)
    assume(not solvable(problem))
    relaxed = relaxations(problem, OPTIONS)
    assert relaxed
    assume(not any(kind == "overload" for kind, _ in relaxed))
    assert solvable(relax(problem, relaxed))
    limits = [("lack_bytes", worker) for worker in range(3)] + [("late_s", source) for source in range(2)]
    for fewer in itertools.combinations(limits, len(relaxed) - 1):
        assert not solvable(relax(problem, dict.fromkeys(fewer, 1e9)))


def test_one_limit_relaxed_much_is_preferred_to_two_relaxed_little() -> None:
    """Much more memory on one worker, or a little more on both: one limit is the smaller set."""
    profile = make_profile(block_s=[0.01, 0.01], weight_bytes=100 * 2**20, activation_bytes=0)
    workers = {name: {"memory_bytes": 290 * MIB, "base_memory_bytes": 200 * MIB} for name in ("a", "b")}
    solution = solve(make_instance(profiles=[profile], workers=workers), method="milp")
    assert solution.status == "infeasible"
    assert len(solution.reasons) == 1
    assert "lacks 110 MiB" in solution.reasons[0]


@pytest.mark.parametrize("method", ["milp", "exhaustive", "search", "colgen", "convex"])
def test_every_method_names_two_limits_where_two_are_needed(method: str) -> None:
    sources = {
        "early": {"rate_per_s": 1.0, "max_mean_delay_s": 0.001},
        "soon": {"rate_per_s": 1.0, "max_mean_delay_s": 0.002},
        "any": {"rate_per_s": 1.0},
    }
    solution = solve(make_instance(sources=sources), method=method)
    assert solution.status == "infeasible"
    assert len(solution.reasons) == 2
    assert "max_mean_delay 1 ms of early" in solution.reasons[0]
    assert "max_mean_delay 2 ms of soon" in solution.reasons[1]


NO_ROOM = {
    "a block is too large for every worker": ((100, 10), (90, 90), "worker a lacks 10 MiB"),
    "all workers together are too small": ((50, 50, 50), (70, 60), "worker a lacks 30 MiB"),
    "blocks do not go into what is left": ((50, 50, 50), (90, 80), "worker a lacks 10 MiB"),
}


@pytest.mark.parametrize("method", ["milp", "exhaustive", "search", "colgen", "convex"])
@pytest.mark.parametrize("why", NO_ROOM)
def test_if_no_routes_fit_into_memory_every_method_reports_it(why: str, method: str) -> None:
    weights, room, reason = NO_ROOM[why]
    profile = make_profile(
        block_s=[0.01] * len(weights), weight_bytes=[int(size * MIB) for size in weights], activation_bytes=0
    )
    workers = {
        name: {"memory_bytes": size * MIB, "base_memory_bytes": 0} for name, size in zip("ab", room, strict=True)
    }
    solution = solve(make_instance(profiles=[profile], workers=workers), method=method)
    assert solution.status == "infeasible"
    assert solution.reasons == (reason,)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 0.6, 0.7, 0.8, 0.9]))
def test_a_proof_that_memory_is_too_small_is_correct(seed: int, part: float) -> None:
    """The reference is all combinations of routes, without any other limit."""
    problem = build_problem(random_instance(seed, blocks=2, load=1.5, tight_memory=True))
    problem = dataclasses.replace(problem, memory_bytes=problem.memory_bytes * part)
    careless = dataclasses.replace(
        problem,
        goal="throughput",
        demands=tuple(dataclasses.replace(demand, deadline_s=np.inf) for demand in problem.demands),
    )
    assert no_room(problem, OPTIONS) is not solvable(careless)


def test_shared_routes_need_no_more_than_single_ones() -> None:
    problem = build_problem(random_instance(3, blocks=3, load=1.6))
    single, shared = relaxations(problem, OPTIONS), relaxations(problem, OPTIONS, shared=True)
    assert single
    assert shared
    assert len(shared) <= len(single)
    assert milp.solve(problem, OPTIONS).status == "infeasible"


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from(["delay", "throughput"]))
def test_generated_routes_suffice_for_the_least_relaxations_of_shared_routes(seed: int, goal: str) -> None:
    problem = dataclasses.replace(hard_problem(seed), memory_bytes=np.full(3, 1e12), goal=goal)
    least = relaxations(problem, OPTIONS, shared=True) or {}
    assume(least)
    first = [(source, choice) for source in range(2) for choice in exhaustive._routes(problem, source)[:1]]
    known = shared_relaxations(problem, first, Options(time_limit_s=10.0))
    assert known is not None
    assert len(known) >= len(least)
    if not any(kind == "overload" for kind, _ in known):
        assert colgen.solve(relax(problem, known, 1.001), OPTIONS).incumbents
    allows = {"overload": problem.cap, "late_s": 1.0}

    def parts(relaxed: Relaxations) -> float:
        return sum(
            amount / (problem.demands[number].deadline_s if kind == "late_s" else allows[kind])
            for (kind, number), amount in relaxed.items()
        )

    if len(known) == len(least):
        assert parts(known) == pytest.approx(parts(least), rel=0.2)


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
def test_column_generation_names_the_same_limits_over_generated_routes(
    goal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {
        "early": {"rate_per_s": 1.0, "max_mean_delay_s": 0.001, "samples": 5},
        "soon": {"rate_per_s": 1.0, "max_mean_delay_s": 0.002, "samples": 5},
        "any": {"rate_per_s": 1.0, "samples": 5},
    }
    instance = make_instance(sources=sources, objective=ObjectiveSpec.model_validate({"goal": goal}))
    by_arcs = solve(instance, method="colgen")
    monkeypatch.setattr(colgen, "ELASTIC_MAX_ARCS", 0)
    by_columns = solve(instance, method="colgen")
    assert by_arcs.status == by_columns.status == "infeasible"
    assert by_arcs.reasons == by_columns.reasons
    assert len(by_columns.reasons) == 2


def test_the_partition_names_the_least_relaxations() -> None:
    profile = make_profile(block_s=[0.01, 0.01], weight_bytes=100 * 2**20, activation_bytes=0)
    workers = {name: {"memory_bytes": 290 * MIB, "base_memory_bytes": 200 * MIB} for name in ("a", "b")}
    link = NetworkSpec(kind="point-to-point", links=(("a", "b"),), bandwidth_bytes_per_s=1e7)
    instance = make_instance(
        profiles=[profile], workers=workers, networks={"link": link}, objective=ObjectiveSpec(goal="throughput")
    )
    solution = solve(instance, method="dp", max_visits=1)
    assert solution.status == "infeasible"
    assert len(solution.reasons) == 1
    assert "lacks 110 MiB" in solution.reasons[0]


def test_search_proves_infeasibility_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (colgen, search):
        monkeypatch.setattr(module, "ELASTIC_MAX_ARCS", 0)
    instance = random_instance(0, sources=5, workers=8, blocks=16, load=1.1)
    solution = solve(instance, method="search")
    assert solution.status == "infeasible"
    assert solution.reasons
    assert all("busy" in reason for reason in solution.reasons)
