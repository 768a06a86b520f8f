"""What the devices of a plan are worth: against the whole model at home, and without the one that matters least."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from planner.plan.evaluate import weighted_means, weighted_misses
from planner.plan.journey import Journeys
from planner.plan.types import PlanSpec, PlanWorth
from planner.scenario.instance import Instance
from planner.solvers.core.build import build_problem
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.search_state import Options
from planner.solvers.ranking import candidate
from planner.solvers.solve import METHODS, Routes, load_method, solve

TIME_FRACTION: Final = 0.05
"""Fraction of a time limit that is kept for this."""
MOST_S: Final = 1.0
LEAST_S: Final = 0.1
"""Most and least seconds for this; in between, no longer than the search for the plan took."""
LEAST_MISSES: Final = 1e-4
"""Shares of late samples below this count as equal."""
MAX_DROPPED: Final = 4
"""Maximum number of workers, those with the least utilisation, without which a plan is sought."""

Value = Callable[[PlanSpec], float]


def worth_s(time_limit_s: float) -> float:
    """Return the part of a time limit, in seconds, that :func:`worth` needs at most."""
    return min(TIME_FRACTION * time_limit_s, MOST_S)


def worth(instance: Instance, plan: PlanSpec, time_limit_s: float) -> PlanWorth:
    """Return what the devices of a plan are worth; Ctrl-C ends this early.

    Parameters
    ----------
    time_limit_s
        Seconds for all searches for plans without one worker, together.
    """
    at_home = _value_at_home(instance, plan)
    spare = _spare(instance, plan, min(time_limit_s, max(LEAST_S, plan.solve_s)))
    return PlanWorth(
        times_home=at_home / _value(instance, plan) if at_home is not None else None,
        spare=spare[0] if spare else None,
        spare_cost=spare[1] if spare else None,
    )


def _value(instance: Instance, plan: PlanSpec) -> float:
    """Return what the goal is about: the weighted mean delay in seconds, the weighted misses, or the objective."""
    if plan.goal == "delay":
        return max(weighted_means(instance, plan.sources)[0], 1e-12)
    if plan.goal == "misses":
        return max(weighted_misses(instance, plan.sources), LEAST_MISSES)
    return max(plan.objective, 1e-12)


def _value_at_home(instance: Instance, plan: PlanSpec) -> float | None:
    """Return the value of running each sample entirely where it arrives; None where limits forbid that."""
    problem = build_problem(instance)
    incumbents = load_method("local")(problem, Options()).incumbents
    if not incumbents:
        return None
    evaluation = candidate(Journeys(instance), instance, problem, incumbents[0], "evaluated").evaluation
    if plan.goal == "delay":
        return weighted_means(instance, evaluation.sources)[0]
    if plan.goal == "misses":
        return max(weighted_misses(instance, evaluation.sources), LEAST_MISSES)
    return evaluation.objective


def _spare(instance: Instance, plan: PlanSpec, time_limit_s: float) -> tuple[str, float] | None:
    """Return the used worker without which the best plan loses least, and the relative loss; None if unknown."""
    used = {worker for source in plan.sources.values() for route in source.routes for worker in route.workers}
    needed = {instance.home(source) for source in instance.sources}
    needed |= {worker for pins in plan.options["pins"].values() for worker in pins.values()}
    candidates = sorted(used - needed, key=lambda name: (plan.workers[name].utilisation, name))[:MAX_DROPPED]
    if plan.status == "interrupted" or not candidates:
        return None
    end_s, stop = time.monotonic() + time_limit_s, threading.Event()
    losses: dict[str, float] = {}
    with on_interrupt(stop):
        for number, name in enumerate(candidates):
            part_s = (end_s - time.monotonic()) / (len(candidates) - number)
            if part_s <= 0 or stop.is_set():
                break
            other = _without(instance, plan, name, part_s)
            if other is not None and other.status == "interrupted":
                break
            if other is not None:
                losses[name] = max(0.0, _value(instance, other) / _value(instance, plan) - 1)
    return min(losses.items(), key=lambda loss: loss[1]) if losses else None


def _without(instance: Instance, plan: PlanSpec, name: str, time_limit_s: float) -> PlanSpec | None:
    """Return a plan without a worker, which starts from the routes that do not need it."""
    routes: Routes = METHODS[plan.method].routes[0]
    return solve(
        instance.without_workers([name]),
        method="colgen" if routes == "shared" else "search",
        time_limit_s=time_limit_s,
        max_visits=plan.options["max_visits"],
        max_wait_s=plan.options.get("max_wait_s"),
        pins=plan.options["pins"],
        start=plan,
    ).plan
