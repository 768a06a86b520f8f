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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BYTES_WEIGHT = 0.25
FUSION_PENALTY = 0.5


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
    cuts = [0, *sorted({*allowed, *forced}), len(costs)]
    blocks = min(max(blocks, len(forced) + 1), len(cuts) - 1)
    total = np.concatenate([[0.0], np.cumsum(costs)])
    share = total[cuts] / (total[-1] or 1.0)
    weight = _block_weights(share, blocks)
    must = np.isin(cuts, list(forced))
    passed = np.cumsum(must)
    # A block from cut i to cut j must not have a forced cut inside.
    inside: NDArray[np.int64] = passed[None, :] - must[None, :] - passed[:, None]
    weight[inside > 0] = np.inf
    penalty = _penalties(np.array([cut_bytes[cut] for cut in cuts]), np.array([fused[cut] for cut in cuts]), blocks)
    best = np.full(len(cuts), np.inf)
    best[0] = 0.0
    choices: list[NDArray[np.intp]] = []
    for _ in range(blocks):
        ways = best[:, None] + weight
        choices.append(ways.argmin(axis=0))
        best = ways.min(axis=0) + penalty
    borders, at = [], len(cuts) - 1
    for choice in reversed(choices):
        at = int(choice[at])
        borders.append(cuts[at])
    return sorted(borders)[1:]


def _block_weights(share: NDArray[np.float64], blocks: int) -> NDArray[np.float64]:
    """Give the unevenness of the block between any two cuts; infinite where the second is not behind the first."""
    size = share[None, :] - share[:, None]
    weight: NDArray[np.float64] = blocks * size**2
    weight[np.tril_indices(len(share))] = np.inf
    return weight


def _penalties(cut_bytes: NDArray[np.int64], fused: NDArray[np.bool_], blocks: int) -> NDArray[np.float64]:
    """Give what a border at each cut costs; none at the ends."""
    inner = cut_bytes[1:-1]
    typical = max(float(np.median(inner)), 1.0) if inner.size else 1.0
    penalty: NDArray[np.float64] = BYTES_WEIGHT * cut_bytes / typical / max(blocks - 1, 1) + FUSION_PENALTY * fused
    penalty[[0, -1]] = 0.0
    return penalty
