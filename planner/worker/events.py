"""Events that a worker takes, effects that it asks its driver for, and messages that workers exchange.

None is ever changed; to freeze them would triple the time to make one, and a run makes millions. All travel as JSON;
the tensors of a sample stay with the driver, which knows them by their :class:`~planner.policy.types.SampleKey`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter

from planner.plan.types import PlanSpec
from planner.policy.types import Decoding, Progress, SampleKey, Status, Task
from planner.trace.records import Origin, SampleRecord

# ---- messages between workers -------------------------------------------------------------------------------------


@dataclass(slots=True)
class TaskMessage:
    """Work to be done; the activations at cut ``task.next_block`` travel with it.

    With ``last_block`` the task was cleared beforehand, and is computed so far without asking the receiver's policy.
    """

    task: Task
    last_block: int | None = None
    kind: Literal["task"] = "task"

    @property
    def key(self) -> SampleKey:
        """The sample, and the attempt at it, that this is about."""
        return self.task.key


@dataclass(slots=True)
class ResultMessage:
    """The result of a sample on its way home; the tensors of its origin, an exit or the output, travel with it."""

    key: SampleKey
    cut: int
    origin: Origin | None = None
    token: bool = False
    """Whether only the chosen token travels, in place of the scores of all."""
    goes_on: bool = False
    """Whether the sender has begun the next run of the sequence."""
    kind: Literal["result"] = "result"


@dataclass(slots=True)
class FailureMessage:
    """A block could not be run, the next worker could not be reached, or the sample was dropped; without tensors."""

    key: SampleKey
    reason: str
    broken: tuple[str, str] | None = None
    """Sender and receiver of the hop at which the sample got stuck: it may take another way."""
    dropped: bool = False
    """Whether the sample was dropped because it is late or waited too long."""
    late_s: float | None = None
    """By how much a dropped sample would have missed its deadline at least, in seconds."""
    kind: Literal["failure"] = "failure"


@dataclass(slots=True)
class RequestMessage:
    """Request to compute (RTC) the task's blocks up to ``last_block``."""

    task: Task
    last_block: int
    kind: Literal["request"] = "request"

    @property
    def key(self) -> SampleKey:
        """The sample, and the attempt at it, that this is about."""
        return self.task.key


@dataclass(slots=True)
class AnswerMessage:
    """Clearance to compute (CTC), with the expected completion in seconds from now, or a refusal (NACK): None."""

    key: SampleKey
    completion_s: float | None
    next_block: int
    """The first block of the request, which tells it from others for the same attempt."""
    kind: Literal["answer"] = "answer"


@dataclass(slots=True)
class StateRequest:
    """Request for the state of a sequence at some blocks, each of which is answered with a :class:`StateMessage`."""

    key: SampleKey
    """The task that waits for it."""
    model: str
    first_block: int
    last_block: int
    sequence: int
    priority: float
    kind: Literal["state_request"] = "state_request"


@dataclass(slots=True)
class StateMessage:
    """The state of a sequence at a block, whose tensors travel with it; none if the sender does not have it."""

    key: SampleKey
    """The task that waits for it."""
    model: str
    block: int
    sequence: int
    kind: Literal["state"] = "state"


@dataclass(slots=True)
class ForgetMessage:
    """A sequence has ended: its state is needed no more, here and where its tasks were sent."""

    source: str
    sequence: int
    kind: Literal["forget"] = "forget"


@dataclass(slots=True)
class StatusMessage:
    """The status that a worker tells others."""

    status: Status
    kind: Literal["status"] = "status"


Parcel: TypeAlias = TaskMessage | ResultMessage | FailureMessage | StateMessage
"""Messages about a sample, which have its priority."""

Note: TypeAlias = RequestMessage | AnswerMessage | StateRequest | ForgetMessage | StatusMessage
"""Messages without tensors by which workers coordinate; sent ahead of all data."""

Message: TypeAlias = Annotated[Parcel | Note, Field(discriminator="kind")]


Purpose: TypeAlias = Literal["route", "result", "answers", "window", "reservation", "latest", "batch", "state"]


