"""What a worker asks a policy, and what it may answer.

A sample is a chain of tasks; a task is the blocks it is given to run on one worker. A policy decides three things and
does nothing: the route a new sample starts on (:meth:`Policy.route`), whether a task is computed here or goes on to
another worker (:meth:`Policy.place`), and which of the waiting tasks is served next (:meth:`Policy.choose`). It has no
clock, no I/O and no chance of its own, so the simulator and the agents run the very same object.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from planner.plan.types import Route, Stage
from planner.scenario.instance import Instance


class SampleKey(NamedTuple):
    """One attempt at one sample; every re-send is an attempt of its own, so duplicates are told apart."""

    source: str
    sample: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Task:
    """The work left for one attempt at a sample.

    Parameters
    ----------
    next_block
        The block to run next; L when only the result is left.
    stages
        The stages ahead, the one at hand first.
    """

    key: SampleKey
    model: str
    operating_point: int
    priority: float
    next_block: int
    stages: tuple[Stage, ...]


@dataclass(slots=True)
class View:
    """What a worker knows when it asks; for policies to read, not to change."""

    worker: str
    instance: Instance
    now_s: float = 0.0
    absent: set[str] = field(default_factory=set)
    """Workers that are known to have left."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Run the task here, up to and including ``last_block``."""

    last_block: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the task to another worker."""

    worker: str


Decision: TypeAlias = Compute | Forward


class Policy(Protocol):
    """The decisions of one worker.

    ``looks_between_blocks`` says whether the worker asks :meth:`choose` after every block, or only when a task has
    ended; the task at hand then stands first in its queue again.
    """

    looks_between_blocks: bool

    def route(self, view: View, source: str) -> Route:
        """Give the route of a new sample of ``source``, which arrived at this worker."""
        ...

    def place(self, view: View, task: Task) -> Decision:
        """Say where the next blocks of a task that is at this worker are run."""
        ...

    def queue(self, task: Task) -> Hashable:
        """Name the queue that a task to be computed here waits in; each is served first come, first served."""
        ...

    def choose(self, view: View, heads: Mapping[Hashable, Task]) -> Hashable:
        """Choose the queue to serve next, given the first task of each non-empty one; there is at least one."""
        ...
