"""The verdict on a run: what was predicted, what was measured, and which checks failed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from planner.execution.coordinator.run_result import RunResult
from planner.tables import milliseconds
from planner.trace.metrics import Bounds, SourceMetrics, wilson
from planner.trace.records import Record
from planner.validation.energy import EnergyComparison
from planner.validation.legs import LegComparison, explain
from planner.validation.numerics import Numerics
from planner.validation.sessions import SessionComparison


@dataclass(frozen=True)
class Check:
    """One of the conditions that a run must meet, in words."""

    name: str
    passed: bool
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.name} ({self.found}; expected {self.expected})"


class Figure(NamedTuple):
    """A figure of a source, predicted and measured, and the 95 % confidence interval of what was measured."""

    name: str
    predicted: float
    measured: float
    interval: Bounds

    @property
    def within(self) -> bool:
        """Whether the prediction is in the interval."""
        return self.interval.low <= self.predicted <= self.interval.high


class Interval(NamedTuple):
    """Interval of a predicted mean delay, in seconds, and the share of runs that should lie in it."""

    low_s: float
    high_s: float
    coverage: float

    def __str__(self) -> str:
        return f"{milliseconds(self.low_s)} to {milliseconds(self.high_s)}"

    @property
    def width(self) -> float:
        """Highest divided by lowest value."""
        return self.high_s / self.low_s if self.low_s > 0 else inf


@dataclass(frozen=True)
class SourceComparison:
    """Prediction and measurement of one source."""

    predicted: SourceMetrics
    measured: SourceMetrics
    inputs: int
    """Number of distinct inputs; if it is smaller than the number of samples, inputs were repeated."""
    legs: tuple[LegComparison, ...] = ()
    """Breakdown of its samples' time."""
    interval: Interval | None = None
    """Interval of the predicted mean delay by the errors of the profiles; None where these are unknown."""

    @property
    def inside(self) -> bool:
        """Whether the measured mean delay is in the interval of the predicted one."""
        measured_s = self.measured.mean_delay_s
        return (
            self.interval is not None
            and measured_s is not None
            and self.interval.low_s <= measured_s <= self.interval.high_s
        )

    @property
    def explanation(self) -> str:
        """Which leg explains most of the difference of the mean delays, or "" if it needs no explanation."""
        predicted_s, measured_s = self.predicted.mean_delay_s, self.measured.mean_delay_s
        return explain(self.legs, measured_s - predicted_s, predicted_s) if predicted_s and measured_s else ""

    @property
    def accuracy_interval(self) -> Bounds | None:
        """95 % confidence interval of the measured accuracy; None without labels."""
        if self.measured.measured_accuracy is None:
            return None
        return wilson(self.measured.measured_accuracy, min(self.measured.judged, self.inputs))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Percentiles of the delay; of sequences the times of tokens; the share of samples late or dropped."""
        return tuple(self._figures())

    def _figures(self) -> Iterator[Figure]:
        predicted, measured = self.predicted, self.measured
        intervals = (measured.p50_interval_s, measured.p95_interval_s, measured.p99_interval_s)
        for percent, interval in zip((50, 95, 99), intervals, strict=True):
            name = f"p{percent}_delay_s"
            promised, found = getattr(predicted, name), getattr(measured, name)
            if promised is not None and found is not None and interval is not None:
                yield Figure(name, promised, found, Bounds(*interval))
        for name in ("ttft_s", "tpot_s"):
            promised, found = getattr(predicted, name), getattr(measured, name)
            mean_interval = getattr(measured, name.replace("_s", "_interval_s"))
            if promised is not None and found is not None and mean_interval is not None:
                yield Figure(name, promised, found, Bounds(*mean_interval))
        drops = bool(predicted.dropped or measured.dropped)
        share = "miss_share" if measured.missed is not None else "drop_share" if drops else None
        if share is not None:
            promised, found = getattr(predicted, share), getattr(measured, share)
            if promised is not None and found is not None:
                yield Figure(share, promised, found, wilson(found, measured.offered))

    @property
    def accurate(self) -> bool:
        """Whether the measured accuracy is compatible with the predicted one; True if one is unknown."""
        bounds, promised = self.accuracy_interval, self.predicted.accuracy
        return bounds is None or promised is None or promised <= bounds.high

    @property
    def error_ratio(self) -> float | None:
        """Measured divided by predicted mean delay, minus 1; None if no sample completed."""
        return self._error("mean_delay_s")

    @property
    def ttft_error_ratio(self) -> float | None:
        """Measured divided by predicted mean time to the first token, minus 1; None for other samples."""
        return self._error("ttft_s")

    @property
    def tpot_error_ratio(self) -> float | None:
        """Measured divided by predicted mean time per token, minus 1; None for other samples."""
        return self._error("tpot_s")

    def _error(self, figure: str) -> float | None:
        promised, found = getattr(self.predicted, figure), getattr(self.measured, figure)
        return found / promised - 1 if promised and found is not None else None


@dataclass(frozen=True)
class Utilisation:
    """Share of the run during which a worker computed, or a network resource carried something."""

    predicted: float
    measured: float


@dataclass(frozen=True)
class Calibration:
    """Comparison of the in-situ costs with the profiles."""

    slowness: dict[str, tuple[float, float | None]]
    """Measured divided by profiled time of each worker's blocks, before and after the run."""
    by_profile_s: dict[str, float | None]
    """Mean delay of each source that is predicted from the profiles, in seconds."""


