"""Choosing the borders of at most B blocks.

A border costs something at run time (onnxruntime reorders its layout, and loses the fusions across it) and something
whenever a stage ends there (the bytes that cross). Uneven blocks make plans coarse and let urgent work wait longer. The
borders chosen minimise

    evenness:    Σ over blocks of B · (cost of the block / cost of the model)²     (1 where B blocks are equal)
    + bytes:     BYTES_WEIGHT · Σ over borders of bytes / median bytes of all cuts / (B − 1)
    + fusion:    FUSION_PENALTY for each border that cuts through what onnxruntime would fuse

exactly, by dynamic programming over the cuts. A border that evens out less than it costs is not drawn: where one node
is most of the work there are fewer blocks than B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

BYTES_WEIGHT = 0.35
FUSION_PENALTY = 0.5
CANDIDATES = 1000


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
        How many blocks to make at most; one more than there are forced cuts, if that is more.

    Returns
    -------
    list of int
        The borders, ascending.
    """
    kept = _thin(allowed, key=lambda cut: (fused[cut], cut_bytes[cut]))
    cuts = [0, *sorted({*kept, *forced}), len(costs)]
    blocks = max(blocks, len(forced) + 1)
    total = np.concatenate([[0.0], np.cumsum(costs)])
    weight = blocks * _squares(total[cuts] / (total[-1] or 1.0), np.isin(cuts, forced))
    penalty = _penalties(np.array([cut_bytes[cut] for cut in cuts]), np.array([fused[cut] for cut in cuts]), blocks)
    return [cuts[place] for place in _cheapest_way(weight, penalty, min(blocks, len(cuts) - 1))]


def _thin(cuts: Sequence[int], key: Callable[[int], tuple[bool, int]]) -> list[int]:
    """Keep the best cut of each of CANDIDATES runs of neighbours: time and memory grow with the square."""
    size = -(-len(cuts) // CANDIDATES) or 1
    return [min(cuts[start : start + size], key=key) for start in range(0, len(cuts), size)]


def _squares(share: NDArray[np.float64], must: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the squared share of the block between any two cuts; infinite where there can be none.

    There can be none where the second cut is not behind the first, or where a forced cut lies inside.
    """
    passed = np.cumsum(must)
    inside: NDArray[np.int64] = passed[None, :] - must[None, :] - passed[:, None]
    squares: NDArray[np.float64] = (share[None, :] - share[:, None]) ** 2
    squares[inside > 0] = np.inf
    squares[np.tril_indices(len(share))] = np.inf
    return squares


def _cheapest_way(weight: NDArray[np.float64], penalty: NDArray[np.float64], most_steps: int) -> list[int]:
    """Give the inner places of the cheapest way from the first place to the last; of equals the shortest."""
    best = np.full(len(penalty), np.inf)
    best[0] = 0.0
    choices: list[NDArray[np.intp]] = []
    ends: list[float] = []
    for _ in range(most_steps):
        ways = best[:, None] + weight
        choices.append(ways.argmin(axis=0))
        best = ways.min(axis=0) + penalty
        ends.append(float(best[-1]))
    way = [len(penalty) - 1]
    for choice in reversed(choices[: int(np.argmin(ends)) + 1]):
        way.append(int(choice[way[-1]]))
    return way[-2:0:-1]


def _penalties(cut_bytes: NDArray[np.int64], fused: NDArray[np.bool_], blocks: int) -> NDArray[np.float64]:
    """Give what a border at each cut costs; none at the ends."""
    inner = cut_bytes[1:-1]
    typical = max(float(np.median(inner)), 1.0) if inner.size else 1.0
    penalty: NDArray[np.float64] = BYTES_WEIGHT * cut_bytes / typical / max(blocks - 1, 1) + FUSION_PENALTY * fused
    penalty[[0, -1]] = 0.0
    return penalty
