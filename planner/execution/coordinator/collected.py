"""What agents told of a run, as the coordinator keeps it: records, logs of steps, outputs.

The logs stay compressed JSON, in temporary files, so memory stays flat however long a run is.
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
    """Add the records that :meth:`EventLog.take` gave to others.

    Raises
    ------
    ExecuteError
        They are none, or ``check`` refuses them.
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
    """Each worker's log of steps since it joined the run last; it is read when it is asked for."""

    def __init__(self) -> None:
        self._logs: dict[str, Spool] = {}

    def add(self, worker: str, tensors: Tensors) -> None:
        """Append what :meth:`EventLog.take` gave.

        Raises
        ------
        ExecuteError
            It is no list of JSON objects. What they say is looked at when they are asked for: that takes longer.
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
        """Begin the log of an agent, in place of that of one which had its name."""
        self._logs[worker] = Spool()

    def write(self, worker: str, file: BinaryIO) -> None:
        """Write a worker's log as one JSON array, without having all of it in memory."""
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
    """What each completed sample gave, by source and number: distinct outputs, and a few bytes a sample."""

    def __init__(self) -> None:
        self._distinct: list[Tensors] = []
        self._places: dict[str, array[int]] = {}

    def add(self, source: str, samples: Iterable[int], tensors: Tensors) -> None:
        """Add samples that gave the same."""
        places = self._places.setdefault(source, array("q"))
        for sample in samples:
            if sample >= len(places):
                places.extend([-1] * (sample + 1 - len(places)))
            places[sample] = len(self._distinct)
        self._distinct.append(tensors)

    def __getitem__(self, key: tuple[str, int]) -> Tensors:
        source, sample = key
        places = self._places.get(source, ())
        if not 0 <= sample < len(places) or places[sample] < 0:
            raise KeyError(key)
        return self._distinct[places[sample]]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for source, places in self._places.items():
            yield from ((source, sample) for sample, place in enumerate(places) if place >= 0)

    def __len__(self) -> int:
        return sum(place >= 0 for places in self._places.values() for place in places)
