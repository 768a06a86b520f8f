"""An instance in, a plan with its proven gap out; one file a method.

Only a method's own module imports its solver library.
"""

from planner.solvers.solve import METHODS, Solution, solve

__all__ = ["METHODS", "Solution", "solve"]
