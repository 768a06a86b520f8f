"""Run a plan for real, and hold it against its simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from planner.execute.coordinator import Coordinator, Measurement, Observer
from planner.execute.deployment import Deployment
from planner.execute.messages import Tensors
from planner.model.load import ChainModel
from planner.policy.menu import expected_accuracy
from planner.scenario.instance import Instance
from planner.simulate.run import simulate
from planner.trace.metrics import SourceMetrics, summarise
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.validate.numerics import Numerics, compare

_READY_TIMEOUT_S: Final = 120.0

HOST_LIMIT: Final = 0.01
"""Share of blocks that may take longer than the scenario allows before the host counts as the limit."""

Progress = Callable[[int, int], None]
"""Called with how much of a step is done, and all of it."""

Say = Callable[[str], Progress]
"""Begins a step of the work, by its description, and gives what reports its progress."""


@dataclass(frozen=True)
class Comparison:
    """Prediction and measurement of one source."""

    predicted: SourceMetrics
    measured: SourceMetrics
    accuracy: float
    """What the plan's operating points promise; random inputs have no labels to measure it by."""

    @property
    def error_ratio(self) -> float | None:
        """Measured by predicted mean delay, minus 1; None where no sample completed."""
        if not self.predicted.mean_delay_s or self.measured.mean_delay_s is None:
            return None
        return self.measured.mean_delay_s / self.predicted.mean_delay_s - 1


@dataclass(frozen=True)
class Validation:
    """The verdict on a run."""

    lost: int
    """Samples that neither completed nor are reported failed."""
    failed: int
    duplicates: int
    host_limited: bool
    """Whether this host, not the plan, may have caused a difference."""
    numerics: Numerics
    sources: dict[str, Comparison]
    predicted: list[Record]
    measurement: Measurement

    @property
    def sound(self) -> bool:
        """Every sample completed and every output agrees."""
        return self.lost == 0 and self.failed == 0 and self.numerics.equal

    def passed(self, tolerance: float) -> bool:
        """Sound, and each source's mean delay within ``tolerance`` of the prediction, as a fraction."""
        ratios = [comparison.error_ratio for comparison in self.sources.values()]
        return self.sound and all(ratio is not None and abs(ratio) <= tolerance for ratio in ratios)


def validate(
    deployment: Deployment,
    models: Mapping[str, ChainModel],
    agents: AbstractContextManager[Coordinator],
    *,
    say: Say,
    observer: Observer | None = None,
) -> Validation:
    """Simulate, run on real agents, compare.

    Parameters
    ----------
    models
        The models that are deployed.
    agents
        Brings up a coordinator that has found all agents, and lets them go.
    observer
        Is told what goes on during the run; by default ``say`` tells how many samples have ended.

    Raises
    ------
    PlannerError
        The run could not be made: an agent did not start, or the scenario asks for more speed than this host has.
    """
    instance, plan, policy, seed = deployment.instance, deployment.plan, deployment.policy, deployment.seed
    predicted, _ = simulate(instance, policy=policy, plan=plan, seed=seed)
    say("starting agents")
    with agents as coordinator:
        observer = observer or _Count(deployment.samples, say("running"))
        measurement = coordinator.run(deployment, ready_timeout_s=_READY_TIMEOUT_S, observer=observer)
    whole = {name: (model.model_bytes(), model.chain.cuts[0].tensors) for name, model in models.items()}
    numerics = compare(instance, measurement.outputs, whole, seed, say("comparing outputs"))
    return judge(instance, predicted, measurement, numerics, expected_accuracy(instance, policy, plan))


class _Count(Observer):
    """Tells how many samples have ended."""

    def __init__(self, samples: int, progress: Progress) -> None:
        self._ended, self._samples, self._progress = 0, samples, progress

    def ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002 - the observer's signature
        self._ended += 1
        self._progress(self._ended, self._samples)


def judge(
    instance: Instance,
    predicted: list[Record],
    measurement: Measurement,
    numerics: Numerics,
    accuracy: Mapping[str, float],
) -> Validation:
    """Put prediction, measurement and numerics together."""
    priorities = {name: source.priority for name, source in instance.scenario.sources.items()}
    expected = summarise(predicted, priorities, instance.workers).sources
    found = summarise(measurement.records, priorities, instance.workers).sources
    blocks = sum(isinstance(record, BlockRecord) for record in measurement.records)
    return Validation(
        lost=sum(instance.samples(source) - found[source].offered for source in instance.sources),
        failed=sum(found[source].failed for source in instance.sources),
        duplicates=measurement.duplicates,
        host_limited=measurement.late_blocks > HOST_LIMIT * blocks,
        numerics=numerics,
        sources={source: Comparison(expected[source], found[source], accuracy[source]) for source in instance.sources},
        predicted=predicted,
        measurement=measurement,
    )


def validation_document(validation: Validation, tolerance: float) -> dict[str, Any]:
    """Give the verdict as JSON data."""
    numerics = validation.numerics
    return {
        "passed": validation.passed(tolerance),
        "lost": validation.lost,
        "failed": validation.failed,
        "duplicates": validation.duplicates,
        "host_limited": validation.host_limited,
        "numerics": {
            "samples": numerics.samples,
            "max_abs_error": numerics.max_abs_error,
            "max_rel_error": numerics.max_rel_error,
        },
        "sources": {
            name: {
                "predicted": _metrics(comparison.predicted, comparison.accuracy),
                "measured": _metrics(comparison.measured, None),
                "error_ratio": comparison.error_ratio,
            }
            for name, comparison in validation.sources.items()
        },
    }


def _metrics(metrics: SourceMetrics, accuracy: float | None) -> dict[str, float | None]:
    return {
        "mean_delay_s": metrics.mean_delay_s,
        "p50_delay_s": metrics.p50_delay_s,
        "p95_delay_s": metrics.p95_delay_s,
        "throughput_per_s": metrics.throughput_per_s,
        "accuracy": accuracy,
    }
