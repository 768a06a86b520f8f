"""What the sources ask for: their volumes and limits, and the models with operating points among which they choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """A model at one of its operating points, L blocks on D workers.

    Parameters
    ----------
    model, operating_point
        Index of the model in the problem, and of its operating point.
    accuracy
        Fraction of samples classified correctly.
    reach
        Expected number of times that a sample runs block l, the last repeated for the result; shape [L + 1]. At most 1
        for a sample that may leave early, and the number of runs for a sequence.
    block_s
        Mean time of a run of each block on each worker, in one session with the block before if that saves time and the
        stage has it; shape [L, D], seconds.
    overhead_s
        Time to start a stage on each worker; shape [D], seconds.
    cut_bytes
        Mean bytes across each cut in a run; shape [L + 1].
    exit_bytes
        Mean bytes per sample sent home by an exit after block l; shape [L].
    exit_share
        Probability that a sample leaves through an exit after block l; shape [L].
    saving_s
        How much longer a block takes as the first one of its stage; shape [L, D], seconds.
    """

    model: int
    operating_point: int
    accuracy: float
    reach: Array
    block_s: Array
    overhead_s: Array
    cut_bytes: Array
    exit_bytes: Array
    exit_share: Array
    saving_s: Array | float = 0.0

    @property
    def begin_s(self) -> Array:
        """What a stage that begins with each block takes beyond ``block_s``; shape [L, D], seconds."""
        return np.asarray(np.broadcast_to(self.overhead_s + self.saving_s, self.block_s.shape))

    def __len__(self) -> int:
        return len(self.exit_bytes)


@dataclass(frozen=True)
class Demand:
    """A source: ``volume`` is its rate in samples per second, or its number of samples for ``makespan``.

    ``priority`` is its weight in the objective, and ``deadline_s`` bounds its mean delay without waiting. ``tail`` says
    that single samples have limits, which only the evaluation of a plan knows.
    """

    name: str
    home: int
    volume: float
    priority: float
    deadline_s: float
    min_accuracy: float
    variants: tuple[int, ...]
    tail: bool = False
