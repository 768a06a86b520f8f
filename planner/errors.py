"""Errors that a user can act on.

Every error names what is wrong, where, the value found and what was expected. The command line prints it as one
message and exits with code 2; a library user catches :class:`PlannerError` or the subclass of the area.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a user's input.

    Parameters
    ----------
    what
        What is wrong, as a short sentence without a full stop.
    where
        File, line, field or option.
    value
        The value found, as the user wrote it.
    expected
        What would have been right, with an example where that helps.
    """

    what: str
    where: str | None = None
    value: object = None
    expected: str | None = None

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.value is not None:
            text += f"; found {self.value!r}"
        if self.expected:
            text += f"; expected {self.expected}"
        return text


class PlannerError(Exception):
    """Base of all errors that come from the user's input or environment; carries one or more faults."""

    def __init__(
        self,
        what: str | Iterable[Fault],
        *,
        where: str | None = None,
        value: object = None,
        expected: str | None = None,
    ) -> None:
        self.faults: tuple[Fault, ...] = (
            (Fault(what, where, value, expected),) if isinstance(what, str) else tuple(what)
        )
        super().__init__("\n".join(str(fault) for fault in self.faults))


class UsageError(PlannerError):
    """An option or argument does not fit."""


class UnitError(PlannerError):
    """A quantity could not be read."""


class ModelError(PlannerError):
    """A model file, or a cut of its chain, does not fit."""


class RuntimeSessionError(PlannerError):
    """onnxruntime is absent, or refused a block model or its inputs."""


class ProfileError(PlannerError):
    """A profile is missing, malformed, or belongs to another chain."""


class ScenarioError(PlannerError):
    """A scenario file does not describe a runnable set-up."""


class PlanError(PlannerError):
    """A plan is malformed, or does not fit its scenario."""


class SolveError(PlannerError):
    """A solver is absent, or was asked for what it cannot do."""


class ExecuteError(PlannerError):
    """Agents or their transport could not do what was asked."""
