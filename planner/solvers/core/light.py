"""Loads that one route puts on one resource: a route without heavy ones has no stage and no transfer above a limit.

A stage counts as a whole, because a single route puts all of its blocks on one worker.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.solvers.core.demand import Array, Demand, Variant

ROUNDING = 1e-9
"""Relative excess over the limit that still counts as light."""

Integers = NDArray[np.intp]


def light_blocks(demand: Demand, model: Variant, most_load: float, usable: Array, per_byte: Array) -> NDArray[np.bool_]:
    """Return whether no load of a block, its input from and its results to the source exceeds a limit; shape [L, D].

    Parameters
    ----------
    usable
        Share of the time of each worker that may be used; shape [D].
    per_byte
        Seconds of the busiest hop per byte between two workers; shape [D, D].
    """
    to_home, from_home = per_byte[:, demand.home], per_byte[demand.home]
    seconds = model.reach[:-1, None] * model.block_s / usable
    seconds = np.maximum(seconds, model.exit_bytes[:, None] * to_home)
    seconds[0] = np.maximum(seconds[0], model.reach[0] * model.cut_bytes[0] * from_home)
    seconds[-1] = np.maximum(seconds[-1], model.reach[-1] * model.cut_bytes[-1] * to_home)
    return np.asarray(demand.volume * seconds <= most_load * (1 + ROUNDING))


def first_of_stage(demand: Demand, model: Variant, most_load: float, usable: Array) -> Integers:
    """Return the first block of the longest stage that ends before each cut and is not too heavy; shape [L + 1, D].

    It is the cut itself where not even one block fits. Results of exits and transfers are not counted.
    """
    reach, length = model.reach[:-1, None], len(model)
    until_s = np.vstack([np.zeros(len(usable)), np.cumsum(reach * model.block_s, axis=0)])
    stage_s = until_s[:, None] - until_s[:-1] + reach * model.begin_s
    heavy = demand.volume * stage_s > most_load * usable * (1 + ROUNDING)
    before = np.arange(length) < np.arange(length + 1)[:, None]
    return np.asarray((heavy & before[:, :, None]).sum(axis=1))
