"""The contents of a scenario file (``planner/scenario/v1``), in SI units.

Attributes carry their unit in the name; the file's keys (the aliases) carry it in the value: ``bandwidth: 54 Mbit/s``
becomes ``bandwidth_bytes_per_s = 6.75e6``. :mod:`planner.scenario.load` passes the reader of quantities as validation
context; with it a bare number is refused. Without it (a scenario that one program passes to another) numbers are SI.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Final, Literal

from pydantic import Field

from planner.scenario.decode import DecodeSpec
from planner.scenario.quantities import (
    Bytes,
    BytesPerSecond,
    Count,
    Duration,
    Entry,
    Factor,
    Fraction,
    PerSecond,
    PositiveFraction,
    ProperFraction,
    Samples,
    Seconds,
    Size,
    Watts,
)

SCHEMA: Final = "planner/scenario/v1"


class ModelSpec(Entry):
    """A model: an ONNX file, or a profile alone (enough to solve and to simulate)."""

    path: str | None = None
    """ONNX file, relative to the scenario file."""
    profile: str | None = None
    """Name of a profile: ``<folder>/<device-class>/<name>.json`` in one of the ``profiles:`` folders."""
    max_blocks: Count = 8
    """Maximum number of blocks to cut the model into."""
    shape: dict[str, tuple[Size, ...]] | None = None
    """Shapes of the inputs that have dynamic axes: ``{input: [1, 3, 224, 224]}``."""
    axes: dict[str, Size] | None = None
    """Sizes of dynamic axes by the name that the model gives them, once for all inputs: ``{batch: 1}``."""
    layer_assignment: str | None = None
    """Rules for layers that the model's nodes name in ``layer_ann``, as in onnxruntime: ``gpu(encoder); cpu(=head)``.
    Blocks end where the device changes."""
    state: dict[str, str] | None = None
    """Inputs and outputs that are the state of a sequence before and after a run: ``{past_k: present_k}``. It stays
    with the block that uses it. ``{}`` for none; by default what is named by convention, as ``past_key_values.0.key``
    and ``present.0.key``."""
    predictions: str | None = None
    """File of the model's predictions for labelled samples, written by ``planner profile measure --calibrate DATA
    --predictions FILE``, relative to the scenario file. Simulated samples take them in turn and leave at their exits;
    without it, samples leave at random."""


class PowerSpec(Entry):
    """The electrical power that a device draws."""

    idle_w: Watts = Field(alias="idle")
    """Power while it is on and computes nothing."""
    busy_w: Watts = Field(alias="busy")
    """Power while it computes; at least that of ``idle``."""


class WorkerSpec(Entry):
    """A device."""

    device_class: str
    """Name of what was profiled: hardware, execution provider, precision and threads."""
    memory_bytes: Bytes = Field(alias="memory")
    """Memory that models, activations and the agent itself may take in all."""
    base_memory_bytes: Bytes = Field(default=200 * 2**20, alias="base_memory")
    """Memory of the agent itself, before any block is resident."""
    speed: Factor = 1.0
    """Speed relative to the profile: block times are divided by it."""
    overlap: bool = True
    """Whether the worker computes while it sends; otherwise a block waits until everything is sent."""
    host: str | None = None
    """Name of the machine, where it has several workers: these slow each other down as their profiles say, if measured
    by ``planner profile measure --beside N``."""
    max_batch: Count | None = None
    """Largest batch of samples here, where that of their source is larger."""
    max_batch_wait_s: Seconds | None = Field(default=None, alias="max_batch_wait")
    """Longest time that the worker waits for a larger batch while it is idle, in place of that of the source."""
    max_utilisation: PositiveFraction = 1.0
    """Largest share of the worker's time that a plan may use; no plan uses more than 95 %. For the goals ``throughput``
    and ``makespan`` a worker with 50 % counts as busy with twice its work. Online policies do not heed it."""
    power: PowerSpec | None = None
    """The power it draws, for the energy of plans and runs; every worker needs it for the goal ``energy``."""


class NetworkSpec(Entry):
    """A network: a shared medium, or point-to-point links, each direction of which is a resource."""

    kind: Literal["shared", "point-to-point"]
    """``shared``: all transfers share the airtime of one medium; ``point-to-point``: each direction is separate."""
    members: tuple[str, ...] = ()
    """The workers on a shared medium."""
    links: tuple[tuple[str, str], ...] = ()
    """Pairs of workers joined by a point-to-point link."""
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    """Bandwidth of the medium, or of each direction of a link."""
    latency_s: Seconds = Field(default=0.0, alias="latency")
    """Time added to each transfer; uses no capacity."""
    relay: Literal["none", "access-point"] = "none"
    """``access-point``: every transfer crosses the medium twice."""

    def among(self, workers: Collection[str]) -> NetworkSpec:
        """Return the network with only some of its workers."""
        return self.model_copy(
            update={
                "members": tuple(member for member in self.members if member in workers),
                "links": tuple(link for link in self.links if link[0] in workers and link[1] in workers),
            }
        )


_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


def percentile_level(key: str) -> float | None:
    """Return the level in (0, 1) of a percentile such as ``p95``; None if it is none."""
    match = _PERCENTILE.fullmatch(key)
    level = float(match[1]) / 100 if match else 0.0
    return level if 0 < level < 1 else None


class BurstSpec(Entry):
    """Bursts of a source: a Poisson process whose rate switches between two values at random times (MMPP)."""

    factor: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, strict=True)]
    """Rate during a burst, relative to the mean rate."""
    length_s: Duration = Field(alias="length")
    """Mean length of a burst."""
    every_s: Duration = Field(alias="every")
    """Mean time from the beginning of a burst to that of the next; more than its length, at least ``factor`` times."""

    @property
    def share(self) -> float:
        """Share of the time that bursts take."""
        return self.length_s / self.every_s

    @property
    def calm(self) -> float:
        """Rate between bursts, relative to the mean rate."""
        return (1 - self.factor * self.share) / (1 - self.share)


class SourceSpec(Entry):
    """A stream of samples that arrive at a worker."""

    worker: str
    """Worker at which the samples arrive, and to which their results return."""
    models: tuple[str, ...] = Field(min_length=1)
    """One or more models for the same task; the plan chooses among them."""
    rate_per_s: PerSecond | None = Field(default=None, alias="rate")
    """Mean arrival rate; needed unless ``arrivals`` is ``batch`` or ``trace``."""
    priority: Factor = 1.0
    """Positive weight in the objective; larger is more important."""
    samples: Samples = 1000
    """Number of samples of this source in a run."""
    in_flight: Count | None = None
    """Maximum number of samples in flight; the others wait at the source. Unlimited by default."""
    max_batch: Count = 1
    """Largest number of samples of equal priority that a worker runs as one batch, where that takes less time per
    sample; the same for all sources that share a model. Profiles need times of batches. Only ``planned`` runs batches.
    """
    max_batch_wait_s: Seconds = Field(default=0.0, alias="max_batch_wait")
    """Longest time that an idle worker waits for a larger batch. Samples of the highest of several priorities never
    wait for one."""
    max_mean_delay_s: Duration | None = Field(default=None, alias="max_mean_delay")
    """Bound on the mean delay."""
    deadline_s: Duration | None = Field(default=None, alias="deadline")
    """Time from the arrival of a sample by which its result should be back; one whose result comes later, or never,
    misses it. By itself this bounds nothing: ``miss_at_most`` does, or the goal ``misses``."""
    miss_at_most: ProperFraction | None = None
    """Largest share of samples that may miss the deadline."""
    percentiles_s: dict[str, Duration] = Field(default={}, alias="percentile")
    """Bounds on percentiles of the delay: ``{p95: 200 ms}``."""
    late: Literal["finish", "drop"] = "finish"
    """``finish``: a late sample is finished all the same; ``drop``: no further block of a sample is started once it
    cannot meet the deadline even without waiting. A dropped sample is counted as such."""
    queue_timeout_s: Duration | None = Field(default=None, alias="queue_timeout")
    """Longest time from the arrival of a sample until its first block starts; a sample that waits longer is dropped."""
    min_accuracy: Fraction | None = None
    """Minimum fraction of samples that are answered correctly."""
    arrivals: Literal["poisson", "constant", "mmpp", "batch", "trace"] = "poisson"
    """``poisson``: random; ``constant``: evenly spaced; ``mmpp``: random, in bursts; ``batch``: all at the start;
    ``trace``: read from a file."""
    bursts: BurstSpec | None = None
    """For ``arrivals: mmpp``: ``{factor: 5, length: 2 s, every: 30 s}`` for bursts of 2 s that come every 30 s on
    average, during which five times the mean rate comes."""
    trace: str | None = None
    """For ``arrivals: trace``: text file of arrival times in seconds, one per line, relative to the scenario file."""
    decode: DecodeSpec | None = None
    """For models with state: the source generates tokens."""


class ObjectiveSpec(Entry):
    """The objective of a plan."""

    goal: Literal["delay", "throughput", "makespan", "energy", "misses"] = "delay"
    """Minimise the priority-weighted delay, the load of the bottleneck, the time of a batch, the average power of
    the workers, or the priority-weighted share of samples that miss their deadlines."""
    accuracy_worth_s: Seconds = Field(default=0.0, alias="accuracy_worth")
    """Delay that one percentage point of accuracy is worth."""
    service_cv: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False, strict=True)] = 1.0
    """Coefficient of variation of service times in the solver's objective."""