class Timer(NamedTuple):
    """Purpose of a timer.

    It is a sample's route, its result, answers to a request, the end of a window, a reservation, the latest time at
    which a waiting sample may go on, the end of the time that it waits for a larger batch, or the state of its
    sequence.
    """

    purpose: Purpose
    key: SampleKey


# ---- events -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Arrived:
    """A new sample arrived at this worker, the home of ``source``."""

    source: str
    sample: int
    priority: float | None = None
    """Its priority; None for that of its source."""
    within_s: float | None = None
    """Time from now after which no block of it is started, in seconds; None without such a limit."""
    sequence: int | None = None
    """Number of the sequence that it continues, if its model keeps state."""
    decoding: Decoding | None = None
    """How the worker of the last block chooses the token after it; None where all outputs are needed."""
    progress: Progress | None = None
    """How far that sequence is; None if that is not known."""
    kind: Literal["arrived"] = "arrived"


@dataclass(slots=True)
class Received:
    """A message came, with its tensors."""

    sender: str
    message: Message
    kind: Literal["received"] = "received"


@dataclass(slots=True)
class BlockEnded:
    """The session that this worker was running has ended; ``block`` is its last block."""

    key: SampleKey
    block: int
    service_s: float
    """Computation time, in seconds."""
    confidence: tuple[float, ...] = ()
    """How sure the model is of its answer at each exit that the block computes, in [0, 1]."""
    before_s: tuple[float, ...] = ()
    """Computation times of the sessions before it, after which none was asked for, in order, in seconds."""
    token: int | None = None
    """The token that the last block gives where a sequence is decoded; None in simulations, which know none."""
    kind: Literal["block_ended"] = "block_ended"


@dataclass(slots=True)
class BlockFailed:
    """A block of the session that this worker was running, or one that was run after it without asking, has failed."""

    key: SampleKey
    block: int
    reason: str
    kind: Literal["block_failed"] = "block_failed"


@dataclass(slots=True)
class TimedOut:
    """The time set by :class:`SetTimer` has come."""

    timer: Timer
    kind: Literal["timed_out"] = "timed_out"


@dataclass(slots=True)
class Transferred:
    """A transfer to another worker, over an idle path, took ``took_s`` seconds beyond its latency."""

    to: str
    size_bytes: int
    took_s: float
    kind: Literal["transferred"] = "transferred"


@dataclass(slots=True)
class Left:
    """Another worker has left."""

    worker: str
    kind: Literal["left"] = "left"


@dataclass(slots=True)
class Joined:
    """Another worker has joined, or joined again."""

    worker: str
    kind: Literal["joined"] = "joined"


@dataclass(slots=True)
class Replanned:
    """Another plan applies from now on; samples in flight keep their routes."""

    plan: PlanSpec
    slowness: dict[str, float] = field(default_factory=dict)
    """How many times slower than profiled each slow worker is, by which the plan was made."""
    kind: Literal["replanned"] = "replanned"


@dataclass(slots=True)
class SequenceEnded:
    """A sequence of this worker's own has ended, or starts again under another number."""

    source: str
    sequence: int
    kind: Literal["sequence_ended"] = "sequence_ended"


@dataclass(slots=True)
class Reprioritised:
    """A source has another priority from now on; samples in flight keep theirs."""

    source: str
    priority: float
    kind: Literal["reprioritised"] = "reprioritised"


Event: TypeAlias = (
    Arrived
    | Received
    | BlockEnded
    | BlockFailed
    | TimedOut
    | Transferred
    | Left
    | Joined
    | Replanned
    | SequenceEnded
    | Reprioritised
)

