"""What a worker asks a policy, and what the policy may answer.

A sample is a chain of tasks; a task is the blocks that one worker is given to run. A policy decides and does nothing
else: it has no clock, no I/O and no randomness of its own, so the simulator and the agents run the very same object.
Each worker has a policy object of its own, which may remember what it saw; what it knows of other workers came in
messages. A policy reads the worker's state through a :class:`View` and cannot change it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, Protocol, TypeAlias

from planner.plan.types import PlanSpec, Route, Stage
from planner.policy.costs import CostTable
from planner.scenario.instance import Instance


class SampleKey(NamedTuple):
    """One attempt at one sample; every re-send is an attempt of its own, so duplicates are told apart."""

    source: str
    sample: int
    attempt: int


class Progress(NamedTuple):
    """How far a sequence is when one of its runs begins.

    Parameters
    ----------
    past
        Tokens of the runs before, whose state the workers on its route have.
    new
        Tokens of this run.
    left
        Largest number of runs after it; all but those of its prompt have one token.
    """

    past: int
    new: int
    left: int

    @property
    def context(self) -> int:
        """Number of tokens whose state there is after this run."""
        return self.past + self.new

    def after(self) -> Progress:
        """Return that of the step after this run."""
        return Progress(self.context, 1, max(self.left - 1, 0))


RUN_STRIDE: Final = 2**32
"""Difference between the numbers of successive runs of a sequence; samples of a scenario or program count from 0."""


class Decoding(NamedTuple):
    """How the token after a run of a sequence is chosen, by the worker of the last block.

    Parameters
    ----------
    number
        Number of that token in its sequence; each has a draw of its own.
    runs
        Number of the runs whose state the run continues.
    context
        Tokens of the sequence, those of the run included.
    left
        Largest number of further runs that may follow without the sequence's program: those of one token each.
    temperature, seed
        As for :func:`~planner.model.tokens.choose`.
    stop
        Tokens after which no run follows.
    """

    number: int
    runs: int
    context: int
    left: int = 0
    temperature: float = 0.0
    seed: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()

    def after(self) -> Decoding:
        """Return that of the next run, which takes the token."""
        number, runs, context, left, temperature, seed, stop = self
        return Decoding(number + 1, runs + 1, context + 1, left - 1, temperature, seed, stop)

    def ends(self, token: int | None) -> bool:
        """Return whether no run follows the token; None for one that is not known, in simulations."""
        return self.left <= 0 or token in self.stop


@dataclass(slots=True)
class Task:
    """The work left for one attempt at a sample; never changed (to freeze it would triple the time to make one).

    Parameters
    ----------
    created_s
        When the sample arrived, by its source's clock; says which of two samples is older.
    next_block
        The block to run next; L when only the result is left.
    stages
        The stages ahead, the current one first; empty under a policy that decides from worker to worker.
    latest_s
        Time of the run's clock after which none of its blocks is started; None without such a limit.
    sequence
        Number of the sequence that it continues, whose state is where its earlier runs were; None for other samples.
    decoding
        How the token after it is chosen, which alone goes home; None for what gives outputs.
    again
        The stages of the next run of its sequence, which the worker of the last block begins; empty if home does that.
    state_at
        Stages of another route that have the state of its sequence, if it is to be fetched from there.
    """

    key: SampleKey
    model: str
    operating_point: int
    priority: float
    created_s: float
    next_block: int
    stages: tuple[Stage, ...]
    latest_s: float | None = None
    sequence: int | None = None
    decoding: Decoding | None = None
    again: tuple[Stage, ...] = ()
    state_at: tuple[Stage, ...] = ()

    @property
    def joined(self) -> Stage | None:
        """Its current stage if the plan joins blocks there; None in most runs, which have millions of blocks."""
        return self.stages[0] if self.stages and self.stages[0].sessions else None

    def at(self, next_block: int, stages: tuple[Stage, ...]) -> Task:
        """Return the task with less work left; spelt out, since ``replace`` takes several times as long."""
        return Task(
            self.key,
            self.model,
            self.operating_point,
            self.priority,
            self.created_s,
            next_block,
            stages,
            self.latest_s,
            self.sequence,
            self.decoding,
            self.again,
            self.state_at,
        )

    def next_run(self, now_s: float) -> Task:
        """Return the task of the next run of its sequence, which the worker of the last block begins."""
        decoding = None if self.decoding is None else self.decoding.after()
        key = SampleKey(self.key.source, self.key.sample + RUN_STRIDE, 0)
        return replace(self, key=key, created_s=now_s, next_block=0, stages=self.again, decoding=decoding, state_at=())


@dataclass(slots=True)
class Waiting:
    """A task to be computed on this worker, and how far it is; its worker changes it, policies only read it.

    Parameters
    ----------
    task
        The task as it came; its next block is the first to be computed here.
    next_block, last_block
        The blocks left to compute, both inclusive.
    since_s
        When the task joined its queue.
    place
        Its position in the queue: its rank, then the number of its first arrival, so that it keeps its position when
        it comes back.
    service_s
        Computation time it has had so far, in seconds.
    latest_s
        Latest time at which its next block may start; after that it is dropped. Infinite for most sources.
    unasked
        Last block that its driver may run without asking, while it runs.
    others
        Those that run with it as one batch, while it runs; all have the same blocks left.
    alone
        Whether it runs in no batch, since one failed.
    joined
        The task's :attr:`Task.joined`, which is asked for often.
    """

    task: Task
    next_block: int
    last_block: int
    since_s: float
    place: tuple[float, int]
    service_s: float = 0.0
    latest_s: float = inf
    unasked: int = -1
    others: tuple[Waiting, ...] = ()
    alone: bool = False
    joined: Stage | None = None

    @property
    def batch(self) -> tuple[Waiting, ...]:
        """The tasks that run as one batch, this one first."""
        return self, *self.others

    @property
    def begun(self) -> bool:
        """Whether some of it was computed here."""
        return self.next_block != self.task.next_block

    @property
    def session_end(self) -> int:
        """The last block of the session that its next block begins: no other work is looked at before that ends."""
        stage = self.joined
        if stage is None:
            return self.next_block
        end = stage.session_end(self.next_block)
        return end if end <= self.last_block else self.next_block

    @property
    def session_ends(self) -> Sequence[int]:
        """Last block of each session that its driver may run before it reports."""
        if self.joined is None:
            return range(self.next_block, self.unasked + 1)
        ends, at = [], replace(self)
        while at.next_block <= self.unasked:
            ends.append(at.session_end)
            at.next_block = at.session_end + 1
        return ends


class Booking(NamedTuple):
    """Work that comes to a worker or a network, and when, in seconds."""

    arrives_s: float
    priority: float
    work_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker tells others about itself, as its policy sees fit.

    Parameters
    ----------
    at_s
        When this was so, by the run's clock of the worker that tells it.
    backlog_s
        Computation that waits at the worker, in seconds, by priority.
    running_s
        What is left of the running block, in seconds.
    queued
        Number of waiting tasks, by queue.
    per_parameter_s
        Moving average of computation per parameter, in seconds, by source: γ of AR-MDI.
    slowness
        How many times slower than profiled this worker is at the moment; added by the worker itself.
    links
        How many times slower than in the scenario its links are, by receiver, where known; added likewise.
    waiting
        Number of waiting tasks, by priority.
    booked
        What the samples started here since the last status will ask of which network, by its name, or worker, by that
        of :func:`resource_of`.
    """

    at_s: float = field(default=0.0, compare=False)
    backlog_s: tuple[tuple[float, float], ...] = ()
    running_s: float = 0.0
    queued: tuple[tuple[str, int], ...] = ()
    per_parameter_s: tuple[tuple[str, float], ...] = ()
    slowness: float = 1.0
    links: tuple[tuple[str, float], ...] = ()
    waiting: tuple[tuple[float, int], ...] = ()
    booked: tuple[tuple[str, Booking], ...] = ()


