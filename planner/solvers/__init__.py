"""Solvers: an instance in, a plan with its proven optimality gap out.

A solver library is imported only by the module of the method that needs it.
"""

from planner.solvers.core.solution import Solution
from planner.solvers.solve import METHODS, solve

__all__ = ["METHODS", "Solution", "solve"]
