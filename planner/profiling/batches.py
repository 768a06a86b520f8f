"""Times of blocks that run several samples as one batch, by its size."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from planner.base import FrozenModel

MOST: Final = 1024
"""Largest batch that can be measured."""

Size = Annotated[int, Field(ge=1, le=MOST, strict=True)]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Error = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class BatchError(FrozenModel):
    """Relative error of the predicted times of the whole chain for batches of sizes that were held out."""

    median: _Error
    worst: _Error
    sizes: tuple[Size, ...] = Field(min_length=1)


class BatchCosts(FrozenModel):
    """Time of each of L blocks for a batch, relative to that for one sample.

    Between the sizes that were measured it is interpolated; larger ones are not known.
    """

    sizes: tuple[Size, ...] = Field(min_length=2)
    """Sizes that were measured, from 1 on, increasing."""
    relative: tuple[tuple[Ratio, ...], ...] = Field(min_length=1)
    """Time of each block for a batch of each size, relative to ``mean_s``: 1 and more, never decreasing; [L, K]."""
    error: BatchError | None = None
    """None if no size was held out."""

    @model_validator(mode="after")
    def _in_order(self) -> BatchCosts:
        if self.sizes[0] != 1 or any(after <= before for before, after in pairwise(self.sizes)):
            raise ValueError(f"sizes must increase from 1 on, found {list(self.sizes)}")
        for block, ratios in enumerate(self.relative):
            if len(ratios) != len(self.sizes):
                raise ValueError(f"block {block} has {len(ratios)} times for {len(self.sizes)} sizes")
            if ratios[0] != 1 or any(after < before for before, after in pairwise(ratios)):
                raise ValueError(f"times of block {block} must never decrease from 1 on, found {list(ratios)}")
        return self

    @property
    def most(self) -> int:
        """The largest size that is known."""
        return self.sizes[-1]

    def times(self, size: float) -> NDArray[np.float64]:
        """Return the time of each block for a batch, relative to that for one sample; shape [L]."""
        return np.array([np.interp(size, self.sizes, ratios) for ratios in self.relative])

    def least(self, most: int) -> NDArray[np.float64]:
        """Return the least time of each block per sample in batches of up to ``most``; shape [L], at most 1.

        Between two sizes that were measured, the time per sample never passes both of theirs.
        """
        sizes = [size for size in (*self.sizes, most) if size <= most]
        return np.asarray(np.min([self.times(size) / size for size in sizes], axis=0))


def describe(costs: BatchCosts, mean_s: NDArray[np.float64]) -> str:
    """Return the times of the whole chain by size, in a line."""
    total_s = [float(costs.times(size) @ mean_s) for size in costs.sizes]
    told = ", ".join(
        f"{size}: {1e3 * time_s:.2f} ms ({1e3 * time_s / size:.2f} each)"
        for size, time_s in zip(costs.sizes, total_s, strict=True)
    )
    error = costs.error
    held_out = (
        ""
        if error is None
        else f"; error for batches of {', '.join(map(str, error.sizes))}: median {error.median:.1%}, "
        f"worst {error.worst:.1%}"
    )
    return f"batches of {told}{held_out}"