# ---- effects ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RunBlock:
    """Run a block, or blocks that are joined to one session, then report :class:`BlockEnded` or :class:`BlockFailed`.

    One at a time. As long as there is nothing else to report, the sessions up to ``last_block`` may be run as well
    before that.
    """

    key: SampleKey
    model: str
    block: int
    begins_stage: bool
    operating_point: int = 0
    last_block: int | None = None
    """None: only ``block``."""
    sessions: tuple[int, ...] = ()
    """Last block of each of these sessions, the last one ``last_block``; empty if each block has its own."""
    others: tuple[SampleKey, ...] = ()
    """Samples that run with this one as one batch."""
    decoding: Decoding | None = None
    """How the token is chosen when the last block of the model has been run; None where outputs are needed."""
    kind: Literal["run_block"] = "run_block"

    @property
    def keys(self) -> tuple[SampleKey, ...]:
        """All samples of the batch."""
        return self.key, *self.others

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last block of each session that may be run, the first of which has to be."""
        ends = self.sessions or range(self.block, (self.block if self.last_block is None else self.last_block) + 1)
        return tuple(zip((self.block, *(end + 1 for end in ends)), ends, strict=False))

    @property
    def session_end(self) -> int:
        """Last block of the first session."""
        return self.sessions[0] if self.sessions else self.block


@dataclass(slots=True)
class Send:
    """Send a message with the tensors of ``cut``, ``size_bytes`` in all; higher priorities go first."""

    to: str
    message: Annotated[Parcel, Field(discriminator="kind")]
    cut: int
    size_bytes: int
    priority: float
    kind: Literal["send"] = "send"


@dataclass(slots=True)
class Tell:
    """Send a note, ahead of all data."""

    to: str
    message: Annotated[Note, Field(discriminator="kind")]
    kind: Literal["tell"] = "tell"


@dataclass(slots=True)
class SetTimer:
    """Report :class:`TimedOut` at ``at_s``."""

    timer: Timer
    at_s: float
    kind: Literal["set_timer"] = "set_timer"


@dataclass(slots=True)
class Complete:
    """The result of a sample is back at its source."""

    key: SampleKey
    created_s: float
    origin: Origin | None = None
    goes_on: bool = False
    """Whether the next run of its sequence is under way, begun by the worker of the last block."""
    kind: Literal["complete"] = "complete"


@dataclass(slots=True)
class Fail:
    """A sample is given up; ``dropped`` and ``late_s`` as in :class:`FailureMessage`."""

    key: SampleKey
    created_s: float
    reason: str
    dropped: bool = False
    late_s: float | None = None
    kind: Literal["fail"] = "fail"


@dataclass(slots=True)
class Discard:
    """Drop the tensors of an attempt on this worker, which needs them no more; a source keeps its own inputs."""

    key: SampleKey
    kind: Literal["discard"] = "discard"


@dataclass(slots=True)
class Forget:
    """Drop the state of a sequence at the blocks of this worker."""

    sequence: int
    kind: Literal["forget"] = "forget"


@dataclass(slots=True)
class FeedBack:
    """Make the input of a sequence's next run from the token that its last one gave here."""

    key: SampleKey
    """The next run."""
    of: SampleKey
    """The run that gave the token, whose tensors are here."""
    model: str
    sequence: int
    decoding: Decoding
    """That of the next run."""
    kind: Literal["feed_back"] = "feed_back"


Effect: TypeAlias = RunBlock | Send | Tell | SetTimer | Complete | Fail | Discard | Forget | FeedBack


@dataclass(slots=True)
class StepOutput:
    """The effects of a worker's current step, which all of its parts add to, in order."""

    effects: list[Effect]


@dataclass(slots=True)
class Step:
    """One step of a worker: the event, its time and the effects. A log of steps can be replayed."""

    now_s: float
    event: Annotated[Event, Field(discriminator="kind")]
    effects: list[Annotated[Effect, Field(discriminator="kind")]]


STEPS: TypeAdapter[list[Step]] = TypeAdapter(list[Step], config=ConfigDict(defer_build=True))


def sample_record(effect: Complete | Fail, now_s: float) -> SampleRecord:
    """Return the record of a sample that ended at ``now_s``."""
    source, sample, _ = effect.key
    if isinstance(effect, Complete):
        return SampleRecord(source, sample, effect.created_s, now_s, "completed", origin=effect.origin)
    status: Literal["failed", "dropped"] = "dropped" if effect.dropped else "failed"
    return SampleRecord(source, sample, effect.created_s, now_s, status, effect.reason, late_s=effect.late_s)
