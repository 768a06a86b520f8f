"""The widest path through a layered graph of flows, by dynamic programming."""

from __future__ import annotations

import numpy as np

from planner.solvers.core.problem import Array


def widest_path(first: Array, flowing: Array) -> tuple[float, tuple[int, ...]]:
    """Return the largest share of a route and the route: a widest path, whose width is the least flow on it.

    ``first`` [D] is the flow into the first block, ``flowing`` [L, D, D] that between workers.
    """
    width = first
    senders = []
    for flow in flowing[1:]:
        through = np.minimum(width[:, None], flow)
        senders.append(through.argmax(axis=0))
        width = through.max(axis=0)
    workers = [int(width.argmax())]
    for sender in reversed(senders):
        workers.append(int(sender[workers[-1]]))
    return float(width.max()), tuple(reversed(workers))
