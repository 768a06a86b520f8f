"""Random runs of blocks, which the annealing methods move to other workers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

BLOCK_SHARE, PART_SHARE = 0.5, 0.25
"""Shares of the runs that are a single block, and that begin within a stage; the others are whole stages."""


def random_run(workers: Sequence[int], first: int, random: Random) -> tuple[int, int]:
    """Return first block and end of a random run of consecutive blocks on one worker, with block ``first`` in it.

    Parameters
    ----------
    workers
        Worker of each block, between the source's worker at the beginning and at the end.
    """
    end, kind = first + 1, random.random()
    if kind < BLOCK_SHARE:
        return first, end
    worker, length = workers[end], len(workers) - 2
    while end < length and workers[end + 1] == worker:
        end += 1
    if kind < BLOCK_SHARE + PART_SHARE:
        return first, first + 1 + int((kind - BLOCK_SHARE) / PART_SHARE * (end - first))
    while first > 0 and workers[first] == worker:
        first -= 1
    return first, end
