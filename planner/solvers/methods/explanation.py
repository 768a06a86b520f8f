"""The outcome of an infeasible problem, with the fewest limits to relax as its reasons."""

from __future__ import annotations

import numpy as np

from planner.solvers.core.infeasibility import Relaxations, explain_infeasibility
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.units import format_quantity

ELASTIC_MAX_ARCS = 100_000
"""With more arcs the elastic filter over all routes takes too long to build."""


def least_relaxations(problem: Problem, options: Options, *, shared: bool = False) -> Relaxations | None:
    """Return the least relaxations by the elastic filter, see :mod:`planner.solvers.methods.mip.elastic`.

    The filter is imported here because only infeasible problems need it, and Pyomo takes long to import.
    """
    from planner.solvers.methods.mip.elastic import relaxations

    return relaxations(problem, options, shared=shared)


def infeasible(problem: Problem, options: Options, *, shared: bool = False) -> Outcome:
    """Return the outcome of an infeasible problem, for one route per source or for ``shared`` ones."""
    return Outcome(
        "infeasible", reasons=explain_infeasibility(problem, least_relaxations(problem, options, shared=shared))
    )


def unroutable_outcome(problem: Problem) -> Outcome:
    """Return the outcome of a problem in which some source has no route at all."""
    return Outcome("infeasible", reasons=explain_infeasibility(problem, {}))


def tried(problem: Problem, options: Options) -> tuple[str, ...]:
    """Return what was tried in vain, and how tight memory is, in words."""
    attempts = ["best responses of the sources"]
    if problem.memory_binds or problem.max_visits is not None:
        attempts.insert(0, "stages along workers by speed, room and distance")
    if problem.memory_binds:
        attempts.insert(1, "single blocks packed by size")
    within = format_quantity(options.time_limit_s, "time", digits=3)
    sentences = [f"no plan was found within {within}; tried: {', '.join(attempts)}"]
    if problem.memory_binds:
        needed, room = (
            format_quantity(size, "memory", digits=4)
            for size in (_least_bytes(problem), float(np.maximum(problem.memory_bytes, 0.0).sum()))
        )
        sentences.append(f"one copy of each block needs {needed} of weights, all workers together have room for {room}")
    return tuple(sentences)


def _least_bytes(problem: Problem) -> float:
    """Return the bytes of one copy of each block of the models that some source must use."""
    models = [{problem.variants[variant].model for variant in demand.variants} for demand in problem.demands]
    required = {next(iter(of_source)) for of_source in models if len(of_source) == 1}
    return float(sum(problem.weight_bytes[model].min(axis=1).sum() for model in required))
