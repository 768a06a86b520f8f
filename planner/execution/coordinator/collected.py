"""Data of a run that the coordinator collects from agents: records, step logs and outputs.

Logs stay compressed in temporary files, so that memory does not grow with the length of a run.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from planner.errors import ExecuteError
from planner.execution.wire.frames import Tensors
from planner.trace.records import Record
from planner.trace.store import RecordStore, Spool, unpack
from planner.worker.events import STEPS, Step

_OBJECTS: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])


def keep_records(tensors: Tensors, store: RecordStore, check: Callable[[Sequence[Record]], None]) -> None:
    """Add the records in a log message, if it has any, to a store.

    Raises
    ------
    ExecuteError
        If the data is malformed, or ``check`` refuses the records.
    """
    if "records" not in tensors:
        return
    try:
        store.add_packed(tensors["records"].tobytes(), check)
    except (zlib.error, ValidationError) as error:
        raise _malformed("records", error) from error


def _malformed(what: str, error: Exception) -> ExecuteError:
    return ExecuteError(f"malformed {what}", where="log", value=str(error).partition("\n")[0])


class StepLogs(Mapping[str, list[Step]]):
    """Log of the steps of each worker since it last joined the run; a log is decoded each time it is accessed."""

    def __init__(self) -> None:
        self._logs: dict[str, Spool] = {}

    def add(self, worker: str, tensors: Tensors) -> None:
        """Append the steps in a log message, if it has any.

        Raises
        ------
        ExecuteError
            If the data is not a list of JSON objects. Their contents are validated on access, since that takes longer.
        """
        if "steps" not in tensors:
            return
        piece = tensors["steps"].tobytes()
        try:
            _OBJECTS.validate_json(unpack(piece))
        except (zlib.error, ValidationError) as error:
            raise _malformed("steps", error) from error
        self._logs[worker].add(piece)

    def begin(self, worker: str) -> None:
        """Begin the log of an agent; it replaces the log of an earlier agent of that name."""
        self._logs[worker] = Spool()

    def write(self, worker: str, file: BinaryIO) -> None:
        """Write a worker's log as one JSON array, piece by piece."""
        separator = b"["
        for piece in self._logs[worker]:
            file.write(separator + unpack(piece)[1:-1])
            separator = b",\n"
        file.write(b"]" if separator != b"[" else b"[]")

    def __getitem__(self, worker: str) -> list[Step]:
        return [step for piece in self._logs[worker] for step in STEPS.validate_json(unpack(piece))]

    def __contains__(self, worker: object) -> bool:
        return worker in self._logs

    def __iter__(self) -> Iterator[str]:
        return iter(self._logs)

    def __len__(self) -> int:
        return len(self._logs)


class Outputs(Mapping[tuple[str, int], Tensors]):
    """Outputs of each completed sample by source and number; equal outputs are stored once, at 8 bytes a sample."""

    def __init__(self) -> None:
        self._distinct: list[Tensors] = []
        self._indices: dict[str, array[int]] = {}

    def add(self, source: str, samples: Iterable[int], tensors: Tensors) -> None:
        """Add samples that have the same outputs."""
        indices = self._indices.setdefault(source, array("q"))
        for sample in samples:
            if sample >= len(indices):
                indices.extend([-1] * (sample + 1 - len(indices)))
            indices[sample] = len(self._distinct)
        self._distinct.append(tensors)

    def __getitem__(self, key: tuple[str, int]) -> Tensors:
        source, sample = key
        indices = self._indices.get(source, ())
        if not 0 <= sample < len(indices) or indices[sample] < 0:
            raise KeyError(key)
        return self._distinct[indices[sample]]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for source, indices in self._indices.items():
            yield from ((source, sample) for sample, index in enumerate(indices) if index >= 0)

    def __len__(self) -> int:
        return sum(index >= 0 for indices in self._indices.values() for index in indices)
