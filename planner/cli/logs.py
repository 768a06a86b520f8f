"""Log of a long-running command on stderr, one line per event."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any, Final

from planner.errors import UsageError, explain

LEVELS: Final = ("debug", "info", "warning", "error")
"""Log levels, from most to least detailed."""


FORMATS: Final = ("text", "json")
"""Forms of a line."""

_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else was added where it was logged."""


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


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
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if error is None else f"{record.getMessage()}: {explain(error)}"
        printable = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        line = f"{_time(record)} {record.levelname.lower():7} {printable}"
        if self._tracebacks and record.exc_info:
            return f"{line}\n{self.formatException(record.exc_info)}"
        return line


class _JsonFormatter(logging.Formatter):
    """Formats an event as one JSON object: time, level, logger, message, what was added where it was logged, error.

    Parameters
    ----------
    tracebacks
        Whether to add the tracebacks of exceptions.
    """

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__()
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _FIELDS},
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = explain(record.exc_info[1])
            if self._tracebacks:
                line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(level: str, form: str = FORMATS[0]) -> None:
    """Log planner's messages from a level on, and the warnings of other libraries, on stderr.

    Raises
    ------
    UsageError
        If there is no such level or form.
    """
    if level not in LEVELS:
        raise UsageError("no such level", where="--log-level", value=level, expected=" | ".join(LEVELS))
    if form not in FORMATS:
        raise UsageError("no such form", where="--log-format", value=form, expected=" | ".join(FORMATS))
    handler = logging.StreamHandler(sys.stderr)
    formatter = _LineFormatter if form == FORMATS[0] else _JsonFormatter
    handler.setFormatter(formatter(tracebacks=level == LEVELS[0]))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("planner").setLevel(level.upper())