def resource_of(worker: str) -> str:
    """Return the name of a worker among what samples ask of, which no network has."""
    return f"@{worker}"


@dataclass(slots=True)
class WorkerState:
    """What a worker knows. The worker alone changes it; its policy reads it as :attr:`view`, which explains the rest.

    Parameters
    ----------
    costs
        Of the instance; here they take :attr:`slowness` into account.
    slowness
        As :attr:`planner.policy.costs.CostTable.slowness`.
    """

    worker: str
    instance: Instance
    costs: CostTable
    now_s: float = 0.0
    running_until_s: float = 0.0
    slowness: dict[str | tuple[str, str], float] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    priorities: dict[str, float] = field(default_factory=dict)
    queued: dict[Hashable, int] = field(default_factory=dict)
    backlog_s: dict[float, float] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    status_numbers: dict[str, int] = field(default_factory=dict)
    cut: dict[tuple[str, str], float] = field(default_factory=dict)
    view: View = field(init=False)
    _heard: int = field(init=False)

    def __post_init__(self) -> None:
        self._heard = 0
        self.costs = self.costs.with_slowness(self.slowness)
        self.view = View(self)

    def hear(self, worker: str, status: Status) -> None:
        """Keep what another worker told."""
        self._heard += 1
        self.statuses[worker] = status
        self.status_numbers[worker] = self._heard

    def forget(self, worker: str) -> None:
        """Drop what a worker told that has left."""
        self.statuses.pop(worker, None)
        self.status_numbers.pop(worker, None)


