"""Plans of simple rules, than which no method may return anything worse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import numpy as np

from planner.solvers.core.deadline import Deadline, Expired
from planner.solvers.core.problem import Choices, Problem
from planner.solvers.methods.baselines import RULES
from planner.solvers.methods.bottleneck_dp import quick_plan
from planner.solvers.routes.best_response import measure_of
from planner.solvers.routes.ordered_partition import ordered_routes

MAX_ARCS = 1_000_000
"""With more arcs in all, partitions by order and searches for single routes take longer than sharing routes."""
PEAK_GOALS = frozenset({"throughput", "makespan"})
"""The goals that depend on the busiest resource."""


def known_plans(problem: Problem, deadline: Deadline) -> tuple[Choices, ...]:
    """Return the distinct plans of all rules that have one, feasible or not, until the ``deadline``."""
    found: dict[Choices, None] = {}
    with suppress(Expired):
        for plan in chain(
            _of_rules(problem, deadline), _of_orders(problem, deadline), _of_partition(problem, deadline)
        ):
            if plan is not None:
                found[plan] = None
            deadline.check()
    return tuple(found)


def _of_rules(problem: Problem, deadline: Deadline) -> Iterator[Choices | None]:
    return (rule(problem, deadline) for rule in RULES.values())


def _of_orders(problem: Problem, deadline: Deadline) -> Iterator[Choices | None]:
    if problem.arcs > MAX_ARCS:
        return
    measure = measure_of(problem)
    for order in _orders(problem):
        yield ordered_routes(problem, order, deadline=deadline)
        if problem.goal != "throughput":
            yield ordered_routes(problem, order, measure, deadline)


def _of_partition(problem: Problem, deadline: Deadline) -> Iterator[Choices | None]:
    """Yield a bottleneck partition over any order of the workers, for goals that depend on the bottleneck."""
    if problem.goal in PEAK_GOALS and problem.arcs <= MAX_ARCS:
        yield quick_plan(problem, deadline)


def _orders(problem: Problem) -> list[list[int]]:
    """Return orders of the workers: by speed, by memory, and around the ring, without duplicates."""
    fastest, largest = np.argsort(-problem.speed, kind="stable"), np.argsort(-problem.memory_bytes, kind="stable")
    orders = [fastest, fastest[::-1], *([largest, largest[::-1]] if problem.memory_binds else [])]
    if problem.ring:
        orders.append(np.array(problem.ring))
    return [list(order) for order in dict.fromkeys(tuple(order.tolist()) for order in orders)]
