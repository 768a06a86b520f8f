"""The congestion G with its derivatives, continued over overload so that a search may start anywhere."""

from __future__ import annotations

import numpy as np

from planner.plan.surrogate import congestion, congestion_slope
from planner.solvers.core.problem import Array

KNEE = 0.98
"""From here on G is continued by its second-order expansion."""


def smooth_congestion(sigma: Array, kappa: float) -> tuple[Array, Array, Array]:
    """Give G, G' and G'' at ``sigma``, continued quadratically above the knee."""
    at = np.minimum(sigma, KNEE)
    beyond = sigma - at
    value, slope = congestion(at, kappa), congestion_slope(at, kappa)
    bend = 2 * kappa / (1 - at) ** 3
    return value + beyond * (slope + bend * beyond / 2), slope + bend * beyond, bend
