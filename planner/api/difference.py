"""How one plan differs from another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from planner.api.plan import Plan, plan_of
from planner.files import StrPath
from planner.plan.difference import PlanDifference, SourceDifference, WorkerDifference, plan_difference
from planner.tables import Printable, Table


class Difference(Printable):
    """How one plan differs from another; it is true if they differ.

    Made by :func:`planner.difference` and :meth:`planner.Session.apply`.
    """

    def __init__(self, spec: PlanDifference) -> None:
        self.spec = spec
        """The values."""

    def __bool__(self) -> bool:
        return not self.spec.same

    @property
    def sources(self) -> dict[str, SourceDifference]:
        """What became of each source of either plan."""
        return self.spec.sources

    @property
    def workers(self) -> dict[str, WorkerDifference]:
        """What became of each worker of either plan."""
        return self.spec.workers

    def contents(self) -> Iterable[Table | str]:
        """Return one line per source or worker that differs."""
        return self.spec.lines()

    def to_dict(self) -> dict[str, Any]:
        """Return the values, and the lines in words as ``lines``."""
        return {**self.spec.model_dump(mode="json"), "lines": self.spec.lines()}

    def __repr__(self) -> str:
        return f"<Difference: {'; '.join(self.spec.lines())}>"


def difference(old: Plan | StrPath, new: Plan | StrPath) -> Difference:
    """Return how a new plan differs from an old one: sources and workers that came or went, routes that moved.

    Parameters
    ----------
    old, new
        The plans, or their files; each may be for a scenario of its own.

    Raises
    ------
    PlanError
        If one is no plan, or does not fit its scenario.
    """
    before, after = plan_of(old), plan_of(new)
    return Difference(plan_difference(before.scenario.instance, before.spec, after.scenario.instance, after.spec))