class View:
    """What a worker knows when it asks its policy; always up to date, and read-only: writing raises an exception.

    Parameters
    ----------
    state
        What is shown; its mappings are shown as they change.
    """

    __slots__ = (
        "_state",
        "backlog_s",
        "costs",
        "cut",
        "in_flight",
        "instance",
        "priorities",
        "queued",
        "status_numbers",
        "statuses",
        "worker",
    )

    _state: WorkerState
    worker: str
    """Name of the worker."""
    instance: Instance
    costs: CostTable
    """What computing and sending is expected to take, by the profiles and by what was measured since."""
    priorities: Mapping[str, float]
    """Current priority of each source."""
    queued: Mapping[Hashable, int]
    """Number of tasks in each non-empty queue; the running task is in none."""
    backlog_s: Mapping[float, float]
    """Computation here that has not begun, in seconds, by priority; of the running task all but the running block."""
    in_flight: Mapping[str, int]
    """Number of samples in flight of each of this worker's own sources."""
    statuses: Mapping[str, Status]
    """The last status of each other worker that told one."""
    status_numbers: Mapping[str, int]
    """Sequence number of each of these; every status that comes has a new one, even if it says nothing new."""
    cut: Mapping[tuple[str, str], float]
    """Until when each hop, by sender and receiver, is avoided that a worker found broken."""

    def __init__(self, state: WorkerState) -> None:
        for name in ("worker", "instance", "costs"):
            object.__setattr__(self, name, getattr(state, name))
        for name in ("priorities", "queued", "backlog_s", "in_flight", "statuses", "status_numbers", "cut"):
            object.__setattr__(self, name, MappingProxyType(getattr(state, name)))
        object.__setattr__(self, "_state", state)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a policy cannot set {name!r}: its view is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a policy cannot delete {name!r}: its view is read-only")

    @property
    def now_s(self) -> float:
        """The current time by the run's clock, in seconds."""
        return self._state.now_s

    @property
    def running_until_s(self) -> float:
        """When the running block is expected to end; in the past when none runs."""
        return self._state.running_until_s

    @property
    def absent(self) -> frozenset[str]:
        """Workers that are known to have left."""
        return self._state.absent

    def ahead_s(self, priority: float) -> float:
        """Return the computation here that is served before a new task of a priority, in seconds."""
        state = self._state
        waiting_s = sum([backlog_s for other, backlog_s in state.backlog_s.items() if other >= priority], 0.0)
        return waiting_s + max(state.running_until_s - state.now_s, 0.0)

    def present(self, workers: Iterable[str]) -> list[str]:
        """Return those of ``workers`` that have not left, in their order."""
        absent = self._state.absent
        return [worker for worker in workers if worker not in absent]

    def broken(self, sender: str, receiver: str) -> tuple[str, str] | None:
        """Return sender and receiver of the first hop at which a transfer would get stuck, as far as is known."""
        state = self._state
        if not state.absent and not state.cut:
            return None
        path = state.instance.path(sender, receiver)
        hops = [(sender, receiver)] if path is None else [(hop.sender, hop.receiver) for hop in path.hops]
        return next(
            (hop for hop in hops if path is None or hop[1] in state.absent or state.cut.get(hop, -inf) > state.now_s),
            None,
        )

    @property
    def impaired(self) -> bool:
        """Whether any worker is known to have left, or any hop to be broken."""
        return bool(self._state.absent or self._state.cut)

    def passable(self, home: str, route: Route) -> bool:
        """Return whether a sample gets along a route and back home, as far as is known."""
        if not self._state.absent and not self._state.cut:
            return True
        transfers = pairwise([home, *(stage.worker for stage in route.stages), home])
        return all(self.broken(sender, receiver) is None for sender, receiver in transfers)