ServiceOrder = Literal["priority", "slack", "value"]
"""How workers order samples that have deadlines; see :mod:`planner.policy.urgency`."""


class AdaptiveParameters(Entry):
    """Constants of the policy ``adaptive`` for the goals ``delay`` and ``throughput``."""

    ageing_s: Duration = Field(default=10.0, alias="ageing")
    """A sample this old counts with twice its priority, one twice as old with three times, and so on."""
    later_weight: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 0.1
    """Weight θ of the delay of samples that come later; 0 ignores them, 1 is their marginal cost if none of them takes
    another route. On random scenarios 0.1 to 0.25 gave less delay than 0 and than 0.5, and 0.1 was never much worse
    than policies that consider only the sample itself."""
    largest_utilisation: ProperFraction = 0.9
    """Utilisation by measured rates is taken to be at most this: rates are measured on few samples."""
    rate_memory_s: Duration = Field(default=5.0, alias="rate_memory")
    """Arrival rates are averages over about this long."""
    miss_weight: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 4.0
    """A missed deadline costs as much as a delay of this many deadlines."""
    doubt: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] = 0.3
    """Uncertainty of an expected wait, relative to it, for the probability that a sample misses its deadline."""
    most_bookings: Count = 64
    """Number of bookings kept for each worker and network; beyond it, the last ones of a priority are merged."""
    backlog_step_s: Duration = Field(default=1e-3, alias="backlog_step")
    """Workers tell their backlog rounded to multiples of this."""


