"""Messages between coordinator, agents and emulated network; :mod:`planner.execution.wire.frames` encodes them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from planner.base import FrozenModel
from planner.execution.wire.diagnostics import (
    About,
    Amount,
    Ask,
    Chunk,
    Count,
    Echo,
    Flood,
    Flooded,
    Holder,
    Holding,
    LinkSpeed,
    Ping,
    Pinged,
    RunTime,
    Share,
    UnixTime,
)
from planner.model.chain import TensorSpec
from planner.plan.types import PlanSpec
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import Message

COORDINATOR: Final = "_coordinator"
"""The member name of the coordinator, which also receives messages for the emulated network; reserved."""

# ---- coordinator to agent -----------------------------------------------------------------------------------------


class DeployedModel(FrozenModel):
    """The cuts of a model, and hash and size of each block's file."""

    cuts: tuple[tuple[TensorSpec, ...], ...]
    block_sha256: tuple[str, ...]
    block_bytes: tuple[Count, ...]
    """Size of each block's file."""

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that this model needs."""
        return max(*self.block_bytes, *(sum(tensor.bytes for tensor in cut) for cut in self.cuts))


class Claim(FrozenModel):
    """Requests an agent, or a share of it, for a coordinator.

    It holds that from then on, until it leaves or another one takes it over.
    """

    kind: Literal["claim"] = "claim"
    run: str
    holder: Holder
    """Who requests it."""
    share: Share | None = None
    """The share that is enough, beside others that hold shares; None to hold the agent alone."""
    take_over: bool = False
    """Whether to take it from coordinators that are in the way."""


class Deploy(FrozenModel):
    """Everything an agent needs to act as one worker of one run; only its holder may send it."""

    kind: Literal["deploy"] = "deploy"
    run: str
    """Identifies the run; messages of other runs are dropped."""
    instance: Instance
    plan: PlanSpec | None
    policy: str
    seed: Annotated[int, Field(ge=0, le=2**128)]
    models: Annotated[dict[str, DeployedModel], Field(min_length=1)]
    resident: dict[str, tuple[Count, ...]]
    """Blocks of each model to load before the run starts; others are loaded on first use."""
    warm_up: tuple[tuple[str, Count], ...] = ()
    """Model and cut of each :class:`WarmUpInput` that is sent, to run the resident blocks after the cut once."""
    paced: bool
    """Whether blocks are slowed down to take the scenario's times."""
    emulated: bool = False
    """Whether a network emulated at the coordinator decides when data arrives (:class:`Transmit`, :class:`Admit`)."""
    threads: Annotated[int, Field(ge=1, le=2**16)] = 1
    sent: tuple[str, ...] = ()
    """Sources whose inputs are sent as :class:`Input` before the start; other inputs are drawn from the seed."""
    prompts: dict[str, Annotated[tuple[tuple[Count, ...], ...], Field(min_length=1)]] = {}
    """Prompts of sources of sequences that have their own, used in turn; others are drawn from the seed."""
    beside: tuple[str, ...] = ()
    """Runs of the same coordinator that go on beside this one, until their samples have ended; others are dropped."""
    live: bool = False
    """Whether samples are sent as :class:`Submit` during the run, and each result is returned with its :class:`Ended`;
    such a run may be endless, so nothing is kept for a report."""

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that this run needs, in bytes, without its header."""
        return max(*(model.largest_bytes for model in self.models.values()), self.largest_state_bytes)

    @property
    def largest_state_bytes(self) -> int:
        """Size of the largest state of a sequence at a block that is sent, by the profiles; others start again."""
        return max((self.instance.largest_state_bytes(model) for model in self.instance.profiles), default=0)


class BlockFile(FrozenModel):
    """A block model requested by :class:`Missing`; its bytes travel as the tensor ``file``."""

    kind: Literal["block_file"] = "block_file"
    run: str
    sha256: str


class Start(FrozenModel):
    """Starts the run: its clock reads 0 at this time of the wall clock (seconds since 1970)."""

    kind: Literal["start"] = "start"
    run: str
    at_unix_s: UnixTime
    """By the receiver's wall clock, since the clocks of edge devices differ."""
    joins: bool = False
    """Whether the run is under way: samples that arrived here before now are lost."""
    absent: tuple[str, ...] = ()
    """Workers that are out of the run."""


class MembershipChange(FrozenModel):
    """A worker joins or leaves the run."""

    kind: Literal["member"] = "member"
    run: str
    worker: str
    present: bool


class Replan(FrozenModel):
    """Replaces the plan."""

    kind: Literal["replan"] = "replan"
    run: str
    plan: PlanSpec
    slowness: dict[str, Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]] = {}
    """How many times slower than profiled each slow worker is, by which the plan was made."""