@dataclass(frozen=True)
class Validation:
    """The verdict on a run."""

    lost: int
    """Number of samples that neither completed nor are reported failed."""
    failed: int
    duplicates: int
    host_limits: tuple[str, ...]
    """Workers whose host may have caused a difference: it was too slow, or busy with something else."""
    numerics: Numerics
    faults: tuple[str, ...]
    """Descriptions of samples that failed or were lost, and of outputs that differ."""
    drops: tuple[str, ...]
    """Descriptions of samples that were dropped, with how late they would have been."""
    sources: dict[str, SourceComparison]
    predicted: Collection[Record]
    measurement: RunResult
    workers: dict[str, Utilisation]
    networks: dict[str, Utilisation]
    calibration: Calibration | None = None
    """None for a prediction from the profiles."""
    energy: EnergyComparison | None = None
    """None if the scenario states no power."""
    sessions: tuple[SessionComparison, ...] = ()
    """Sessions of several blocks."""

    @property
    def host_limited(self) -> bool:
        """Whether a host, rather than the plan, may have caused a difference."""
        return bool(self.host_limits)

    @property
    def sound(self) -> bool:
        """Whether every sample completed and every output agrees."""
        return self.lost == 0 and self.failed == 0 and self.numerics.equal

    def checks(self, tolerance: float) -> tuple[Check, ...]:
        """Return all checks of the run.

        Parameters
        ----------
        tolerance
            Maximum relative error of predicted mean delays, unless they are in the interval of the prediction.
        """
        return (*self._soundness(), *self._accuracies(), *self._promptness(tolerance))

    def passed(self, tolerance: float) -> bool:
        """Return whether the run is sound, as accurate as predicted, and has the predicted mean delays.

        These may be off by ``tolerance``, or as far as the errors of the profiles explain.
        """
        return all(check.passed for check in self.checks(tolerance))

    def _soundness(self) -> Iterator[Check]:
        complete = self.lost == 0 and self.failed == 0
        yield Check("samples", complete, f"lost {self.lost}, failed {self.failed}", "none")
        numerics = self.numerics
        limit = max((tolerance.limit for tolerance in numerics.tolerances.values()), default=0.0)
        found = f"{numerics.unequal} of {numerics.samples} differ, largest relative error {numerics.max_rel_error:.1e}"
        expected = f"outputs that differ by at most {limit:.1e}"
        if numerics.tokens:
            found += f", {numerics.tokens} tokens compared"
            expected = f"equal tokens, and {expected}" if numerics.tolerances else "equal tokens"
        if numerics.not_received:
            found += f", {numerics.not_received} not received"
        yield Check("outputs", numerics.equal, found, expected)

    def _accuracies(self) -> Iterator[Check]:
        for name, source in self.sources.items():
            bounds, promised = source.accuracy_interval, source.predicted.accuracy
            if bounds is not None and promised is not None:
                found = f"95 % interval {bounds.low:.1%} to {bounds.high:.1%}"
                yield Check(f"accuracy of {name}", source.accurate, found, f"{promised:.1%} or more within it")

    def _promptness(self, tolerance: float) -> Iterator[Check]:
        for name, source in self.sources.items():
            ratios = {"mean delay": source.error_ratio}
            if source.predicted.ttft_s is not None:
                ratios["time to first token"] = source.ttft_error_ratio
            if source.predicted.tpot_s is not None:
                ratios["time per token"] = source.tpot_error_ratio
            for what, ratio in ratios.items():
                found = "no sample completed" if ratio is None else f"{ratio:+.1%} against the prediction"
                prompt, expected = ratio is not None and abs(ratio) <= tolerance, f"within {tolerance * 100:g} %"
                if what == "mean delay" and source.interval is not None:
                    prompt = prompt or source.inside
                    expected += f", or in the {source.interval.coverage:.0%} interval of {source.interval}"
                yield Check(f"{what} of {name}", prompt, found, expected)
