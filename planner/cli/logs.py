"""Log of a long-running command on stderr, one line per event."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import Final

from planner.errors import UsageError, explain

LEVELS: Final = ("debug", "info", "warning", "error")
"""Log levels, from most to least detailed."""


class _LineFormatter(logging.Formatter):
    """Formats the time with its zone, the level and the message, with an exception's type, message and causes.

    Unprintable characters are escaped, so that no message from another member can forge a line or control a terminal.

    Parameters
    ----------
    tracebacks
        Whether to add the tracebacks of exceptions.
    """

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if error is None else f"{record.getMessage()}: {explain(error)}"
        printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        line = f"{time} {record.levelname.lower():7} {printable}"
        if self._tracebacks and record.exc_info:
            return f"{line}\n{self.formatException(record.exc_info)}"
        return line


def log_to_stderr(level: str) -> None:
    """Log planner's messages from a level on, and the warnings of other libraries, on stderr.

    Raises
    ------
    UsageError
        If there is no such level.
    """
    if level not in LEVELS:
        raise UsageError("no such level", where="--log-level", value=level, expected=" | ".join(LEVELS))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(tracebacks=level == LEVELS[0]))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("planner").setLevel(level.upper())