class Admit(FrozenModel):
    """The time at which the emulated network delivers a transfer, in seconds of the run's clock."""

    kind: Literal["admit"] = "admit"
    run: str
    transfer: str
    at_s: RunTime


class Input(FrozenModel):
    """One input of a source, sent before the run; sample k takes input k modulo their number.

    The tensors of cut 0 travel with it.
    """

    kind: Literal["input"] = "input"
    run: str
    source: str


class WarmUpInput(FrozenModel):
    """Tensors for the warm-up of the blocks after a cut, which travel with it; the blocks before produced them."""

    kind: Literal["warm_up"] = "warm_up"
    run: str
    model: str
    cut: Count


TOKENS: Final = "planner.tokens"
"""Name of a tensor with tokens that were chosen, int64 [tokens]."""

TIMES: Final = "planner.times"
"""Name of a tensor with the time of each, in seconds since the sample arrived, float64 [tokens]."""

MAX_FURTHER: Final = 1024
"""Largest number of further steps of a sample."""


MAX_TOKENS: Final = 2**24
"""Largest number of tokens of a sequence."""

MAX_SEED: Final = 2**128
"""Largest seed of a run, and of a sequence."""


class Further(FrozenModel):
    """Further steps of a sequence after a sample, each with the token that the one before gives.

    The result is the tokens that no :class:`Tokens` has brought before.
    """

    steps: Annotated[int, Field(ge=0, le=MAX_FURTHER)]
    known: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    """Tokens of the sequence, those of the sample included."""
    index: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    """How many tokens the sequence has given before; each has a draw of its own."""
    temperature: Amount = 0.0
    """Temperature of the distribution from which tokens are drawn; 0 for the likeliest."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of the draws."""
    stop: tuple[Count, ...] = ()
    """Tokens after which there is no further step."""


SequenceNumber: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
"""Number of a sequence of a model with state."""

MAX_GIVEN_UP: Final = 256
"""Largest number of sequences that are given up at a time."""


class Submit(FrozenModel):
    """A sample of a live run for its source's worker; the tensors of cut 0 travel with it."""

    kind: Literal["submit"] = "submit"
    run: str
    source: str
    sample: Count
    priority: Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)] | None = None
    """Priority of one of the sources, in place of that of the sample's own."""
    within_s: Amount | None = None
    """Time after its arrival, in seconds, after which no block of it is started; None without such a limit."""
    further: Further | None = None
    """Steps that follow it before its end; None for none, and for all outputs in place of tokens."""
    progress: tuple[Count, Count, Count] | None = None
    """For a run of a sequence: tokens of the runs before, those of this run, and the largest number of runs after."""
    given_up: Annotated[tuple[SequenceNumber, ...], Field(max_length=MAX_GIVEN_UP)] = ()
    """Numbers of sequences of the source that its program will not continue."""


class Stop(FrozenModel):
    """Ends the run and requests the report; drops, without one, a run that has not started."""

    kind: Literal["stop"] = "stop"
    run: str


# ---- agent to coordinator -----------------------------------------------------------------------------------------


class Claimed(FrozenModel):
    """The agent is held by the coordinator that claimed it."""

    kind: Literal["claimed"] = "claimed"
    run: str
    worker: str


class Held(FrozenModel):
    """The agent refuses a claim, because other coordinators hold it."""

    kind: Literal["held"] = "held"
    run: str
    """The run for which it was claimed."""
    worker: str
    holdings: Annotated[tuple[Holding, ...], Field(min_length=1)]
    """Who holds it."""


class Taken(FrozenModel):
    """Another coordinator has taken the agent over from the one that is told."""

    kind: Literal["taken"] = "taken"
    run: str
    """The run for which it was held."""
    worker: str
    by: Holder


class Missing(FrozenModel):
    """Requests a block model that the agent's cache lacks; one at a time."""

    kind: Literal["missing"] = "missing"
    run: str
    worker: str
    sha256: str


class Ready(FrozenModel):
    """The worker has loaded its blocks."""

    kind: Literal["ready"] = "ready"
    run: str
    worker: str
    warm_block_s: dict[str, tuple[Amount, ...]]
    """Shortest time of each block on this host in seconds, by model; 0 for a block that is not resident."""
    provider: str = "cpu"
    """The execution provider that runs the blocks."""


class Ended(FrozenModel):
    """Ends of samples of this worker's sources; in a live run of one sample, whose output tensors travel with it."""

    kind: Literal["ended"] = "ended"
    run: str
    worker: str
    samples: tuple[SampleRecord, ...]


class Tokens(FrozenModel):
    """Tokens of a sample that asked for further steps and goes on; they travel with it, with the time of each."""

    kind: Literal["tokens"] = "tokens"
    run: str
    worker: str
    source: str
    sample: Count


