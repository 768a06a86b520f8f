from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.search_state import Options, Outcome, Search
from planner.solvers.methods import exhaustive
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.mip import model as milp_model
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.best_response import BestResponse
from planner.solvers.routes.greedy import greedy_rounds
from planner.solvers.routes.stage_dp import StagedRoutes
from tests.instances import random_instance

GOALS = ["delay", "throughput", "makespan"]


def crowded(
    seed: int, *, goal: str, sources: int = 2, workers: int = 3, blocks: int = 3, room: float = 1.05, load: float = 0.3
) -> Instance:
    """Return an instance whose workers together have ``room`` times the memory of one copy of every block."""
    instance = random_instance(seed, sources=sources, workers=workers, blocks=blocks, load=load, goal=goal)
    weights = [block.weight_bytes for by_class in instance.profiles.values() for block in by_class["reference"].blocks]
    memory_bytes = room * sum(weights) / workers + 5e5
    scenario = instance.scenario
    smaller = {name: spec.model_copy(update={"memory_bytes": memory_bytes}) for name, spec in scenario.workers.items()}
    return instance.model_copy(update={"scenario": scenario.model_copy(update={"workers": smaller})})


def best(problem: Problem, outcome: Outcome) -> float:
    return min((problem.objective(choices) for choices in outcome.incumbents), default=np.inf)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("seed", range(6))
def test_with_tight_memory_best_responses_find_a_plan_if_there_is_one(seed: int, goal: str) -> None:
    problem = build_problem(crowded(seed, goal=goal, room=1.2))
    oracle = exhaustive.solve(problem, Options())
    looking = Search(problem, Options())
    responses, random = BestResponse(looking), np.random.default_rng(seed)
    for choices in greedy_rounds(problem, 3):
        responses.improve(choices)
    for _ in range(40):
        responses.perturb(random)
    assert bool(looking.incumbents) == (oracle.status == "optimal")
    if looking.incumbents:
        assert oracle.bound * (1 - 1e-9) <= looking.best <= oracle.bound * 1.1


@settings(max_examples=6)
@given(st.integers(0, 10_000), st.sampled_from(GOALS), st.sampled_from([1.05, 1.2, 1.5]))
def test_at_any_memory_plans_fit_and_the_bound_holds(seed: int, goal: str, room: float) -> None:
    problem = build_problem(crowded(seed, goal=goal, room=room))
    oracle = exhaustive.solve(problem, Options())
    outcome = search.solve(problem, Options(time_limit_s=0.6))
    assert all(problem.feasible(choices) for choices in outcome.incumbents)
    if oracle.status == "infeasible":
        assert not outcome.incumbents
    else:
        assert outcome.bound <= oracle.bound * (1 + 1e-9)
        assert best(problem, outcome) >= oracle.bound * (1 - 1e-9)


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
@pytest.mark.parametrize("method", ["search", "milp"])
def test_large_instances_with_tight_memory_have_plans(goal: str, method: str) -> None:
    instance = crowded(0, goal=goal, sources=6, workers=8, blocks=12, room=1.15)
    solution = solve(instance, method=method, time_limit_s=1.0)
    assert solution.plan is not None
    verify(instance, solution.plan)


def test_best_responses_end_an_overload() -> None:
    """The first routes all stay at home, which overloads several workers."""
    problem = build_problem(random_instance(0, sources=6, workers=8, blocks=12, load=0.5))
    looking = Search(problem, Options())
    home = tuple((Choice(demand.variants[0], (demand.home,) * 12),) for demand in problem.demands)
    assert (problem.load(home).sum(axis=0) > problem.cap).sum() > 1
    BestResponse(looking).improve(home)
    assert looking.incumbents


@given(st.integers(0, 1000), st.data())
def test_stages_beside_others_are_exactly_those_that_fit(seed: int, data: st.DataObject) -> None:
    """The reference is the memory of a route together with the blocks of the others."""
    problem = build_problem(crowded(seed, goal="delay", room=data.draw(st.sampled_from([0.9, 1.2, 1.8]))))
    workers = st.tuples(*[st.integers(0, 2)] * 3)
    other, worker = Choice(1, data.draw(workers)), data.draw(st.integers(0, 2))
    first, last = sorted(data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))))
    beside = StagedRoutes.of(problem, 0, 0).beside(problem.residency(((), (other,))))
    before = problem.memory_used(((), (other,)))
    elsewhere = (worker + 1) % 3
    route = [worker if first <= block <= last else elsewhere for block in range(3)]
    needed = problem.memory_used(((Choice(0, tuple(route)),), (other,)))[worker]
    fits = needed <= max(problem.memory_bytes[worker], before[worker])
    assert np.isfinite(beside.stage_load[first, last + 1, worker]) == fits


def test_highs_is_warm_started_from_the_written_plan() -> None:
    """Stopped before its search starts, HiGHS returns exactly that plan."""
    problem = build_problem(random_instance(0, sources=3, workers=4, blocks=5, goal="throughput"))
    home = tuple((Choice(demand.variants[0], (demand.home,) * 5),) for demand in problem.demands)
    model = milp_model.build_model(problem)
    milp_model.write_choices(model, home)
    deadline = Deadline()
    program, other = ModelProgram(model, deadline=deadline), ModelProgram(model, deadline=deadline)
    deadline.stop.set()
    program.start_from_values()
    answer = program.run(60.0)
    assert answer.end == "stopped"
    assert answer.objective == pytest.approx(problem.objective(home))
    assert answer.bound < answer.objective
    assert milp_model.read_choices(problem, model) == home
    nothing = other.run(60.0)
    assert (nothing.end, nothing.values) == ("stopped", None)
