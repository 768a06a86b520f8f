"""Records of what happened to each sample, written by both simulation and execution.

Times are in seconds since the start of the run: virtual time in simulation, and the clock of the worker that wrote the
record in execution. A run is a list of records; its file holds one JSON object per line (:func:`write_records`).
Records are never modified. They are not frozen, because that would triple the time to create one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from planner.errors import PlannerError
from planner.files import open_atomic
from planner.formats.json import parse_json
from planner.schemas import first_fault


@dataclass(slots=True)
class BlockRecord:
    """A worker ran a block of a sample, or several that are joined to one session, up to ``last_block``.

    ``batch`` is the number of samples that ran together; each has a record.
    """

    worker: str
    source: str
    sample: int
    block: int
    start_s: float
    end_s: float
    last_block: int | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    kind: Literal["block"] = "block"

    @property
    def busy_s(self) -> float:
        """The part of the worker's time that it counts for, in seconds."""
        return (self.end_s - self.start_s) / self.batch

    @property
    def last(self) -> int:
        """The last block that was run."""
        return self.block if self.last_block is None else self.last_block

    @property
    def blocks(self) -> str:
        """The blocks that were run, in words."""
        return f"block {self.block}" if self.last == self.block else f"blocks {self.block} to {self.last}"


@dataclass(slots=True)
class TransferRecord:
    """Data of a sample crossed a network resource: the activations at ``cut``, or the result.

    Parameters
    ----------
    resource
        A shared medium, or ``network:sender>receiver`` for a direction of a link.
    size_bytes
        Size of the tensors, in bytes.
    """

    resource: str
    sender: str
    receiver: str
    source: str
    sample: int
    cut: int
    size_bytes: int
    start_s: float
    end_s: float
    kind: Literal["transfer"] = "transfer"


@dataclass(slots=True)
class Origin:
    """Model, operating point and exit that produced a result.

    Parameters
    ----------
    operating_point
        Index among the operating points of the model.
    exit
        Inner exit that produced the result; None for the model's output.
    """

    model: str
    operating_point: int = 0
    exit: str | None = None


@dataclass(slots=True)
class SampleRecord:
    """A sample ended, by the clock of its source.

    Parameters
    ----------
    created_s
        Time at which the sample arrived, in seconds.
    finished_s
        Time at which the result arrived or the sample was given up, in seconds.
    reason
        Why it failed; empty if it completed.
    origin
        Origin of the result; None for a failed sample.
    correct
        Whether the result is correct; None if unknown.
    late_s
        For a dropped sample, by how much it would have missed its deadline at least, in seconds; None without one.
    first_s
        For a sequence, time at which its first token was there, in seconds; None without one.
    tokens
        For a sequence, the number of tokens generated.
    """

    source: str
    sample: int
    created_s: float
    finished_s: float
    status: Literal["completed", "failed", "dropped"]
    reason: str = ""
    origin: Origin | None = None
    correct: bool | None = None
    late_s: float | None = None
    first_s: float | None = None
    tokens: int = 0
    kind: Literal["sample"] = "sample"

    @property
    def delay_s(self) -> float:
        """Time from the arrival of the sample to its end, in seconds."""
        return self.finished_s - self.created_s

    @property
    def ttft_s(self) -> float | None:
        """Time from the arrival of a prompt to the first token, in seconds; None for other samples."""
        return None if self.first_s is None else self.first_s - self.created_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first, in seconds; None without one."""
        return None if self.first_s is None or self.tokens < 2 else (self.finished_s - self.first_s) / (self.tokens - 1)


@dataclass(slots=True)
class Incident:
    """A failure in a real run, or the recovery from one.

    ``worker`` is the worker concerned; empty for the run as a whole. ``severity`` is ``info`` for a recovery, and
    ``error`` where the run goes on without a worker.
    """

    at_s: float
    worker: str
    what: str
    severity: Literal["info", "warning", "error"] = "warning"

    def __str__(self) -> str:
        return f"at {self.at_s:.2f} s: {self.worker} {self.what}".replace(":  ", ": ")


Record: TypeAlias = BlockRecord | TransferRecord | SampleRecord

_RECORDS: TypeAdapter[list[Record]] = TypeAdapter(list[Annotated[Record, Field(discriminator="kind")]])
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def encode_records(records: Sequence[Record]) -> bytes:
    """Return the records as a JSON array."""
    return _RECORDS.dump_json(list(records))


def decode_records(data: bytes | str) -> list[Record]:
    """Return the records encoded by :func:`encode_records`."""
    return _RECORDS.validate_json(data)


@contextmanager
def record_file(path: Path) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes a record to ``path`` as a line of JSON; the file appears when the context ends."""
    with open_atomic(path) as file:

        def write(record: Record) -> None:
            file.write(_RECORD.dump_json(record))
            file.write(b"\n")

        yield write


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write the records to ``path``, one JSON object per line."""
    with record_file(path) as write:
        for record in records:
            write(record)


def read_records(path: Path) -> list[Record]:
    """Return the records written by :func:`write_records`.

    Raises
    ------
    PlannerError
        If the file cannot be read, or a line is not a record.
    """
    return list(iter_records(path))


def iter_records(path: Path) -> Iterator[Record]:
    """Yield the records written by :func:`write_records` one at a time; errors are those of :func:`read_records`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _read_record(line.rstrip(b"\r\n"), f"{path}:{number}")
    except OSError as error:
        raise PlannerError("cannot read the trace", where=str(path), value=error.strerror) from error


def _read_record(line: bytes, where: str) -> Record:
    try:
        parse_json(line)
        return _RECORD.validate_json(line, strict=True)
    except ValueError as error:
        reason = first_fault(error) if isinstance(error, ValidationError) else error
        raise PlannerError(
            f"not a trace record ({reason})",
            where=where,
            value=line[:80].decode(errors="replace"),
            expected="one JSON object of kind block, transfer or sample",
        ) from error