class Load(FrozenModel):
    """The load of a worker, reported about twice a second during a run."""

    kind: Literal["load"] = "load"
    run: str
    worker: str
    at_s: Amount
    """Time of the run's clock."""
    queued: Count
    """Number of waiting tasks, without the running one."""
    busy_s: Amount
    """Computing time since the start, in seconds."""
    blocks: Count = 0
    """Number of blocks computed since the start."""
    carried_s: dict[str, Amount] = {}
    """For each network resource, the time in seconds that inbound data since the start takes at its bandwidth."""
    received_bytes: dict[str, Count] = {}
    """Size of the samples' tensors that have arrived from each worker since the start, without what it passed on."""
    temperature_celsius: Annotated[float, Field(ge=-300, le=1e4, allow_inf_nan=False)] | None = None
    """Highest temperature that the device reports; None where it reports none."""
    power_w: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """Power that the device draws, in watts; None where it reports none."""
    slowness: Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)] = 1.0
    """How many times slower than profiled this worker is at the moment."""
    links: dict[str, LinkSpeed] = {}
    """Speed of the links to other workers, from the run's own data."""


class Log(FrozenModel):
    """What a worker did since its last log; see :class:`~planner.execution.agent.event_log.EventLog`.

    Two tensors travel with it, unless they are empty: ``records``, and ``steps``, the worker's events and effects.
    """

    kind: Literal["log"] = "log"
    run: str
    worker: str


class Output(FrozenModel):
    """The output tensors shared by some completed samples, sent after :class:`Stop`."""

    kind: Literal["output"] = "output"
    run: str
    source: str
    samples: tuple[Count, ...]


class Report(FrozenModel):
    """The totals of a worker; its last message of a run."""

    kind: Literal["report"] = "report"
    run: str
    worker: str
    duplicates: Count
    late_blocks: Count
    """Blocks that took longer on this host than in the scenario."""
    waited_s: Amount = 0.0
    """Time in seconds that the executor's thread was ready to run and got no processor."""


class WorkerFault(FrozenModel):
    """A problem at a worker."""

    kind: Literal["fault"] = "fault"
    worker: str
    what: str
    run: str | None = None
    """The run in which it occurred; None if there is none."""
    dropped: bool = False
    """Whether the worker has dropped that run."""


class Refused(FrozenModel):
    """The agent refused a message of a member, and goes on."""

    kind: Literal["refused"] = "refused"
    worker: str
    sender: str
    what: str
    run: str | None = None
    """The run that the agent is in; None if there is none."""


# ---- agent to agent, and to the emulated network --------------------------------------------------------------------


class Data(FrozenModel):
    """A worker's message to another, with its tensors; ``transfer`` identifies it in the emulated network."""

    kind: Literal["data"] = "data"
    run: str
    sender: str
    message: Message
    cut: Count
    size_bytes: Count
    sent_s: RunTime
    """Time of the run's clock at the sender, or at the worker that forwarded it."""
    transfer: str | None = None
    to: str = ""
    """The recipient, if workers in between forward it."""
    level: int = Field(default=1, ge=1, le=7)
    """Level of urgency for workers that forward it."""


class Transmit(FrozenModel):
    """Requests a transfer from the emulated network, beginning at ``at_s``."""

    kind: Literal["transmit"] = "transmit"
    run: str
    transfer: str
    sender: str
    to: str
    key: SampleKey
    cut: Count
    size_bytes: Count
    priority: Annotated[float, Field(ge=-1e300, le=1e300, allow_inf_nan=False)]
    at_s: RunTime


RunMessage: TypeAlias = (
    BlockFile | Input | WarmUpInput | Start | Submit | Admit | MembershipChange | Replan | Stop | Data
)
"""What one run of an agent receives."""

Command: TypeAlias = (
    Claim
    | Deploy
    | BlockFile
    | Input
    | WarmUpInput
    | Start
    | Submit
    | Admit
    | MembershipChange
    | Replan
    | Stop
    | Ask
    | Flood
    | Ping
)
"""What only the coordinator sends."""

AgentReport: TypeAlias = (
    Claimed
    | Held
    | Taken
    | Missing
    | Ready
    | Ended
    | Tokens
    | Load
    | Log
    | Output
    | Report
    | WorkerFault
    | Refused
    | About
    | Flooded
    | Pinged
    | Transmit
)
"""What only agents send, to the coordinator; ``Transmit`` goes on to the emulated network."""

PeerMessage: TypeAlias = Data | Chunk | Echo
"""What agents send each other; the coordinator exchanges echoes with them, too."""

ToAgent: TypeAlias = Command | PeerMessage | Refused
"""What an agent receives; ``Refused`` is from its own transport."""

ToCoordinator: TypeAlias = AgentReport | Echo
"""What the coordinator receives."""

Body: TypeAlias = Command | AgentReport | PeerMessage
"""Every message."""
