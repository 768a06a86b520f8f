"""The outcome of an infeasible problem, with the fewest limits to relax as its reasons."""

from __future__ import annotations

from planner.solvers.core.infeasibility import Relaxations, explain_infeasibility
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome

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
