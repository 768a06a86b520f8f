"""No method is worse than a simple rule, no looser problem worse than a tighter one, and more time never harms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.methods.baselines import RULES
from planner.solvers.methods.in_turn import solve_in_turn
from planner.solvers.methods.known_plans import known_plans
from planner.solvers.ranking import Rank
from planner.solvers.solve import METHODS, load_method
from tests.examples import either
from tests.instances import random_instance

GOALS = ("delay", "throughput", "makespan", "energy", "misses")
SIZES = {"tiny": (1, 2, 3), "small": (2, 3, 5), "wide": (3, 6, 4), "long": (1, 4, 24)}
BASELINES = ("local", "two-part", "equal", "ar-mdi")
LIMIT_S = either(2.0, nightly=10.0)
GAP = 1e-3

REFUSED = {("dp", goal) for goal in GOALS if goal != "throughput"}
CLASSES = [
    pytest.param(
        goal,
        size,
        memory,
        id=f"{goal}-{size}-{'tight' if memory else 'roomy'}",
        marks=[pytest.mark.nightly] if size in {"wide", "long"} or (size == "tiny" and memory) else [],
    )
    for goal, size, memory in itertools.product(GOALS, SIZES, (False, True))
]


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    """Import all solver libraries first: on a busy machine that takes longer than the time limits here."""
    for name in METHODS:
        load_method(name)


def instance_of(seed: int, goal: str, **keys: Any) -> Instance:
    """A random instance, for the goal ``misses`` with a deadline of each source."""
    instance = random_instance(seed, goal="delay" if goal == "misses" else goal, **keys)
    if goal != "misses":
        return instance
    deadline_s = np.random.default_rng(seed).uniform(0.05, 0.3, len(instance.sources))
    deadlines = {name: {"deadline_s": float(limit)} for name, limit in zip(instance.sources, deadline_s, strict=True)}
    return instance.with_sources(deadlines).with_objective(goal="misses")


def draw(seed: int, goal: str, size: str, *, memory: bool) -> Instance:
    sources, workers, blocks = SIZES[size]
    return instance_of(
        seed,
        goal,
        sources=sources,
        workers=workers,
        blocks=blocks,
        tight_memory=memory,
        links=seed % 2 == 0,
        load=0.25,
    )


def objective(instance: Instance, **options: Any) -> float:
    """The objective of the plan, infinite without one; a plan must not be below its bound."""
    plan = solve(instance, time_limit_s=LIMIT_S, gap=GAP, rank="surrogate", **options).plan
    if plan is None:
        return float("inf")
    assert plan.bound <= plan.objective * (1 + 1e-9)
    return plan.objective


@pytest.mark.parametrize(("goal", "size", "memory"), CLASSES)
def test_no_method_is_worse_than_a_rule(goal: str, size: str, *, memory: bool) -> None:
    instance = draw(len(goal) + len(size), goal, size, memory=memory)
    rules = {name: objective(instance, method=name) for name in BASELINES}
    best = min(rules.values())
    single, shared = objective(instance), objective(instance, routes="shared")
    assert single <= best * (1 + 1e-9), rules
    assert shared <= best * (1 + 1e-9), rules
    assert shared <= single * (1 + 2 * GAP), "shared routes are looser than single ones"
    assert single <= objective(instance, method="search") * (1 + 2 * GAP)
    assert single <= objective(instance, max_visits=1) * (1 + 2 * GAP), "free visits are looser"


@pytest.mark.parametrize(
    ("goal", "method"),
    [(goal, name) for goal in GOALS for name in METHODS if name not in BASELINES and (name, goal) not in REFUSED],
)
def test_every_method_keeps_a_known_plan(goal: str, method: str) -> None:
    """Even stopped before it begins, a method returns the best plan that it was given."""
    instance = instance_of(4, goal, sources=1, workers=3, blocks=4, load=0.2)
    problem = build_problem(instance, max_visits=1 if method == "dp" else None)
    known = tuple(plan for plan in known_plans(problem, Deadline()) if problem.feasible(plan))
    outcome: Outcome = load_method(method)(problem, Options(known=known, time_limit_s=0.0))
    assert min(map(problem.objective, outcome.incumbents)) <= min(map(problem.objective, known))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    goal=st.sampled_from(GOALS),
    size=st.sampled_from([*SIZES]),
    memory=st.booleans(),
    visits=st.sampled_from([None, 1, 2]),
)
def test_rules_give_plans_of_the_right_shape(
    seed: int, goal: str, size: str, visits: int | None, *, memory: bool
) -> None:
    problem = build_problem(draw(seed, goal, size, memory=memory), max_visits=visits)
    plans = known_plans(problem, Deadline())
    assert len(plans) >= 1
    for plan in plans:
        for source, (choice,) in enumerate(plan):
            assert choice.variant in problem.demands[source].variants
            assert len(choice.workers) == len(problem.variants[choice.variant])
            assert problem.cost(source, choice).latency_s < float("inf")


def test_rules_of_the_command_line_are_known_plans() -> None:
    assert set(BASELINES) <= set(RULES)


def within(problem: Problem, looks: int) -> Options:
    """Options with a clock that advances by a fixed amount at each look: work is the same on any machine."""
    ticks = itertools.count()
    return Options(
        gap=1e-9,
        known=known_plans(problem, Deadline()),
        deadline=Deadline.after(looks * 1e-3, lambda: next(ticks) * 1e-3),
    )


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("method", ["search", "colgen"])
def test_more_time_is_never_worse(goal: str, method: str) -> None:
    problem = build_problem(instance_of(11, goal, sources=2, workers=4, blocks=6, load=0.4))
    values = []
    for looks in (10, 30, 100, 300):
        outcome = solve_in_turn(problem, within(problem, looks), [load_method(method)])
        values.append(min(map(problem.objective, outcome.incumbents)))
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("seed", [11, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(10))])
def test_the_second_method_goes_on_from_the_same_plans_whatever_the_limit(goal: str, seed: int) -> None:
    """It makes the same steps then, so that more time is never worse for both together, either."""
    tight = seed % 2 == 0
    instance = instance_of(seed, goal, sources=2, workers=3, blocks=4, load=0.4, tight_memory=tight)
    problem = build_problem(instance, max_visits=1 if tight else None)
    handed_over: list[set[Choices]] = []

    def second(_problem: Problem, options: Options) -> Outcome:
        handed_over.append(set(options.known))
        return Outcome("feasible", options.known)

    values = []
    for looks in (20, 200, 10_000, 20_000):
        outcome = solve_in_turn(problem, within(problem, looks), [load_method("search"), second])
        values.append(min(map(problem.objective, outcome.incumbents), default=float("inf")))
    assert values == sorted(values, reverse=True)
    assert all(plans == handed_over[0] for plans in handed_over)


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
@pytest.mark.parametrize("size", [(1, 6, 24), (3, 5, 10)], ids=["one", "three"])
@pytest.mark.parametrize("seed", range(3))
def test_shared_routes_are_not_worse_at_the_same_limit(goal: str, size: tuple[int, int, int], seed: int) -> None:
    """Neither has proven much by then, so that what counts is from which plans they start."""
    sources, workers, blocks = size
    instance = random_instance(seed, sources=sources, workers=workers, blocks=blocks, goal=goal, links=True, load=0.4)
    problem = build_problem(instance)
    single, shared = (
        min(map(problem.objective, solve_in_turn(problem, within(problem, 100), *methods).incumbents))
        for methods in ([[load_method("search")]], [[load_method("colgen")], [load_method("search")]])
    )
    assert shared <= single * (1 + 1e-4)


@pytest.mark.parametrize("goal", [goal for goal in GOALS if goal != "misses"])
@pytest.mark.parametrize("size", ["small", pytest.param("wide", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("seed", [102, 105, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(10))])
def test_shared_routes_within_memory_are_no_worse_than_single_ones(goal: str, size: str, seed: int) -> None:
    """A method for single routes has as much time beside shared ones as alone with half of the limit."""
    problem = build_problem(draw(seed, goal, size, memory=True))
    single, shared = load_method("search"), load_method("colgen")
    for looks in (100, 400):
        alone = solve_in_turn(problem, within(problem, looks), [single])
        both = solve_in_turn(problem, within(problem, 2 * looks), [shared], [single])
        values = [min(map(problem.objective, found.incumbents), default=float("inf")) for found in (alone, both)]
        assert values[1] <= values[0] * (1 + 1e-9)
        assert both.bound <= values[1]


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_what_a_method_leaves_of_its_time_the_next_one_uses(goal: str, *, memory: bool) -> None:
    """Methods that end at once leave nearly all of it to each of those after them, in as many turns as help."""
    problem = build_problem(draw(3, goal, "small", memory=memory))
    values = sorted(known_plans(problem, Deadline()), key=problem.objective, reverse=True)
    plans = iter([plan for plan in values if problem.feasible(plan)])
    left: dict[str, list[float]] = {"shared": [], "single": []}

    def find(name: str, options: Options) -> Outcome:
        left[name].append(options.left_s)
        plan = next(plans, None)
        return Outcome("no_solution") if plan is None else Outcome("feasible", (plan,))

    solve_in_turn(
        problem,
        Options(gap=0.0, deadline=Deadline.after(1.0, lambda: 0.0)),
        [lambda _problem, options: find("shared", options)],
        [lambda _problem, options: find("single", options)],
    )
    assert len(left["shared"]) > 1
    assert left["shared"][1:] == [1.0] * (len(left["shared"]) - 1)
    assert min(left["single"]) >= 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_known_plan_is_nearly_the_best_partition(seed: int) -> None:
    instance = random_instance(seed, sources=1, workers=7, blocks=24, goal="throughput", links=True)
    free, partition = build_problem(instance), build_problem(instance, max_visits=1)
    outcome = load_method("dp")(partition, Options())
    assert outcome.status == "optimal"
    assert min(map(free.objective, known_plans(free, Deadline()))) <= outcome.bound * 1.02


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    goal=st.sampled_from(GOALS),
    rank=st.sampled_from(["evaluated", "surrogate"]),
    first=st.sampled_from(["auto", "search", "milp", *BASELINES]),
    then=st.sampled_from(["auto", "search", "milp"]),
    limit_s=st.sampled_from([0.0, 0.2]),
)
def test_a_plan_to_start_from_is_never_lost(
    *, seed: int, goal: str, rank: Rank, first: str, then: str, limit_s: float
) -> None:
    """Who goes on from an earlier plan never gets a worse one, whatever found it, and however short the time is."""
    instance = instance_of(seed, goal, sources=2, workers=3, blocks=4, load=0.3)
    before = solve(instance, method=first, time_limit_s=0.2, rank=rank).plan
    if before is not None:
        after = solve(instance, method=then, time_limit_s=limit_s, rank=rank, start=before).plan
        assert after is not None
        by = goal if rank == "evaluated" else ""
        assert worth(instance, after, by) <= worth(instance, before, by) * (1 + 1e-9)


def worth(instance: Instance, plan: PlanSpec, by: str) -> float:
    """What the plans of a ranking are compared by."""
    routes = {name: source.routes for name, source in plan.sources.items()}
    found = evaluate(instance, routes)
    return {"delay": found.weighted_delay_s, "misses": found.weighted_misses}.get(by, found.objective)


def test_evaluated_ranking_is_never_worse_than_a_rule() -> None:
    for seed in range(3):
        instance = random_instance(seed, sources=2, workers=3, blocks=4, load=0.5)
        best = solve(instance, time_limit_s=LIMIT_S).plan
        assert best is not None
        for name in BASELINES:
            rule = solve(instance, method=name).plan
            if rule is not None:
                delay = sum(
                    instance.scenario.sources[source].priority * route.delay_s for source, route in best.sources.items()
                )
                of_rule = sum(
                    instance.scenario.sources[source].priority * route.delay_s for source, route in rule.sources.items()
                )
                assert delay <= of_rule * (1 + 1e-9)
