"""What a command that runs for long tells on stderr: a line an event."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import Final

from planner.errors import UsageError, explain

LEVELS: Final = ("debug", "info", "warning", "error")
"""How much can be told, from all."""


class _LineFormatter(logging.Formatter):
    """Time with its zone, level and message; of an exception type, message and causes, and if asked for its traceback.

    What does not print is escaped, so that no member's message can make up a line or steer a terminal.
    """

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        error = record.exc_info[1] if record.exc_info else None
        told = record.getMessage() if error is None else f"{record.getMessage()}: {explain(error)}"
        printable = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in told)
        line = f"{time} {record.levelname.lower():7} {printable}"
        if self._tracebacks and record.exc_info:
            return f"{line}\n{self.formatException(record.exc_info)}"
        return line


def log_to_stderr(level: str) -> None:
    """Tell what planner logs, from a level on, and what other libraries warn of.

    Raises
    ------
    UsageError
        There is no such level.
    """
    if level not in LEVELS:
        raise UsageError("no such level", where="--log-level", value=level, expected=" | ".join(LEVELS))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(tracebacks=level == LEVELS[0]))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("planner").setLevel(level.upper())
