"""Run a plan for real, and hold it against its simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.model.chain import Chain
from planner.runtime.check import tolerance_of
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulator
from planner.solvers.replan.replanner import replanner
from planner.trace.metrics import RunMetrics, SourceMetrics, summarise
from planner.trace.records import BlockRecord, Record
from planner.trace.store import RecordStore
from planner.validation.accuracy import Bounds, Labels, known_answers, wilson, with_correctness
from planner.validation.calibration_run import CalibrationRun, InSituCosts, calibrate, with_in_situ_costs
from planner.validation.faults import sample_faults
from planner.validation.legs import LegComparison, busy_shares, compare_legs, explain
from planner.validation.numerics import Numerics, compare, references

HOST_LIMIT: Final = 0.01
"""Share of blocks that may take longer than the scenario allows before the host counts as the limit."""

WAIT_LIMIT: Final = 0.02
"""Share of its computing time that a worker may stand ready without a processor before its host is the limit."""

Progress = Callable[[int, int], None]
"""Called with how much of a step is done, and all of it."""

Say = Callable[[str], Progress]
"""Begins a step of the work, by its description, and gives what reports its progress."""


def say_nothing(step: str) -> Progress:  # noqa: ARG001 - the signature of Say
    """Begin a step without telling anybody."""
    return lambda _done, _total: None


class WholeModel(Protocol):
    """A model that can be run in one, as :class:`planner.model.load.ChainModel` can."""

    @property
    def chain(self) -> Chain:
        """Its blocks and cuts."""
        ...

    def model_bytes(self) -> bytes:
        """Give it serialised."""
        ...


@dataclass(frozen=True)
class SourceComparison:
    """Prediction and measurement of one source."""

    predicted: SourceMetrics
    measured: SourceMetrics
    inputs: int
    """How many distinct inputs the source had: with fewer than samples some were asked again."""
    legs: tuple[LegComparison, ...] = ()
    """Where its samples' time went."""

    @property
    def explanation(self) -> str:
        """Which leg explains most of the difference of the mean delays; empty where there is hardly any."""
        expected_s, found_s = self.predicted.mean_delay_s, self.measured.mean_delay_s
        return explain(self.legs, found_s - expected_s, expected_s) if expected_s and found_s else ""

    @property
    def accuracy_interval(self) -> Bounds | None:
        """The 95 % confidence interval of the measured accuracy; None where there are no labels."""
        if self.measured.measured_accuracy is None:
            return None
        return wilson(self.measured.measured_accuracy, min(self.measured.judged, self.inputs))

    @property
    def accurate(self) -> bool:
        """Whether the measured accuracy is not surely below the predicted one; unknown counts as accurate."""
        bounds, promised = self.accuracy_interval, self.predicted.accuracy
        return bounds is None or promised is None or promised <= bounds.high

    @property
    def error_ratio(self) -> float | None:
        """Measured by predicted mean delay, minus 1; None where no sample completed."""
        if not self.predicted.mean_delay_s or self.measured.mean_delay_s is None:
            return None
        return self.measured.mean_delay_s / self.predicted.mean_delay_s - 1


@dataclass(frozen=True)
class Utilisation:
    """Share of the run's time that a worker computed, or a network resource carried something."""

    predicted: float
    measured: float


@dataclass(frozen=True)
class Calibrated:
    """What costs in place say of the profiles."""

    slowness: dict[str, tuple[float, float | None]]
    """What the blocks of each worker took by what its profiles say, before the run and after it."""
    by_profile_s: dict[str, float | None]
    """The mean delay of each source that the profiles predict, in seconds."""


@dataclass(frozen=True)
class Validation:
    """The verdict on a run."""

    lost: int
    """Samples that neither completed nor are reported failed."""
    failed: int
    duplicates: int
    host_limits: tuple[str, ...]
    """Workers whose host, not the plan, may have caused a difference: it was too slow, or busy with something else."""
    numerics: Numerics
    faults: tuple[str, ...]
    """Samples that failed or were lost, and outputs that differ: which, where, and why or by how much."""
    sources: dict[str, SourceComparison]
    predicted: Collection[Record]
    measurement: RunResult
    workers: dict[str, Utilisation]
    networks: dict[str, Utilisation]
    rehearsed: Calibrated | None = None

    @property
    def host_limited(self) -> bool:
        """Whether a host, not the plan, may have caused a difference."""
        return bool(self.host_limits)

    @property
    def sound(self) -> bool:
        """Every sample completed and every output agrees."""
        return self.lost == 0 and self.failed == 0 and self.numerics.equal

    def passed(self, tolerance: float) -> bool:
        """Sound, no source less accurate than predicted, and mean delays within ``tolerance``, as a fraction."""
        ratios = [comparison.error_ratio for comparison in self.sources.values()]
        prompt = all(ratio is not None and abs(ratio) <= tolerance for ratio in ratios)
        return self.sound and prompt and all(comparison.accurate for comparison in self.sources.values())


