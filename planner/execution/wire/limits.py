"""Bounds of what one process keeps for other members, whoever they say they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from planner.errors import ExecuteError

_MEMBERS: Final = "PLANNER_MAX_MEMBERS"
_UNFINISHED: Final = "PLANNER_MAX_UNFINISHED_MIB"


@dataclass(frozen=True)
class Limits:
    """Bounds of a process.

    Parameters
    ----------
    members
        Largest number of other members that it knows, and of senders that it listens to.
    unfinished_bytes
        Largest size of all messages together that have arrived in part.
    """

    members: int = 1024
    unfinished_bytes: int = 2 * 2**30

    @classmethod
    def from_environment(cls) -> Limits:
        """Return the bounds that environment variables set.

        Raises
        ------
        ExecuteError
            If one is not a number of 1 or more.
        """
        return cls(
            _read(_MEMBERS, cls.members),
            _read(_UNFINISHED, cls.unfinished_bytes // 2**20) * 2**20,
        )


def _read(variable: str, default: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ExecuteError("not a bound", where=variable, value=text, expected="a whole number of 1 or more")
    return int(text)
