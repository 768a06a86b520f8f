"""Choosing the borders of at most so many blocks.

A border costs something at run time (onnxruntime reorders its layout, and loses the fusions across it) and something
whenever a stage ends there (the bytes that cross). Uneven blocks make plans coarse and let urgent work wait longer. The
borders chosen minimise

    evenness:    Σ over blocks of B · (cost of the block / cost of the model)²     (1 where all are equal)
    + bytes:   mean over borders of bytes / typical bytes, times BYTES_WEIGHT
    + fusion:  FUSION_PENALTY for each border that cuts an element-wise operator from what it follows

exactly, by dynamic programming over the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

BYTES_WEIGHT = 0.25
FUSION_PENALTY = 0.5
CANDIDATES = 1000
LEAST_SHARE = 0.05  # of an even block's work: less is not worth a session


def choose_borders(
    costs: Sequence[float],
    *,
    cut_bytes: Sequence[int],
    fused: Sequence[bool],
    allowed: Sequence[int],
    forced: Sequence[int],
    blocks: int,
) -> list[int]:
    """Choose inner cuts.

    Parameters
    ----------
    costs
        Cost of each of n nodes.
    cut_bytes
        Bytes that cross each of the n + 1 cuts.
    fused
        Whether each cut goes through operators that onnxruntime would fuse.
    allowed
        Inner cuts that may be borders.
    forced
        Those that must be.
    blocks
        How many blocks to make, where there are as many allowed cuts; at least one more than there are forced cuts.

    Returns
    -------
    list of int
        The borders, ascending.
    """
    kept = _thin(allowed, key=lambda cut: (fused[cut], cut_bytes[cut]))
    cuts = [0, *sorted({*kept, *forced}), len(costs)]
    total = np.concatenate([[0.0], np.cumsum(costs)])
    share = total[cuts] / (total[-1] or 1.0)
    must = np.isin(cuts, [0, *forced, len(costs)])
    inner_bytes, through = np.array([cut_bytes[cut] for cut in cuts]), np.array([fused[cut] for cut in cuts])
    for count in range(min(max(blocks, len(forced) + 1), len(cuts) - 1), 0, -1):
        weight = _block_weights(share, must, count)
        found = _shortest_path(weight, _penalties(inner_bytes, through, count), count)
        if found is not None:
            return [cuts[at] for at in found]
    raise AssertionError  # the forced cuts alone are always a way


def _thin(cuts: Sequence[int], key: Callable[[int], tuple[bool, int]]) -> list[int]:
    """Keep the best cut of each of CANDIDATES runs of neighbours: time and memory grow with the square."""
    size = -(-len(cuts) // CANDIDATES) or 1
    return [min(cuts[start : start + size], key=key) for start in range(0, len(cuts), size)]


def _block_weights(share: NDArray[np.float64], must: NDArray[np.bool_], blocks: int) -> NDArray[np.float64]:
    """Give the unevenness of the block between any two cuts; infinite where there can be none.

    There can be none where the second cut is not behind the first, where a forced cut lies inside, or where next to
    no work does, unless both its cuts are forced.
    """
    size = share[None, :] - share[:, None]
    passed = np.cumsum(must)
    inside: NDArray[np.int64] = passed[None, :] - must[None, :] - passed[:, None]
    idle = (size < LEAST_SHARE / blocks) & ~(must[None, :] & must[:, None])
    weight: NDArray[np.float64] = blocks * size**2
    weight[(inside > 0) | idle] = np.inf
    weight[np.tril_indices(len(share))] = np.inf
    return weight


def _shortest_path(weight: NDArray[np.float64], penalty: NDArray[np.float64], steps: int) -> list[int] | None:
    """Give the inner places of the cheapest way of so many steps from the first place to the last; None if none."""
    best = np.full(len(penalty), np.inf)
    best[0] = 0.0
    choices: list[NDArray[np.intp]] = []
    for _ in range(steps):
        ways = best[:, None] + weight
        choices.append(ways.argmin(axis=0))
        best = ways.min(axis=0) + penalty
    if not np.isfinite(best[-1]):
        return None
    way = [len(penalty) - 1]
    for choice in reversed(choices):
        way.append(int(choice[way[-1]]))
    return way[-2:0:-1]


def _penalties(cut_bytes: NDArray[np.int64], fused: NDArray[np.bool_], blocks: int) -> NDArray[np.float64]:
    """Give what a border at each cut costs; none at the ends."""
    inner = cut_bytes[1:-1]
    typical = max(float(np.median(inner)), 1.0) if inner.size else 1.0
    penalty: NDArray[np.float64] = BYTES_WEIGHT * cut_bytes / typical / max(blocks - 1, 1) + FUSION_PENALTY * fused
    penalty[[0, -1]] = 0.0
    return penalty
