"""Messages between coordinator, agents and network emulator; :mod:`planner.execution.wire.frames` encodes them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from planner.base import FrozenModel
from planner.execution.wire.diagnostics import About, Ask, Chunk, Echo, Flood, Flooded, Ping, Pinged
from planner.model.chain import TensorSpec
from planner.plan.types import PlanSpec
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import Message

COORDINATOR: Final = "_coordinator"
"""The name under which agents reach the coordinator, and the emulated network; no worker can be called so."""

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]

# ---- coordinator to agent -----------------------------------------------------------------------------------------


class DeployedModel(FrozenModel):
    """How a model is cut, and the hash of each block's file."""

    cuts: tuple[tuple[TensorSpec, ...], ...]
    block_sha256: tuple[str, ...]
    block_bytes: tuple[int, ...]
    """Size of each block's file."""

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that this model can need."""
        return max(*self.block_bytes, *(sum(tensor.bytes for tensor in cut) for cut in self.cuts))


class Deploy(FrozenModel):
    """Everything an agent needs to be one worker of one run."""

    kind: Literal["deploy"] = "deploy"
    run: str
    """Names this run; what comes of another one is dropped."""
    instance: Instance
    plan: PlanSpec | None
    policy: str
    seed: int
    models: dict[str, DeployedModel]
    resident: dict[str, tuple[int, ...]]
    """Blocks of each model to be loaded before the run starts; others are loaded when they are first needed."""
    paced: bool
    """Whether blocks take the scenario's times on this host, or their own."""
    emulated: bool = False
    """Whether a network emulated at the coordinator says when data may be let in (:class:`Transmit`)."""
    threads: int = 1
    sent: tuple[str, ...] = ()
    """Sources whose inputs come as :class:`Input` before the start; those of the others are drawn from the seed."""
    live: bool = False
    """Whether samples come as :class:`Submit` while the run goes on, and each result goes back with its
    :class:`Ended`; nothing is kept for a report then, so that a run may last for ever."""

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that this run can need, in bytes; its header is not counted."""
        return max(model.largest_bytes for model in self.models.values())


class BlockFile(FrozenModel):
    """A block model, asked for with :class:`Missing`; its bytes travel as the tensor ``file``."""

    kind: Literal["block_file"] = "block_file"
    sha256: str


class Start(FrozenModel):
    """Begin: the run's clock reads 0 at this time of the wall clock (seconds since 1970)."""

    kind: Literal["start"] = "start"
    at_unix_s: float
    """By the receiver's wall clock: devices at the edge keep no common time."""
    joins: bool = False
    """Whether the run is on already: samples that arrived here before now are lost."""
    absent: tuple[str, ...] = ()
    """Workers that are not in the run."""


class MembershipChange(FrozenModel):
    """A worker is in the run from now on, or no longer."""

    kind: Literal["member"] = "member"
    run: str
    worker: str
    present: bool


class Replan(FrozenModel):
    """The plan is another from now on."""

    kind: Literal["replan"] = "replan"
    run: str
    plan: PlanSpec


class Admit(FrozenModel):
    """The emulated network says when the tensors of a transfer are there, in seconds of the run's clock."""

    kind: Literal["admit"] = "admit"
    run: str
    transfer: str
    at_s: float


class Input(FrozenModel):
    """The input of one sample of a source, sent ahead of the run; sample k takes the k-th of them, then from the first.

    The tensors of cut 0 travel with it.
    """

    kind: Literal["input"] = "input"
    run: str
    source: str


class Submit(FrozenModel):
    """A sample of a live run arrives at its source's worker; the tensors of cut 0 travel with it."""

    kind: Literal["submit"] = "submit"
    run: str
    source: str
    sample: int


class Stop(FrozenModel):
    """The run is over: report."""

    kind: Literal["stop"] = "stop"


# ---- agent to coordinator -----------------------------------------------------------------------------------------


