"""Validation of a plan: a real run, compared with its simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from planner.execution.coordinator.coordinator import READY_TIMEOUT_S, Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.model.chain import Chain
from planner.plan.interval import HIGH, LOW, at_end
from planner.runtime.inputs import hint_at_real_inputs
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulator
from planner.solvers.replan.replanner import replanner
from planner.trace.metrics import Accumulator, RunMetrics
from planner.trace.records import BlockRecord, Record
from planner.trace.store import KEPT, RecordStore
from planner.validation.accuracy import Labels, recorded_predictions, with_correctness
from planner.validation.calibration_run import CalibrationRuns, InSituCosts, calibrate, with_in_situ_costs
from planner.validation.energy import compare_energy
from planner.validation.faults import sample_drops, sample_faults
from planner.validation.legs import BusyTime, Legs, LegTimes, compare_legs, latencies
from planner.validation.limits import measure_limits, reference_runs
from planner.validation.numerics import Numerics, compare, joined
from planner.validation.references import references
from planner.validation.sessions import Session, SessionTimes, compare_sessions
from planner.validation.tokens import compare_tokens, expected_tokens
from planner.validation.verdict import Calibration, Interval, SourceComparison, Utilisation, Validation

HOST_LIMIT: Final = 0.01
"""Share of a worker's blocks that may take longer than the scenario allows before its host counts as the limit."""

WAIT_LIMIT: Final = 0.02
"""Share of its computing time that a worker may wait for a processor before its host counts as the limit."""

Progress = Callable[[int, int], None]
"""Called with the finished and the total amount of work of a step."""

Say = Callable[[str], Progress]
"""Called with the description of each step as it begins; returns the callback for its progress."""


def say_nothing(_step: str) -> Progress:
    """Report no progress: the default for ``say``."""
    return lambda _done, _total: None


class WholeModel(Protocol):
    """A model that can be run in one piece, such as :class:`planner.model.load.ChainModel`."""

    @property
    def chain(self) -> Chain:
        """Blocks and cuts."""
        ...

    def model_bytes(self) -> bytes:
        """Return the serialised model."""
        ...


