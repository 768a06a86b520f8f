"""Choose the borders of at most B blocks.

A border has a cost at run time, because onnxruntime converts the tensor layout there and cannot fuse operators across
it. It has a further cost whenever a stage ends there: the bytes that cross. Uneven blocks make plans coarse and make
urgent work wait longer. The chosen borders minimise the sum of

    evenness:    Σ over blocks of B · (cost of the block / cost of the model)²     (1 if B blocks are equal)
    + bytes:     BYTES_WEIGHT · Σ over borders of bytes / median bytes of all cuts / (B − 1)
    + fusion:    FUSION_PENALTY for each border between operators that onnxruntime would fuse
    + nesting:   NESTING_WEIGHT · Σ over borders of how deep inside modules of the model they lie, 0 to 1 / (B − 1)

exactly, by dynamic programming over the cuts. A border that improves evenness by less than its cost is left out: if one
node dominates the work, there are fewer than B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

BYTES_WEIGHT = 0.35
FUSION_PENALTY = 0.5
NESTING_WEIGHT = 0.1  # blocks of a model of equal layers may differ by about a fifth for a border between modules
CANDIDATES = 1000


def choose_borders(
    costs: Sequence[float],
    *,
    cut_bytes: Sequence[int],
    fused: Sequence[bool],
    nested: Sequence[float],
    allowed: Sequence[int],
    forced: Sequence[int],
    blocks: int,
) -> list[int]:
    """Return the inner cuts that become block borders.

    Parameters
    ----------
    costs
        Cost of each of n nodes.
    cut_bytes
        Number of bytes that cross each of the n + 1 cuts.
    fused
        Whether each cut separates operators that onnxruntime would fuse.
    nested
        How deep inside modules each cut lies, from 0 to 1.
    allowed
        Inner cuts that may be borders.
    forced
        Inner cuts that must be borders.
    blocks
        Maximum number of blocks. Raised to the number of forced cuts plus one if that is larger.

    Returns
    -------
    list of int
        Borders in ascending order.
    """
    kept = _thin_out(allowed, key=lambda cut: (fused[cut], cut_bytes[cut]))
    cuts = [0, *sorted({*kept, *forced}), len(costs)]
    blocks = max(blocks, len(forced) + 1)
    cumulative = np.concatenate([[0.0], np.cumsum(costs)])
    weight = blocks * _squared_shares(cumulative[cuts] / (cumulative[-1] or 1.0), np.isin(cuts, forced))
    size, tied, inside = (np.array([each[cut] for cut in cuts]) for each in (cut_bytes, fused, nested))
    penalty = _penalties(size, tied, inside, blocks)
    return [cuts[index] for index in _cheapest_path(weight, penalty, min(blocks, len(cuts) - 1))]


def _thin_out(cuts: Sequence[int], key: Callable[[int], tuple[bool, int]]) -> list[int]:
    """Return the best cut of each of CANDIDATES groups of neighbours, because time and memory grow quadratically."""
    size = -(-len(cuts) // CANDIDATES) or 1
    return [min(cuts[start : start + size], key=key) for start in range(0, len(cuts), size)]


def _squared_shares(share: NDArray[np.float64], forced: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the squared share of the block between any two cuts, infinite where no block is possible.

    No block is possible if the second cut does not lie after the first, or if a forced cut lies inside.
    """
    forced_before = np.cumsum(forced)
    inside: NDArray[np.int64] = forced_before[None, :] - forced[None, :] - forced_before[:, None]
    squares: NDArray[np.float64] = (share[None, :] - share[:, None]) ** 2
    squares[inside > 0] = np.inf
    squares[np.tril_indices(len(share))] = np.inf
    return squares


def _cheapest_path(weight: NDArray[np.float64], penalty: NDArray[np.float64], max_steps: int) -> list[int]:
    """Return the inner nodes of the cheapest path from the first node to the last; of equal ones, the shortest."""
    best = np.full(len(penalty), np.inf)
    best[0] = 0.0
    choices: list[NDArray[np.intp]] = []
    ends: list[float] = []
    for _ in range(max_steps):
        totals = best[:, None] + weight
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0) + penalty
        ends.append(float(best[-1]))
    path = [len(penalty) - 1]
    for choice in reversed(choices[: int(np.argmin(ends)) + 1]):
        path.append(int(choice[path[-1]]))
    return path[-2:0:-1]


def _penalties(
    cut_bytes: NDArray[np.int64], fused: NDArray[np.bool_], nested: NDArray[np.float64], blocks: int
) -> NDArray[np.float64]:
    """Return the cost of a border at each cut; 0 at both ends."""
    inner = cut_bytes[1:-1]
    typical = max(float(np.median(inner)), 1.0) if inner.size else 1.0
    spread: NDArray[np.float64] = (BYTES_WEIGHT * cut_bytes / typical + NESTING_WEIGHT * nested) / max(blocks - 1, 1)
    penalty = spread + FUSION_PENALTY * fused
    penalty[[0, -1]] = 0.0
    return penalty
