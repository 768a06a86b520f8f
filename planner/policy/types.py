"""What a worker asks a policy, and what it may answer.

A sample is a chain of tasks; a task is the blocks it is given to run on one worker. A policy decides and does nothing:
it has no clock, no I/O and no chance of its own, so the simulator and the agents run the very same object. Each worker
has a policy object of its own, which may remember what it saw; what it knows of other workers came by messages.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import NamedTuple, Protocol, TypeAlias

from planner.plan.types import Plan, Route, Stage
from planner.policy.costs import Costs
from planner.scenario.instance import Instance


class SampleKey(NamedTuple):
    """One attempt at one sample; every re-send is an attempt of its own, so duplicates are told apart."""

    source: str
    sample: int
    attempt: int


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
        The stages ahead, the one at hand first; empty under a policy that decides from worker to worker.
    """

    key: SampleKey
    model: str
    operating_point: int
    priority: float
    created_s: float
    next_block: int
    stages: tuple[Stage, ...]

    def at(self, next_block: int, stages: tuple[Stage, ...]) -> Task:
        """Give the task with less work left; spelt out, since ``replace`` takes several times as long."""
        return Task(self.key, self.model, self.operating_point, self.priority, self.created_s, next_block, stages)


@dataclass(slots=True)
class Waiting:
    """A task to be computed here, and how far that is; its worker keeps it, for policies it is to read.

    Parameters
    ----------
    task
        As it came; its next block is the first to be computed here.
    next_block, last_block
        What is left to compute, both inclusive.
    since_s
        When it joined its queue.
    place
        Its place there: its rank, and among equals the number of its first coming, so that it keeps it when it is back.
    service_s
        Time it was computed for so far, in seconds.
    """

    task: Task
    next_block: int
    last_block: int
    since_s: float
    place: tuple[float, int]
    service_s: float = 0.0

    @property
    def begun(self) -> bool:
        """Whether some of it was computed here."""
        return self.next_block != self.task.next_block


class Booking(NamedTuple):
    """Work that comes to a worker or a network, and when, in seconds."""

    arrives_s: float
    priority: float
    work_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker tells others of itself, as its policy sees fit.

    Parameters
    ----------
    at_s
        When this was so, by the run's clock of the worker that tells it.
    backlog_s
        Computation that waits here, in seconds, by priority.
    running_s
        What is left of the block that runs, in seconds.
    queued
        Number of tasks that wait, by queue.
    per_parameter_s
        Moving average of computation per parameter, in seconds, by source: γ of AR-MDI.
    slowness
        How many times longer than by its profile this worker takes at the moment; its worker adds it.
    links
        How many times longer than by the scenario its links take, by receiver, where that is known; added likewise.
    waiting
        Number of tasks that wait, by priority.
    booked
        What the samples that were started here since the last status will ask of which worker or network.
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


@dataclass(slots=True)
class View:
    """What a worker knows when it asks; for policies to read, not to change."""

    worker: str
    instance: Instance
    costs: Costs
    now_s: float = 0.0
    absent: set[str] = field(default_factory=set)
    """Workers that are known to have left."""
    priorities: dict[str, float] = field(default_factory=dict)
    """Of each source, as they are now."""
    queued: dict[Hashable, int] = field(default_factory=dict)
    """Number of tasks in each non-empty queue; the task at hand is in none."""
    backlog_s: dict[float, float] = field(default_factory=dict)
    """Computation here that has not begun, in seconds, by priority; of the task at hand all but the block that runs."""
    running_until_s: float = 0.0
    """When the block that runs is expected to end; in the past when none runs."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """How many samples of each of this worker's own sources are on their way."""
    statuses: dict[str, Status] = field(default_factory=dict)
    """The last status of each other worker that told one."""
    cut: dict[tuple[str, str], float] = field(default_factory=dict)
    """Until when, by sender and receiver, a hop is avoided that a worker found broken."""

    def ahead_s(self, priority: float) -> float:
        """Give the computation here that is served before a new task of a priority, in seconds."""
        waiting_s = sum(backlog_s for other, backlog_s in self.backlog_s.items() if other >= priority)
        return waiting_s + max(self.running_until_s - self.now_s, 0.0)

    def present(self, workers: Iterable[str]) -> list[str]:
        """Give those of ``workers`` that have not left, in their order."""
        return [worker for worker in workers if worker not in self.absent]

    def broken(self, sender: str, receiver: str) -> tuple[str, str] | None:
        """Give sender and receiver of the first hop at which a transfer would get stuck, as far as is known."""
        if not self.absent and not self.cut:
            return None
        path = self.instance.path(sender, receiver)
        hops = [(sender, receiver)] if path is None else [(hop.sender, hop.receiver) for hop in path.hops]
        return next(
            (hop for hop in hops if path is None or hop[1] in self.absent or self.cut.get(hop, -inf) > self.now_s), None
        )

    def passable(self, home: str, route: Route) -> bool:
        """Tell whether a sample gets along a route and back home, as far as is known."""
        if not self.absent and not self.cut:
            return True
        ways = pairwise([home, *(stage.worker for stage in route.stages), home])
        return all(self.broken(sender, receiver) is None for sender, receiver in ways)


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
    """Ask other workers what they could do (request to compute); :meth:`Policy.settle` decides on what they offer."""

    workers: tuple[str, ...]
    last_block: int


Decision: TypeAlias = Compute | Forward | Ask


class Policy(Protocol):
    """The decisions of one worker; :class:`planner.policy.base.BasePolicy` has sensible ones for most.

    ``looks_between_blocks`` says whether the worker asks :meth:`choose` after every block, or only when a task has
    ended; the task at hand then stands first in its queue again. ``gossips`` says whether workers tell each other
    their status (:meth:`status`, :meth:`listeners`) when it changes.
    """

    looks_between_blocks: bool
    gossips: bool

    def priority(self, view: View, source: str) -> float:
        """Give the priority of the next sample of ``source``, this worker's own."""
        ...

    def route(self, view: View, source: str) -> Route | float | None:
        """Give the next sample's route; a time leaves it in the reservoir until then, None until something happens."""
        ...

    def place(self, view: View, task: Task) -> Decision:
        """Say where the next blocks of a task that is at this worker are run."""
        ...

    def settle(self, view: View, task: Task, ask: Ask, offers: Mapping[str, float]) -> Compute | Forward:
        """Decide after ``ask``, given the expected completion in seconds from now of each worker that agreed."""
        ...

    def queue(self, task: Task) -> Hashable:
        """Name the queue that a task to be computed here waits in."""
        ...

    def rank(self, task: Task) -> float:
        """Give the task's place in its queue: the least first, among equals first come, first served."""
        ...

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        """Choose the queue to serve next, given the first task of each non-empty one, at least one; None to idle."""
        ...

    def ran(self, view: View, done: Waiting) -> None:
        """Learn what computing a task took."""
        ...

    def replanned(self, view: View, plan: Plan) -> None:
        """Learn of a plan that replaces the one so far; it has no routes of sources whose workers have left."""
        ...

    def status(self, view: View) -> Status:
        """Give what others should know of this worker; asked once each time it is told."""
        ...

    def listeners(self, view: View) -> Iterable[str]:
        """Name the workers that should know it."""
        ...

    def heard(self, view: View, status: Status) -> None:
        """Learn what another worker tells; ``view.statuses`` has the last status of each by itself."""
        ...