class BatchParameters(Entry):
    """Constants of the policy ``adaptive`` for the goal ``makespan``."""

    behind: Factor = 5.0
    """A worker is behind when more work waits there than this many head starts; by chance that is rare. A head start is
    the time that a sample of the slowest source takes when it waits for nothing."""
    avoid: Factor = 30.0
    """A route over a worker that is behind counts as due later by this many times the excess of work there."""
    backlog_step_s: Duration = Field(default=1e-3, alias="backlog_step")
    """Workers tell their backlog rounded to multiples of a head start, and of this where it is longer."""


class PaceParameters(Entry):
    """How workers notice that they, or their links, are slower or faster than expected."""

    fade: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.9
    """Weight of a block's time relative to that of the next block."""
    step: Annotated[float, Field(gt=1, allow_inf_nan=False, strict=True)] = 2**0.5
    """Slowness goes in powers of this, and changes by one at least, so that chance in block times changes nothing."""
    memory_s: Duration = Field(default=10.0, alias="memory")
    """A worker without news for this long counts as fast as profiled: who is avoided gets no work to measure."""
    enough: Count = 5
    """Number of blocks, or of transfers, that are measured before anything is concluded from them."""
    least: Factor = 2.0**-6
    """Least slowness of a link, that is its time relative to the scenario's."""
    slow: Annotated[float, Field(gt=1, allow_inf_nan=False, strict=True)] = 2.5
    """A worker this many times slower than profiled is planned for anew, and so is one whose slowness has changed by
    this factor. Smaller factors may come from a busy host, which a profile does not tell."""


class PaMdiParameters(Entry):
    """Parts of the policy ``pa-mdi``, to leave out in ablation studies."""

    priorities: bool = True
    """Whether workers serve their queues by priority; otherwise the oldest sample first. Clearance goes by priority in
    either case."""
    clearance: bool = True
    """Whether neighbours are asked; otherwise every sample is computed at its source."""
    blocks: Annotated[int, Field(ge=0, strict=True)] = 1
    """Number of blocks of a task; 0 for all that are left, which chooses no cuts."""


