"""What a worker did in a run: told to the coordinator while the run goes on.

So its memory stays flat however long a run is, and what an agent did before it was killed is known. The log travels as
compressed JSON; the coordinator keeps it so, in a temporary file.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.policy.types import SampleKey
from planner.scenario.instance import Hop
from planner.trace.records import BlockRecord, Record, encode_records
from planner.trace.store import pack
from planner.worker.events import STEPS, Step


class _Output(NamedTuple):
    """What one sample or more of a source gave."""

    source: str
    samples: array[int]
    tensors: Tensors


class EventLog:
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
