"""The interface of re-planning: what simulation and execution request from a solver, and its answer.

Simulation and execution import no solver. The caller who starts a run passes in the replanner: a function in virtual
time, which stands still during a search, and a :class:`LiveReplanner` in real time, where samples must not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from planner.base import FrozenModel
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance


class Situation(FrozenModel):
    """Which workers are absent, and by what factor others are slower than profiled, sorted by name."""

    absent: frozenset[str] = frozenset()
    slowness: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, absent: Collection[str], slowness: Mapping[str, float]) -> Situation:
        """Return the situation; the slowness of absent workers is ignored."""
        present = sorted((name, factor) for name, factor in slowness.items() if name not in absent)
        return cls(absent=frozenset(absent), slowness=tuple(present))

    @property
    def as_planned(self) -> bool:
        """Whether all workers are present and as fast as profiled."""
        return not self.absent and not self.slowness

    def applied(self, instance: Instance) -> Instance:
        """Return the instance without the absent workers, and with the others as slow as they are."""
        return instance.without_workers(self.absent).slowed(dict(self.slowness))


@dataclass(frozen=True)
class ReplanAnswer:
    """Answer of a solver for a situation.

    Parameters
    ----------
    plan
        None if there is no plan, or if the solver failed.
    failure
        Why the solver failed; empty if it did not.
    """

    situation: Situation
    plan: PlanSpec | None = None
    failure: str = ""


class LiveReplanner(Protocol):
    """Re-plans during a run in real time, one situation at a time."""

    def request(self, situation: Situation) -> None:
        """Request a plan, which replaces a request that has not started; return at once."""
        ...

    def close(self) -> None:
        """End, even during a search; there are no further answers."""
        ...


Replan: TypeAlias = Callable[[Collection[str], Mapping[str, float]], PlanSpec | None]
"""Returns a plan, given the absent workers and the factors by which others are slower; None if there is none."""

MakeReplan: TypeAlias = Callable[[Instance, str, PlanSpec | None], Replan | None]
"""Returns the replanner in virtual time of an instance, a policy and its plan; None if none is needed."""

TakeAnswer: TypeAlias = Callable[[ReplanAnswer], None]
"""Receives an answer; called in any thread, and must return at once."""

StartReplanner: TypeAlias = Callable[[Instance, PlanSpec, TakeAnswer], LiveReplanner]
"""Starts the replanner in real time of an instance and its plan."""