@dataclass(slots=True)
class Compute:
    """Run the task here, up to and including ``last_block``."""

    last_block: int


@dataclass(slots=True)
class Forward:
    """Send the task to another worker; with ``last_block`` it computes so far without asking its own policy."""

    worker: str
    last_block: int | None = None


@dataclass(slots=True)
class Ask:
    """Ask other workers what they could do (request to compute); :meth:`Policy.settle` decides on their offers."""

    workers: tuple[str, ...]
    last_block: int


Decision: TypeAlias = Compute | Forward | Ask


@dataclass(slots=True)
class Refuse:
    """Drop the next sample of a source before it starts, since it would be late by ``late_s`` seconds at least."""

    late_s: float


class Policy(Protocol):
    """The decisions of one worker; :class:`planner.policy.base.BasePolicy` has sensible defaults for most.

    ``batches`` says whether workers run tasks that wait in one queue as one batch, where sources allow it.
    ``looks_between_blocks`` says whether the worker asks :meth:`choose` after every block, or only at the end of a
    task; the running task then stands first in its queue again. ``keeps_order`` says that no choice between tasks
    changes while time passes or a task gets on, so what was chosen is chosen again. ``gossips`` says whether workers
    tell each other their status (:meth:`status`, :meth:`listeners`) when it changes.
    """

    batches: bool
    looks_between_blocks: bool
    keeps_order: bool
    gossips: bool

    def priority(self, view: View, source: str) -> float:
        """Return the priority of the next sample of ``source``, this worker's own."""
        ...

    def route(self, view: View, source: str) -> Route | Refuse | float | None:
        """Return the next sample's route.

        A time leaves the sample in the reservoir until then; None leaves it there until something happens. Only samples
        of a source with ``late: drop`` are refused.
        """
        ...

    def place(self, view: View, task: Task) -> Decision:
        """Decide where the next blocks of a task that is at this worker are run."""
        ...

    def settle(self, view: View, task: Task, ask: Ask, offers: Mapping[str, float]) -> Compute | Forward:
        """Decide after ``ask``, given the expected completion in seconds from now of each worker that agreed."""
        ...

    def queue(self, task: Task) -> Hashable:
        """Return the name of the queue in which a task to be computed here waits."""
        ...

    def rank(self, task: Task) -> float:
        """Return the task's rank in its queue: the least is served first, equals first come, first served.

        It is asked again when a task comes back with blocks left.
        """
        ...

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Choose the queue to serve next, given the first task of each non-empty one, at least one; None to idle."""
        ...

    def ran(self, view: View, done: Waiting) -> None:
        """Record how long a task took to compute."""
        ...

    def replanned(self, view: View, plan: PlanSpec) -> None:
        """Follow another plan from now on; it has no routes of sources whose workers have left."""
        ...

    def status(self, view: View) -> Status:
        """Return what others should know about this worker; called once each time it is told."""
        ...

    def listeners(self, view: View) -> Iterable[str]:
        """Return the workers that should know it."""
        ...

    def heard(self, view: View, status: Status) -> None:
        """Handle a status of another worker; ``view.statuses`` holds the last status of each anyway."""
        ...
