"""What happened to each sample: the records that simulation and execution both write.

Times are seconds since the start of the run: virtual in simulation, and in execution the time of the worker that wrote
the record. A run is a list of records; its file holds one JSON object a line (:func:`write_records`). Records are never
changed; to freeze them would triple the time it takes to make one.
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


@dataclass(slots=True)
class BlockRecord:
    """A worker ran a block of a sample."""

    worker: str
    source: str
    sample: int
    block: int
    start_s: float
    end_s: float
    kind: Literal["block"] = "block"


@dataclass(slots=True)
class TransferRecord:
    """Something of a sample crossed a network resource; ``cut`` says what: the activations there, or the result."""

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
    """What a result is of.

    Parameters
    ----------
    operating_point
        Index among those of the model.
    exit
        The inner exit whose answer it is; None for the model's output.
    """

    model: str
    operating_point: int = 0
    exit: str | None = None


@dataclass(slots=True)
class SampleRecord:
    """A sample ended, at its source's own clock.

    Parameters
    ----------
    finished_s
        When its result was back, or when it was given up.
    origin
        What its result is of; None for a sample that failed.
    correct
        Whether the result is right; None where that is not known.
    """

    source: str
    sample: int
    created_s: float
    finished_s: float
    status: Literal["completed", "failed"]
    reason: str = ""
    origin: Origin | None = None
    correct: bool | None = None
    kind: Literal["sample"] = "sample"

    @property
    def delay_s(self) -> float:
        """Time from the arrival of the sample to its end, in seconds."""
        return self.finished_s - self.created_s


@dataclass(slots=True)
class Incident:
    """Something that went wrong in a real run, or came right again.

    ``worker`` is the one it is about; empty for the run as a whole.
    """

    at_s: float
    worker: str
    what: str


Record: TypeAlias = BlockRecord | TransferRecord | SampleRecord

_RECORDS: TypeAdapter[list[Record]] = TypeAdapter(list[Annotated[Record, Field(discriminator="kind")]])
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def encode_records(records: Sequence[Record]) -> bytes:
    """Give the records as one JSON array."""
    return _RECORDS.dump_json(list(records))


def decode_records(data: bytes | str) -> list[Record]:
    """Read what :func:`encode_records` wrote."""
    return _RECORDS.validate_json(data)


@contextmanager
def record_file(path: Path) -> Iterator[Callable[[Record], None]]:
    """Give what writes a record to ``path``, one JSON object a line; the file is there at the end."""
    with open_atomic(path) as file:

        def write(record: Record) -> None:
            file.write(_RECORD.dump_json(record))
            file.write(b"\n")

        yield write


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write the records to ``path``, one JSON object a line."""
    with record_file(path) as write:
        for record in records:
            write(record)


def read_records(path: Path) -> list[Record]:
    """Read what :func:`write_records` wrote.

    Raises
    ------
    PlannerError
        The file is missing, or a line is no record.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise PlannerError("cannot read the trace", where=str(path), value=error.strerror) from error
    return [_read_record(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _read_record(line: bytes, where: str) -> Record:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        raise PlannerError(
            "not a trace record",
            where=where,
            value=line[:80].decode(errors="replace"),
            expected="one JSON object with kind block, transfer or sample",
        ) from error
