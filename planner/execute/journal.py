"""What a worker did in a run: told to the coordinator while the run goes on.

So its memory stays flat however long a run is, and what an agent did before it was killed is known. The log travels as
compressed JSON; the coordinator keeps it so, in a temporary file.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from planner.errors import ExecuteError
from planner.execute.frames import Tensors
from planner.policy.types import SampleKey
from planner.scenario.instance import Hop
from planner.trace.records import BlockRecord, Record, encode_records
from planner.trace.store import RecordStore, Spool, pack, unpack
from planner.worker.events import STEPS, Step

_OBJECTS: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[dict[str, Any]])


class _Output(NamedTuple):
    """What one sample or more of a source gave."""

    source: str
    samples: array[int]
    tensors: Tensors


class Journal:
    """What one worker did since it last told about it; in a live run it keeps nothing but counts.

    Until the end of a run it keeps distinct outputs, of which there are as many as distinct inputs where a block gives
    the same each time, and the numbers of the samples that gave them.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        if not live:
            STEPS.dump_json([])  # what writes steps is built now: it takes so long that blocks of the run would be late
        self._records: list[Record] = []
        self._steps: list[Step] = []
        self._outputs: dict[tuple[str, bytes], _Output] = {}
        self.busy_s = 0.0
        """Time computed since the start, in seconds."""
        self.carried_s: dict[str, float] = {}
        """Of each network resource, for how long what came since the start fills its bandwidth, in seconds."""
        self.late_blocks = 0
        self.duplicates = 0

    def block(self, record: BlockRecord, *, late: bool) -> None:
        """Take down a block that was run."""
        self.busy_s += record.end_s - record.start_s
        self.late_blocks += late
        self.record(record)

    def carried(self, hops: Iterable[Hop], size_bytes: int) -> None:
        """Take down what came over some hops."""
        for hop in hops:
            self.carried_s[hop.resource] = self.carried_s.get(hop.resource, 0.0) + size_bytes / hop.bytes_per_s

    def record(self, record: Record) -> None:
        """Take down a transfer."""
        if not self._live:
            self._records.append(record)

    def step(self, step: Step) -> None:
        """Take down what the worker took and gave."""
        if not self._live:
            self._steps.append(step)

    def output(self, key: SampleKey, tensors: Tensors) -> None:
        """Keep a sample's output until the end, once for all samples that gave the same."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(tensor.tobytes())
        entry = (key.source, digest.digest())
        self._outputs.setdefault(entry, _Output(key.source, array("Q"), tensors)).samples.append(key.sample)

    def take(self) -> Tensors:
        """Give what was taken down since the last time, as tensors; none where that is nothing."""
        records, self._records = self._records, []
        steps, self._steps = self._steps, []
        found = {}
        if records:
            found["records"] = np.frombuffer(pack(encode_records(records)), np.uint8)
        if steps:
            found["steps"] = np.frombuffer(pack(STEPS.dump_json(steps)), np.uint8)
        return found

    def outputs(self) -> Iterator[_Output]:
        """Give the distinct outputs."""
        yield from self._outputs.values()


def keep_records(tensors: Tensors, store: RecordStore, check: Callable[[Sequence[Record]], None]) -> None:
    """Add the records that :meth:`Journal.take` gave to others.

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
        """Append what :meth:`Journal.take` gave.

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
