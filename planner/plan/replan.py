"""A new plan while a run is on: what its driver asks of a solver, and what it is told.

Drivers know no solver. Whoever starts a run hands in what solves the plan again: a function in virtual time, where
nothing goes on meanwhile, and a :class:`LiveReplanner` in real time, where samples must not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from planner.base import FrozenModel
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance


class Situation(FrozenModel):
    """Which workers are not there, and by what factor others are slower than by their profiles."""

    absent: frozenset[str] = frozenset()
    slowness: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, absent: Collection[str], slowness: Mapping[str, float]) -> Situation:
        """Give the situation; how slow those were that are not there plays no part."""
        present = sorted((name, factor) for name, factor in slowness.items() if name not in absent)
        return cls(absent=frozenset(absent), slowness=tuple(present))

    @property
    def as_planned(self) -> bool:
        """Whether all workers are there, as fast as by their profiles."""
        return not self.absent and not self.slowness

    def applied(self, instance: Instance) -> Instance:
        """Give what is left of an instance."""
        return instance.without_workers(self.absent).slowed(dict(self.slowness))


@dataclass(frozen=True)
class ReplanAnswer:
    """What a solver found for a situation.

    Parameters
    ----------
    plan
        None where there is none, or where the solver failed.
    failure
        Why the solver failed; empty where it did not.
    """

    situation: Situation
    plan: PlanSpec | None = None
    failure: str = ""


class LiveReplanner(Protocol):
    """Solves again while a run goes on, one situation at a time."""

    def request(self, situation: Situation) -> None:
        """Ask for a plan, in place of what is asked already and has not begun; returns at once."""
        ...

    def close(self) -> None:
        """End, whatever is being solved; nothing is answered any more."""
        ...


Replan: TypeAlias = Callable[[Collection[str], Mapping[str, float]], PlanSpec | None]
"""Gives a plan without some workers, and with some so many times slower; None where there is none."""

MakeReplan: TypeAlias = Callable[[Instance, str, PlanSpec | None], Replan | None]
"""Gives what solves again in virtual time, for an instance, a policy and its plan; None where nothing is."""

TakeAnswer: TypeAlias = Callable[[ReplanAnswer], None]
"""Takes an answer; called in any thread, and must return at once."""

StartReplanner: TypeAlias = Callable[[Instance, PlanSpec, TakeAnswer], LiveReplanner]
"""Starts what solves again in real time, for an instance and its plan."""