class Missing(FrozenModel):
    """A block model that the agent does not have in its cache; it asks for one after the other."""

    kind: Literal["missing"] = "missing"
    worker: str
    sha256: str


class Ready(FrozenModel):
    """All is loaded."""

    kind: Literal["ready"] = "ready"
    worker: str
    warm_block_s: dict[str, tuple[_Amount, ...]]
    """Shortest time of each block on this host in seconds, by model; 0 for a block that is not resident."""


class Ended(FrozenModel):
    """Samples of this worker's sources ended; in a live run it is one, and its output tensors travel with it."""

    kind: Literal["ended"] = "ended"
    run: str
    worker: str
    samples: tuple[SampleRecord, ...]


class Load(FrozenModel):
    """How busy this worker is, told about twice a second while a run goes on."""

    kind: Literal["load"] = "load"
    run: str
    worker: str
    at_s: _Amount
    """Run's clock."""
    queued: _Count
    """Tasks that wait here, the one that runs not counted."""
    busy_s: _Amount
    """Time computed since the start, in seconds."""
    carried_s: dict[str, _Amount] = {}
    """Of each network resource, for how long what came here since the start fills its bandwidth, in seconds."""
    slowness: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How many times longer than by its profile this worker takes at the moment."""


class Log(FrozenModel):
    """What this worker did since it last told about it; see :class:`~planner.execution.agent.event_log.EventLog`.

    Two tensors travel with it, each where there is something: ``records``, and ``steps``, what its worker took and
    gave.
    """

    kind: Literal["log"] = "log"
    run: str
    worker: str


class Output(FrozenModel):
    """The output tensors of completed samples that gave the same, sent after :class:`Stop`."""

    kind: Literal["output"] = "output"
    source: str
    samples: tuple[int, ...]


class Report(FrozenModel):
    """What counts of this worker; the last thing it says of a run."""

    kind: Literal["report"] = "report"
    worker: str
    duplicates: _Count
    late_blocks: _Count
    """Blocks that took this host longer than the scenario allows."""
    waited_s: _Amount = 0.0
    """Time in seconds that the computing thread stood ready and got no processor."""


class WorkerFault(FrozenModel):
    """Something is wrong at this worker."""

    kind: Literal["fault"] = "fault"
    worker: str
    what: str
    run: str | None = None
    """The run that it cannot go on with; None where it goes on."""


class Refused(FrozenModel):
    """The agent, which goes on, did not take what a member sent."""

    kind: Literal["refused"] = "refused"
    worker: str
    sender: str
    what: str


# ---- agent to agent, and to the emulated network --------------------------------------------------------------------


class Data(FrozenModel):
    """A worker's message; the tensors travel with it. ``transfer`` names it to the emulated network."""

    kind: Literal["data"] = "data"
    run: str
    sender: str
    message: Message
    cut: int
    size_bytes: int
    sent_s: float
    """Run's clock of the sender, or of the worker that sent it on."""
    transfer: str | None = None
    to: str = ""
    """Who it is for, where it goes over several hops and those between send it on."""
    level: int = Field(default=1, ge=1, le=7)
    """Level of urgency for those that send it on."""


class Transmit(FrozenModel):
    """Asks the emulated network to carry a transfer from ``at_s`` on."""

    kind: Literal["transmit"] = "transmit"
    transfer: str
    sender: str
    to: str
    key: SampleKey
    cut: int
    size_bytes: int
    priority: float
    at_s: float


RunMessage: TypeAlias = BlockFile | Input | Start | Submit | Admit | MembershipChange | Replan | Stop | Data
"""What one run of an agent receives."""

Command: TypeAlias = (
    Deploy | BlockFile | Input | Start | Submit | Admit | MembershipChange | Replan | Stop | Ask | Flood | Ping
)
"""What only the coordinator sends."""

AgentReport: TypeAlias = (
    Missing | Ready | Ended | Load | Log | Output | Report | WorkerFault | Refused | About | Flooded | Pinged | Transmit
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