def validate(
    deployment: Deployment,
    models: Mapping[str, WholeModel],
    agents: AbstractContextManager[Coordinator],
    *,
    labels: Labels | None = None,
    rehearse_s: float = 0.0,
    say: Say = say_nothing,
    observer: Observer | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> Validation:
    """Simulate, run on real agents, compare.

    Parameters
    ----------
    models
        The models that are deployed.
    agents
        Brings up a coordinator that has found all agents, and lets them go.
    labels
        Of sources whose inputs are sent: classes, by which accuracy is measured.
    rehearse_s
        For about so long before the run, and after it, samples go as in the run, at other times; the prediction takes
        what blocks and transfers cost then in place of what profiles and scenario say. 0 for none.
    say
        Is told each step of the work.
    observer
        Is told what goes on during the run.
    ready_timeout_s
        Time within which all agents must have loaded their blocks, in seconds.

    Raises
    ------
    PlannerError
        The run could not be made: an agent did not start, or the scenario asks for more speed than this host has.
    """
    instance = deployment.instance
    inputs = {source: deployment.inputs(source) for source in instance.sources}
    whole = {name: model.model_bytes() for name, model in models.items()}
    expected = references(instance, whole, inputs, say("running the whole models"))
    chains = {name: model.chain for name, model in models.items()}
    answers = known_answers(instance, chains, expected, labels or {})
    instance = instance.model_copy(update={"answers": answers})
    by_profile = _predict(instance, deployment)
    say("starting agents")
    with agents as coordinator:
        observer = observer or Observer()

        def rehearse() -> InSituCosts | None:
            if not rehearse_s:
                return None
            say("rehearsing")
            return calibrate(coordinator, deployment, by_profile, rehearse_s, ready_timeout_s=ready_timeout_s)

        before = rehearse()
        say("running")
        measurement = coordinator.run(deployment, ready_timeout_s=ready_timeout_s, observer=observer)
        after = None if measurement.left else rehearse()
    if labels:
        measurement.records = RecordStore(with_correctness(measurement.records, measurement.outputs, labels))
    tolerances = {name: tolerance_of(model.cuts) for name, model in deployment.models.items()}
    numerics = compare(instance, measurement.outputs, measurement.records, expected, tolerances)
    distinct = {source: len(found) for source, found in inputs.items()}
    emulated = deployment.emulation is not None
    if before is None:
        return judge(instance, by_profile, measurement, numerics, distinct, emulated=emulated)
    rehearsal = CalibrationRun(before, after)
    in_place = with_in_situ_costs(instance, rehearsal.costs)
    predicted = _predict(in_place, deployment, rehearsal.costs.factors())
    validation = judge(in_place, predicted, measurement, numerics, distinct, emulated=emulated)
    limits = dict.fromkeys([*validation.host_limits, *rehearsal.drifted(instance)])
    return replace(
        validation,
        host_limits=tuple(worker for worker in instance.workers if worker in limits),
        rehearsed=Calibrated(
            rehearsal.slowness(instance),
            {source: found.mean_delay_s for source, found in _summary(instance, by_profile).sources.items()},
        ),
    )


def _predict(
    instance: Instance, deployment: Deployment, factors: Mapping[str, Sequence[float]] | None = None
) -> RecordStore:
    """Simulate the deployment on an instance; ``factors`` are those of the simulator."""
    policy, plan, records = deployment.policy, deployment.plan, RecordStore()
    replan = replanner(instance, policy, plan)
    Simulator(
        instance,
        policy=policy,
        plan=plan,
        seed=deployment.seed,
        sink=records.append,
        replan=replan,
        factors=factors,
    ).run()
    return records


def _summary(instance: Instance, records: Iterable[Record]) -> RunMetrics:
    priorities = {name: source.priority for name, source in instance.scenario.sources.items()}
    return summarise(records, priorities, instance.workers, instance.accuracies)


def judge(
    instance: Instance,
    predicted: Collection[Record],
    measurement: RunResult,
    numerics: Numerics,
    inputs: Mapping[str, int],
    *,
    emulated: bool,
) -> Validation:
    """Put prediction, measurement and numerics together.

    Parameters
    ----------
    inputs
        How many distinct inputs each source had.
    emulated
        Whether the network was played on this host.
    """
    expected, found = _summary(instance, predicted), _summary(instance, measurement.records)
    carried = [
        busy_shares(records, instance.resources, metrics.makespan_s)
        for records, metrics in ((predicted, expected), (measurement.records, found))
    ]
    legs = compare_legs(instance, predicted, measurement.records, emulated=emulated)
    lost = sum(instance.samples(source) - found.sources[source].offered for source in instance.sources)
    failed = sum(found.sources[source].failed for source in instance.sources)
    return Validation(
        lost=lost,
        failed=failed,
        duplicates=measurement.duplicates,
        host_limits=_host_limits(instance, measurement, found.utilisation, found.makespan_s),
        numerics=numerics,
        faults=tuple(sample_faults(instance, measurement.records, numerics, failed=failed, lost=lost)),
        sources={
            source: SourceComparison(
                expected.sources[source], found.sources[source], inputs[source], tuple(legs[source])
            )
            for source in instance.sources
        },
        predicted=predicted,
        measurement=measurement,
        workers={
            worker: Utilisation(expected.utilisation[worker], found.utilisation[worker]) for worker in instance.workers
        },
        networks={resource: Utilisation(carried[0][resource], carried[1][resource]) for resource in instance.resources},
    )


def _host_limits(
    instance: Instance, measurement: RunResult, utilisation: Mapping[str, float], makespan_s: float
) -> tuple[str, ...]:
    blocks = Counter(record.worker for record in measurement.records if isinstance(record, BlockRecord))
    return tuple(
        worker
        for worker in instance.workers
        if blocks[worker]
        and (
            measurement.late_blocks.get(worker, 0) > HOST_LIMIT * blocks[worker]
            or measurement.waited_s.get(worker, 0.0) > WAIT_LIMIT * utilisation[worker] * makespan_s
        )
    )


def validation_document(validation: Validation, tolerance: float) -> dict[str, Any]:
    """Give the verdict as JSON data."""
    numerics = validation.numerics
    return {
        "passed": validation.passed(tolerance),
        "lost": validation.lost,
        "failed": validation.failed,
        "duplicates": validation.duplicates,
        "faults": list(validation.faults),
        "incidents": [asdict(incident) for incident in validation.measurement.incidents],
        "host_limited": validation.host_limited,
        "host_limits": list(validation.host_limits),
        "numerics": {
            "samples": numerics.samples,
            "max_abs_error": numerics.max_abs_error,
            "max_rel_error": numerics.max_rel_error,
        },
        "sources": {
            name: {
                "predicted": _metrics(comparison.predicted, comparison.predicted.accuracy),
                "measured": _metrics(comparison.measured, comparison.measured.measured_accuracy),
                "error_ratio": comparison.error_ratio,
                "accuracy_interval": comparison.accuracy_interval,
                "explanation": comparison.explanation,
                "legs": [_leg(leg) for leg in comparison.legs],
            }
            for name, comparison in validation.sources.items()
        },
        "workers": {name: asdict(found) for name, found in validation.workers.items()},
        "networks": {name: asdict(found) for name, found in validation.networks.items()},
        "rehearsed": asdict(validation.rehearsed) if validation.rehearsed is not None else None,
    }


def _leg(leg: LegComparison) -> dict[str, Any]:
    return {
        "place": str(leg.place),
        "predicted": leg.predicted._asdict(),
        "measured": leg.measured._asdict(),
    }


def _metrics(metrics: SourceMetrics, accuracy: float | None) -> dict[str, float | None]:
    return {
        "mean_delay_s": metrics.mean_delay_s,
        "p50_delay_s": metrics.p50_delay_s,
        "p95_delay_s": metrics.p95_delay_s,
        "throughput_per_s": metrics.throughput_per_s,
        "accuracy": accuracy,
    }
