"""What one session for several blocks saves: measured for pairs and for random segments, and fitted to borders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from planner.profiling.timing import Segment
from planner.profiling.types import FusionError

MAX_FITTED: Final = 3
MAX_HELD_OUT: Final = 4


class Times(NamedTuple):
    """Time of a segment with a session for each block, and with one for all, in seconds."""

    apart_s: float
    fused_s: float


class FusedSegments(NamedTuple):
    """Segments that are run as one session: those to which savings are fitted, and those held out."""

    fitted: list[Segment]
    held_out: list[Segment]


def choose_fused(length: int, exits: Collection[int], rng: np.random.Generator) -> FusedSegments:
    """Return all pairs of neighbours, and random longer segments.

    Parameters
    ----------
    length
        Number of blocks L.
    exits
        Cuts of the exits, which end a session; only pairs cross them.
    """
    pairs = [(first, first + 1) for first in range(length - 1)]
    longer = [
        (first, last)
        for first in range(length)
        for last in range(first + 2, length)
        if not any(first < cut <= last for cut in exits)
    ]
    drawn = [longer[index] for index in rng.permutation(len(longer))]
    fitted = min(MAX_FITTED, len(drawn) // 2)
    return FusedSegments([*pairs, *drawn[:fitted]], drawn[fitted : fitted + MAX_HELD_OUT])


def fit_savings(
    length: int, segments: FusedSegments, times: Mapping[Segment, Times]
) -> tuple[Sequence[float], FusionError | None]:
    """Return what one session saves at each inner border, in seconds, and how well that predicts held-out segments.

    The savings are those that come nearest to all fitted segments, by least squares. They are empty if a pair was not
    measured, and the error is None if no other segment was.
    """
    rows = [segment for segment in segments.fitted if segment in times]
    if length < 2 or not all((first, first + 1) in times for first in range(length - 1)):
        return (), None
    inside = np.array([[first <= border < last for border in range(length - 1)] for first, last in rows], float)
    saved_s = np.array([times[segment].apart_s - times[segment].fused_s for segment in rows])
    savings = np.linalg.lstsq(inside, saved_s, rcond=None)[0]
    errors, apart = [], []
    for first, last in (segment for segment in segments.held_out if segment in times):
        apart_s, fused_s = times[first, last]
        errors.append(abs((apart_s - savings[first:last].sum()) / fused_s - 1))
        apart.append(abs(apart_s / fused_s - 1))
    if not errors:
        return savings.tolist(), None
    error = FusionError(
        median=float(np.median(errors)),
        p95=float(np.percentile(errors, 95)),
        segments=len(errors),
        blocks_median=float(np.median(apart)),
    )
    return savings.tolist(), error
