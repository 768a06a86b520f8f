"""What a worker did in a run: told to the coordinator while the run goes on.

So its memory stays flat however long a run is, and what an agent did before it was killed is known. The log travels as
compressed JSON, a twelfth of its size; the coordinator keeps the steps so, too.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from pydantic import ValidationError

from planner.errors import ExecuteError
from planner.execute.messages import Tensors
from planner.policy.types import SampleKey
from planner.scenario.instance import Hop
from planner.trace.records import BlockRecord, Record, decode_records, encode_records
from planner.worker.events import STEPS, Step

_LEVEL: Final = 1
"""Of compression: the quickest."""


class _Output(NamedTuple):
    """What one sample or more of a source gave."""

    source: str
    samples: list[int]
    tensors: Tensors


class Journal:
    """What one worker did since it last told about it; in a live run it keeps nothing but counts."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
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
        """Take down a transfer or the end of a sample."""
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
        self._outputs.setdefault(entry, _Output(key.source, [], tensors)).samples.append(key.sample)

    def take(self) -> Tensors:
        """Give what was taken down since the last time, as tensors; none where that is nothing."""
        records, self._records = self._records, []
        steps, self._steps = self._steps, []
        found = {}
        if records:
            found["records"] = _packed(encode_records(records))
        if steps:
            found["steps"] = _packed(STEPS.dump_json(steps))
        return found

    def outputs(self) -> Iterator[_Output]:
        """Give the distinct outputs."""
        yield from self._outputs.values()


def _packed(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(zlib.compress(data, _LEVEL), np.uint8)


def read_records(tensors: Tensors) -> list[Record]:
    """Read the records that :meth:`Journal.take` gave.

    Raises
    ------
    ExecuteError
        They are none.
    """
    if "records" not in tensors:
        return []
    try:
        return decode_records(zlib.decompress(tensors["records"].tobytes()))
    except (zlib.error, ValidationError) as error:
        raise ExecuteError("malformed records", where="log", value=str(error).partition("\n")[0]) from error


class StepLogs(Mapping[str, list[Step]]):
    """Each worker's log of steps since it joined the run last; it is kept compressed, and read when it is asked for."""

    def __init__(self) -> None:
        self._logs: dict[str, list[bytes]] = {}

    def add(self, worker: str, tensors: Tensors) -> None:
        """Append what :meth:`Journal.take` gave."""
        if "steps" in tensors:
            self._logs[worker].append(tensors["steps"].tobytes())

    def begin(self, worker: str) -> None:
        """Begin the log of an agent, in place of that of one which had its name."""
        self._logs[worker] = []

    def __getitem__(self, worker: str) -> list[Step]:
        return [step for part in self._logs[worker] for step in STEPS.validate_json(zlib.decompress(part))]

    def __iter__(self) -> Iterator[str]:
        return iter(self._logs)

    def __len__(self) -> int:
        return len(self._logs)