def validate(
    deployment: Deployment,
    models: Mapping[str, WholeModel],
    agents: AbstractContextManager[Coordinator],
    *,
    labels: Labels | None = None,
    calibrate_s: float = 0.0,
    say: Say = say_nothing,
    observer: Observer | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> Validation:
    """Simulate a deployment, run it on real agents, and compare both.

    Parameters
    ----------
    models
        The deployed models.
    agents
        Context manager that returns a coordinator which has found all agents.
    labels
        Classes of the inputs of sources whose inputs are sent, to measure the accuracy.
    calibrate_s
        Duration in seconds of a calibration run before and after the run, with samples at the same rates but at other
        times. The prediction uses the times of blocks and transfers from these runs instead of those of profiles and
        scenario. 0 for none.
    observer
        Informed during the run.
    ready_timeout_s
        Maximum time in seconds for all agents to load their blocks.

    Raises
    ------
    PlannerError
        If the run fails, for example because an agent does not start, or the scenario requires more speed than this
        host has.
    """
    instance = deployment.instance
    sequences = [name for name, spec in instance.scenario.sources.items() if spec.decode is not None]
    inputs = {source: deployment.inputs(source) for source in instance.sources if source not in sequences}
    whole = {name: model.model_bytes() for name, model in models.items()}
    drawn = [source for source in inputs if source not in deployment.sent]
    cuts = {deployment.models[instance.scenario.sources[source].models[0]].cuts[0] for source in drawn}
    with hint_at_real_inputs([spec for cut in cuts for spec in cut], "--source NAME=SAMPLES"):
        expected = references(instance, whole, inputs, say("running the whole models"))
    chains = {name: model.chain for name, model in models.items()}
    tokens = expected_tokens(instance, whole, chains, deployment, say("generating with the whole models"))
    predictions = recorded_predictions(instance, chains, expected, labels or {})
    instance = instance.model_copy(update={"predictions": predictions})
    by_profile = _predict(instance, deployment)
    say("starting agents")
    with agents as coordinator:

        def calibration_costs() -> InSituCosts | None:
            if not calibrate_s:
                return None
            say("calibrating")
            return calibrate(coordinator, deployment, by_profile, calibrate_s, ready_timeout_s)

        before = calibration_costs()
        say("running")
        measurement = coordinator.run(deployment, ready_timeout_s=ready_timeout_s, observer=observer)
        after = None if measurement.left else calibration_costs()
    records = with_correctness(measurement.records, measurement.outputs, labels) if labels else measurement.records
    measurement.records = RecordStore(records, keep=KEPT)
    reference = {
        name: reference_runs(name, data, instance, cuts=deployment.models[name].cuts, inputs=inputs, expected=expected)
        for name, data in whole.items()
        if any(model == name for _, model in expected)
    }
    allowed = measure_limits(reference, measurement.records, measurement.providers, say("comparing outputs"))
    numerics = joined(
        compare(instance, measurement.outputs, measurement.records, expected, allowed),
        compare_tokens(measurement.outputs, measurement.records, tokens),
    )
    distinct = {source: len(tensors) for source, tensors in inputs.items()}
    distinct |= {source: len(deployment.prompts(source)) for source in sequences}
    emulated = deployment.emulation is not None
    if before is None:
        intervals = _intervals(instance, deployment, by_profile)
        return judge(instance, by_profile, measurement, numerics, distinct, emulated=emulated, intervals=intervals)
    runs = CalibrationRuns(before, after)
    calibrated = with_in_situ_costs(instance, runs.costs)
    predicted = _predict(calibrated, deployment, runs.costs.factors(instance))
    validation = judge(calibrated, predicted, measurement, numerics, distinct, emulated=emulated)
    limits = {*validation.host_limits, *runs.drifted(instance)}
    return replace(
        validation,
        host_limits=tuple(worker for worker in instance.workers if worker in limits),
        calibration=Calibration(runs.slowness(instance), _delays(instance, by_profile)),
    )


def _predict(
    instance: Instance, deployment: Deployment, factors: Mapping[str, Sequence[float]] | None = None
) -> RecordStore:
    """Return the simulated records of a deployment; for ``factors`` see :class:`Simulator`."""
    policy, plan, records = deployment.policy, deployment.plan, RecordStore(keep=KEPT)
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


def _intervals(instance: Instance, deployment: Deployment, predicted: Iterable[Record]) -> dict[str, Interval]:
    """Return the interval of the mean delay of each source as far as the profiles state how well times are known.

    The run is simulated with times as short, and as long, as the profiles allow, and with the same arrivals.
    """
    stated = [
        profile.interval.coverage
        for by_class in instance.profiles.values()
        for profile in by_class.values()
        if profile.interval is not None
    ]
    if not stated:
        return {}
    ends = [_delays(instance, predicted)]
    ends += [_delays(instance, _predict(at_end(instance, end), deployment)) for end in (LOW, HIGH)]
    found: dict[str, Interval] = {}
    for source in instance.sources:
        delays = [delay_s for by_source in ends if (delay_s := by_source[source]) is not None]
        if delays:
            found[source] = Interval(min(delays), max(delays), min(stated))
    return found


def _delays(instance: Instance, records: Iterable[Record]) -> dict[str, float | None]:
    metrics = _read(instance, records, {}).metrics
    return {source: own.mean_delay_s for source, own in metrics.sources.items()}


@dataclass(frozen=True)
class _Run:
    """Results of a run, predicted or measured, that are compared."""

    metrics: RunMetrics
    legs: Legs
    networks: dict[str, float]
    """Share of the run during which each network resource carried something."""
    blocks: Counter[str]
    """Number of blocks that each worker ran."""
    sessions: dict[Session, float]
    """Mean time of each session of several blocks."""


def _read(instance: Instance, records: Iterable[Record], latency_s: Mapping[str, float]) -> _Run:
    """Read the records of a run, once; for ``latency_s`` see :class:`LegTimes`."""
    priorities = {name: source.priority for name, source in instance.scenario.sources.items()}
    metrics = Accumulator(priorities, instance.workers, instance.accuracies, instance.deadlines)
    legs, busy, blocks = LegTimes(latency_s), BusyTime(instance.resources), Counter[str]()
    sessions = SessionTimes()
    for record in records:
        metrics.add(record)
        legs.add(record)
        busy.add(record)
        sessions.add(record)
        if isinstance(record, BlockRecord):
            blocks[record.worker] += 1
    summary = metrics.result()
    return _Run(summary, legs.result(), busy.shares(summary.makespan_s), blocks, sessions.result())


def judge(
    instance: Instance,
    predicted: Collection[Record],
    measurement: RunResult,
    numerics: Numerics,
    inputs: Mapping[str, int],
    *,
    emulated: bool,
    intervals: Mapping[str, Interval] | None = None,
) -> Validation:
    """Return the verdict on a run from prediction, measurement and numerics.

    Parameters
    ----------
    inputs
        Number of distinct inputs of each source.
    emulated
        Whether the network was emulated on this host: then measured transfers, too, leave the latency out.
    intervals
        Of the predicted mean delays, by source, where they are known.
    """
    latency_s = latencies(instance)
    simulated = _read(instance, predicted, latency_s)
    measured = _read(instance, measurement.records, latency_s if emulated else {})
    legs = compare_legs(instance.sources, simulated.legs, measured.legs)
    sources = measured.metrics.sources
    lost = sum(instance.samples(source) - sources[source].offered for source in instance.sources)
    failed = sum(sources[source].failed for source in instance.sources)
    return Validation(
        lost=lost,
        failed=failed,
        duplicates=measurement.duplicates,
        host_limits=_host_limits(instance, measurement, measured),
        numerics=numerics,
        faults=tuple(sample_faults(instance, measurement.records, numerics, failed=failed, lost=lost)),
        drops=tuple(sample_drops(measurement.records)),
        sources={
            source: SourceComparison(
                simulated.metrics.sources[source],
                sources[source],
                inputs[source],
                tuple(legs[source]),
                (intervals or {}).get(source),
            )
            for source in instance.sources
        },
        predicted=predicted,
        measurement=measurement,
        workers={
            worker: Utilisation(simulated.metrics.utilisation[worker], measured.metrics.utilisation[worker])
            for worker in instance.workers
        },
        networks={
            resource: Utilisation(simulated.networks[resource], measured.networks[resource])
            for resource in instance.resources
        },
        energy=compare_energy(instance, simulated.metrics, measured.metrics),
        sessions=tuple(compare_sessions(simulated.sessions, measured.sessions)),
    )


def _host_limits(instance: Instance, measurement: RunResult, measured: _Run) -> tuple[str, ...]:
    def limits(worker: str) -> bool:
        computed_s = measured.metrics.utilisation[worker] * measured.metrics.makespan_s
        return measured.blocks[worker] > 0 and (
            measurement.late_blocks.get(worker, 0) > HOST_LIMIT * measured.blocks[worker]
            or measurement.waited_s.get(worker, 0.0) > WAIT_LIMIT * computed_s
        )

    return tuple(worker for worker in instance.workers if limits(worker))
