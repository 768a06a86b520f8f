"""Fit costs, and their error, to the times of blocks and segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.profiling.intervals import half_width
from planner.profiling.types import SegmentError

Segment = tuple[int, int]
"""First and last block, inclusive."""

MAX_FITTED: Final = 6
MAX_HELD_OUT: Final = 12

NORMAL_QUARTILES: Final = 1.349
"""Interquartile range of a normal distribution, in standard deviations."""

MEASURED_COVERAGE: Final = 0.95
"""Coverage of the interval of measured times."""
PARTS: Final = 8
"""Number of parts of a measurement whose times are compared."""

NOISY_WAITING: Final = 0.10
NOISY_SPREAD: Final = 0.10
NOISY_DRIFT: Final = 0.05
NOISY_ERROR_P95: Final = 0.10


def choose_segments(length: int, rng: np.random.Generator) -> tuple[list[Segment], list[Segment]]:
    """Draw the segments to which the stage overhead is fitted, and those held out to estimate the error.

    Parameters
    ----------
    length
        Number of blocks L. Neither list contains the whole chain, because each round times it anyway.
    rng
        Random generator.

    Returns
    -------
    tuple
        Fitted and held-out segments; the lists are disjoint.
    """
    segments = [(first, last) for first in range(length) for last in range(first, length) if last - first + 1 < length]
    drawn = [segments[index] for index in rng.permutation(len(segments))]
    fitted = min(MAX_FITTED, len(drawn) // 3)
    return drawn[:fitted], drawn[fitted : fitted + MAX_HELD_OUT]


@dataclass
class Rounds:
    """Measurements of the rounds so far, with one entry per round in every list.

    Parameters
    ----------
    fitted, held_out
        Segments that each round times in addition to the whole chain.
    """

    fitted: list[Segment]
    held_out: list[Segment]
    block_s: list[list[float]] = field(default_factory=list)
    """Time of each block within the whole chain; L entries per round, seconds."""
    chain_s: list[float] = field(default_factory=list)
    """Time of the whole chain as one stage, seconds."""
    segment_s: list[dict[Segment, float]] = field(default_factory=list)
    """Time of each segment as one stage, seconds."""

    def __len__(self) -> int:
        return len(self.segment_s)

    def add(self, block_s: list[float], chain_s: float, segment_s: dict[Segment, float]) -> None:
        """Add the times of a complete round."""
        self.block_s.append(block_s)
        self.chain_s.append(chain_s)
        self.segment_s.append(segment_s)


@dataclass(frozen=True)
class FittedCosts:
    """Costs of a chain, fitted to rounds.

    Parameters
    ----------
    mean_s
        Typical time of each block inside a stage: the median over the rounds, which is robust against disturbed rounds;
        shape [L], seconds.
    std_s
        Standard deviation over the rounds, computed from the quartiles for the same reason; shape [L], seconds.
    stage_overhead_s
        Cost of a stage in addition to its blocks, seconds.
    segment_error
        Error on the held-out segments; None for a chain of one block, which has none.
    """

    mean_s: NDArray[np.float64]
    std_s: NDArray[np.float64]
    stage_overhead_s: float
    segment_error: SegmentError | None
    width: float
    """How far the logarithm of the mean time of a run may be from that of these costs, with ``MEASURED_COVERAGE``: the
    error on the held-out segments, and how much the chain's time changed between parts of the measurement."""


def fit_costs(rounds: Rounds) -> FittedCosts:
    """Fit costs to rounds.

    The overhead is the median, over the fitted segments and the whole chain, of the time of a segment minus the time of
    its blocks in the same round. Slow drift of the machine's speed therefore cancels.
    """
    block_s = np.array(rounds.block_s)
    mean_s = np.median(block_s, axis=0)
    length = block_s.shape[1]
    excess_s = [np.median(np.array(rounds.chain_s) - block_s.sum(axis=1))]
    for first, last in rounds.fitted:
        excess_s.append(np.median(_times(rounds, (first, last)) - block_s[:, first : last + 1].sum(axis=1)))
    overhead_s = max(float(np.median(excess_s)), 0.0)
    errors = _errors(rounds, mean_s, overhead_s) if length > 1 else []
    width = math.hypot(
        half_width(errors, MEASURED_COVERAGE) if errors else 0.0,
        half_width(_drifts(rounds.chain_s), MEASURED_COVERAGE),
    )
    return FittedCosts(mean_s, robust_std(block_s), overhead_s, _segment_error(errors), width)


def robust_std(times_s: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation over the first axis, computed from the quartiles to be robust against outliers."""
    low_s, high_s = np.percentile(times_s, [25, 75], axis=0)
    return np.asarray((high_s - low_s) / NORMAL_QUARTILES)


def _errors(rounds: Rounds, mean_s: NDArray[np.float64], overhead_s: float) -> list[float]:
    """Return the logarithm of predicted over measured time of each held-out segment."""
    errors = []
    for first, last in rounds.held_out:
        measured_s = float(np.median(_times(rounds, (first, last))))
        errors.append(math.log((overhead_s + mean_s[first : last + 1].sum()) / measured_s))
    return errors


def _drifts(chain_s: Sequence[float]) -> list[float]:
    """Return the logarithm of the chain's time in each of several parts of a measurement, relative to all of it."""
    parts = np.array_split(np.array(chain_s), min(PARTS, len(chain_s)))
    return [math.log(float(np.median(part) / np.median(chain_s))) for part in parts]


def _segment_error(errors: Sequence[float]) -> SegmentError | None:
    if not errors:
        return None
    relative = np.abs(np.expm1(errors))
    return SegmentError(median=float(np.median(relative)), p95=float(np.percentile(relative, 95)), segments=len(errors))


def _times(rounds: Rounds, segment: Segment) -> NDArray[np.float64]:
    return np.array([times[segment] for times in rounds.segment_s])


def noise_warnings(rounds: Rounds, error: SegmentError | None, waiting_share: float = 0.0) -> list[str]:
    """Return a warning for each sign that the machine was too noisy to trust these rounds.

    ``waiting_share`` is the share of the time in which other programs occupied the processor.
    """
    chain_s = np.array(rounds.chain_s)
    low_s, middle_s, high_s = np.percentile(chain_s, [10, 50, 90])
    third = max(len(chain_s) // 3, 1)
    drift = float(np.median(chain_s[-third:]) / np.median(chain_s[:third]) - 1)
    variation = float((high_s - low_s) / middle_s)
    warnings = []
    if waiting_share > NOISY_WAITING:
        warnings.append(f"busy machine: other programs used the processor for {waiting_share:.0%} of the time")
    if variation > NOISY_SPREAD:
        warnings.append(f"noisy machine: the chain's time differs by {variation:.0%} between quiet and busy rounds")
    if abs(drift) > NOISY_DRIFT:
        warnings.append(
            f"the chain became {'slower' if drift > 0 else 'faster'} by {abs(drift):.0%} during the measurement"
        )
    if error is not None and error.p95 > NOISY_ERROR_P95:
        warnings.append(f"held-out segments deviate from the prediction by up to {error.p95:.0%} (95th percentile)")
    return warnings
