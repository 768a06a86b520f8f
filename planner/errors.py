"""Errors that a user can act on.

Every error names what is wrong, where, the value found and the value expected. The command line prints it as one
message and exits with code 2. Library users catch :class:`PlannerError` or the subclass of the area.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_MOST_CAUSES: Final = 8
"""How many errors of a chain are told: one may be its own cause."""

_MOST_TEXT: Final = 12_000
"""Number of characters after which further faults of one error are only counted."""

_MOST_CHARACTERS: Final = 240
"""Length to which a value is shortened in a message, which may be a whole file."""


_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, but for the tabulator and the end of a line; also those that turn the direction of text."""


def shortened(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return a text, without its middle if it is long."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]} … {text[-most // 8 :]} ({len(text)} characters)"


def printable(text: str) -> str:
    """Return a text with control characters escaped: what another device sends must not control a terminal."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python limits the digits of an integer
        return "a number of thousands of digits"


@dataclass(frozen=True)
class Fault:
    """One defect in a user's input.

    Parameters
    ----------
    what
        What is wrong: a short sentence without a full stop.
    where
        File, line, field or option.
    value
        The value found, as the user wrote it.
    expected
        What would be valid, with an example where that helps.
    """

    what: str
    where: str | None = None
    value: object = None
    expected: str | None = None

    def __str__(self) -> str:
        what = shortened(self.what, 2 * _MOST_CHARACTERS)
        text = f"{shortened(self.where)}: {what}" if self.where else what
        if self.value is not None:
            text += f"; found {shortened(_shown(self.value))}"
        if self.expected:
            text += f"; expected {shortened(self.expected, 4 * _MOST_CHARACTERS)}"
        return printable(text)


class PlannerError(Exception):
    """Base of all errors caused by the user's input or environment; carries one or more faults."""

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
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return the faults as text, one each; of very many, the first ones and the number of the others."""
        lines: list[str] = []
        for fault in self.faults:
            if sum(map(len, lines)) > _MOST_TEXT:
                return [*lines, f"and {len(self.faults) - len(lines)} more errors"]
            lines.append(str(fault))
        return lines


class PlannerWarning(UserWarning):
    """A result holds, but may not be what the user expects."""


class UsageError(PlannerError):
    """An option or argument is invalid."""


class UnitError(PlannerError):
    """A quantity could not be parsed."""


class ModelError(PlannerError):
    """A model file, or a cut of its chain, is invalid."""


class RuntimeSessionError(PlannerError):
    """onnxruntime is missing, or rejected a block model or its inputs."""


class ProfileError(PlannerError):
    """A profile is missing, malformed, or belongs to another chain."""


class ScenarioError(PlannerError):
    """A scenario file does not describe a runnable setup."""


class PlanError(PlannerError):
    """A plan is malformed or does not match its scenario."""


class SolveError(PlannerError):
    """A solver is missing, or does not support what was requested."""


class InterchangeError(PlannerError):
    """A file of another project is malformed, or one format cannot hold what another says."""


class ExecuteError(PlannerError):
    """Agents or their transport could not carry out a request."""


def explain(error: BaseException) -> str:
    """Return an error and what caused it on one line, each with its type; of a :class:`PlannerError` the message alone.

    A cause whose message the one before repeats is left out.
    """
    told: list[str] = []
    joint, following = "", error
    for _ in range(_MOST_CAUSES):
        message = "; ".join(line.strip() for line in str(following).splitlines() if line.strip())
        kind = "" if isinstance(following, PlannerError) else type(following).__name__
        if not (told and message and message in told[-1]):
            told.append(joint + ": ".join(filter(None, (kind, message))))
        joint, before = ", caused by ", following.__cause__
        if before is None and not following.__suppress_context__:
            joint, before = ", raised while handling ", following.__context__
        if before is None:
            break
        following = before
    return "".join(told)