class PolicySpec(Entry):
    """Parameters of the online policies."""

    ring: tuple[str, ...] | None = None
    """Order of the workers for ``mdi``, ``ar-mdi`` and ``ms-mdi``; by default that of ``workers:``."""
    neighbours: dict[str, tuple[str, ...]] | None = None
    """Workers to which each worker may hand over work under ``pa-mdi``; by default all that one hop reaches."""
    reservoir_limit: int = Field(default=2, ge=1, strict=True)
    """Under ``ms-mdi``, a queue at a source takes samples from the reservoir while it is shorter than this."""
    literal: bool = False
    """Whether ``ms-mdi`` follows equation (2) of its paper as printed, which can leave workers idle."""
    order: ServiceOrder = "value"
    """How workers serve samples that have deadlines under ``planned`` and ``adaptive``. ``priority``: the highest
    priority first, then the least slack; ``slack``: the least slack first; ``value``: the earliest due first, without
    the samples that are worth least where not all can be in time. Where a source has ``miss_at_most`` or
    ``percentile``, ``planned`` serves by ``priority`` in any case, since a plan holds these limits for that order."""
    admission: bool = True
    """Whether ``adaptive``, and ``planned`` where it serves by priority, refuse a sample at its source when it is
    expected to be late on every route, or to cost others more than it is worth; only where its source says
    ``late: drop``."""
    adaptive: AdaptiveParameters = AdaptiveParameters()
    """Constants of ``adaptive`` for the goals ``delay`` and ``throughput``."""
    batch: BatchParameters = BatchParameters()
    """Constants of ``adaptive`` for the goal ``makespan``."""
    pace: PaceParameters = PaceParameters()
    """How workers notice that they, or their links, are slower or faster than expected; under every policy."""
    sequences: Literal["cheapest", "stay", "move", "restart"] = "cheapest"
    """What becomes of a sequence whose route a new plan lacks, because a worker has become slow, say. ``stay``: it goes
    on where its state is; ``move``: its state is sent to the workers of the new route; ``restart``: it starts again
    there from its tokens; ``cheapest``: what is expected to take least time. Where a worker has left that has some of
    the state, it starts again."""
    pa_mdi: PaMdiParameters = Field(default=PaMdiParameters(), alias="pa-mdi")
    """Parts of ``pa-mdi``, to leave out in ablation studies."""


class EventSpec(Entry):
    """A change during the run."""

    at_s: Seconds = Field(alias="at")
    """Time since the start of the run."""
    action: Literal["leave", "join", "slow", "recover", "rate", "priority", "bandwidth"]
    """Kind of change."""
    worker: str | None = None
    """Worker that leaves, joins, slows down or recovers."""
    source: str | None = None
    """Source whose rate or priority changes."""
    network: str | None = None
    """Network that fails (``leave``), comes back (``join``), slows down or recovers, or changes its bandwidth."""
    factor: Factor | None = None
    """For ``slow``: factor by which it becomes slower."""
    rate_per_s: PerSecond | None = Field(default=None, alias="rate")
    """For ``rate``: the new arrival rate."""
    priority: Factor | None = None
    """For ``priority``: the new priority."""
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")
    """For ``bandwidth``: the new bandwidth."""


class ScenarioSpec(Entry):
    """Models, workers, networks and sources, and the objective of a plan for them."""

    schema_: Literal["planner/scenario/v1"] = Field(default=SCHEMA, alias="schema")
    """Version of this format."""
    profiles: tuple[str, ...] = Field(default=("../../profiles",), min_length=1)
    """Folders that hold profiles, relative to the scenario file."""
    models: dict[str, ModelSpec] = Field(min_length=1)
    """The models, by name."""
    workers: dict[str, WorkerSpec] = Field(min_length=1)
    """The devices, by name."""
    networks: dict[str, NetworkSpec] = {}
    """The networks that join the workers, by name."""
    sources: dict[str, SourceSpec] = Field(min_length=1)
    """The streams of samples, by name."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """The objective of a plan."""
    policy: PolicySpec = PolicySpec()
    """Parameters of the online policies."""
    events: tuple[EventSpec, ...] = ()
    """Changes during a run, such as workers that leave."""
