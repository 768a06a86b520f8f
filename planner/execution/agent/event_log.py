"""The log of what a worker does in a run, sent to the coordinator in pieces while the run goes on.

This bounds an agent's memory however long a run is, and preserves what the agent did before it was killed. The log
travels as compressed JSON, which the coordinator keeps as it is in a temporary file.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Data
from planner.policy.types import RUN_STRIDE, SampleKey
from planner.scenario.instance import Hop
from planner.trace.records import BlockRecord, Record, TransferRecord, encode_records
from planner.trace.store import pack
from planner.worker.events import STEPS, Step


class _Output(NamedTuple):
    """The output that one or more samples of a source share."""

    source: str
    samples: array[int]
    tensors: Tensors


class EventLog:
    """What one worker did since the last :meth:`flush`, and totals since the start; a live run has only the totals.

    Distinct outputs are kept until the end of a run, each with the numbers of its samples. With deterministic blocks
    there are as many as distinct inputs.
    """

    def __init__(self, *, live: bool) -> None:
        self._live = live
        if not live:
            STEPS.dump_json([])  # builds the serializer now; during the run, that would delay blocks
        self._records: list[Record] = []
        self._steps: list[Step] = []
        self._outputs: dict[tuple[str, bytes], _Output] = {}
        self.busy_s = 0.0
        """Computing time since the start, in seconds."""
        self.carried_s: dict[str, float] = {}
        """For each network resource, the time in seconds that inbound data since the start takes at its bandwidth."""
        self.received_bytes: dict[str, int] = {}
        """Size of the tensors that have arrived from each worker since the start, in bytes."""
        self.blocks = 0
        """Number of blocks computed since the start."""
        self.late_blocks = 0
        self.duplicates = 0

    def add_block(self, record: BlockRecord, *, late: bool) -> None:
        """Record that a block was run."""
        self.busy_s += record.busy_s
        self.blocks += 1
        self.late_blocks += late
        self.add(record)

    def add_carried(self, hops: Iterable[Hop], size_bytes: int) -> None:
        """Count inbound data for each hop that it took."""
        for hop in hops:
            self.carried_s[hop.resource] = self.carried_s.get(hop.resource, 0.0) + size_bytes / hop.bytes_per_s

    def add_received(self, sender: str, size_bytes: int) -> None:
        """Count inbound data by the worker from which it came."""
        self.received_bytes[sender] = self.received_bytes.get(sender, 0) + size_bytes

    def add_transfer(self, receiver: str, hop: Hop | None, data: Data, key: SampleKey, now_s: float) -> None:
        """Record inbound data about a sample, and count it; it came over ``hop`` where the scenario has one."""
        self.add_carried([hop] if hop is not None else [], data.size_bytes)
        if data.to in {"", receiver}:
            self.add_received(data.sender, data.size_bytes)
        self.add(
            TransferRecord(
                hop.resource if hop else f"{data.sender}>{receiver}",
                hop.sender if hop else data.sender,
                receiver,
                key.source,
                key.sample % RUN_STRIDE,
                data.cut,
                data.size_bytes,
                data.sent_s,
                max(now_s, data.sent_s),  # two clocks, which are compared to within some microseconds
            )
        )

    def add(self, record: Record) -> None:
        """Record a block or a transfer."""
        if not self._live:
            self._records.append(record)

    def add_step(self, step: Step) -> None:
        """Record an event of the worker with its effects."""
        if not self._live:
            self._steps.append(step)

    def add_output(self, source: str, sample: int, tensors: Tensors) -> None:
        """Keep a sample's output until the end, once for all samples with the same output."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(tensor.tobytes())
        entry = (source, digest.digest())
        self._outputs.setdefault(entry, _Output(source, array("Q"), tensors)).samples.append(sample)

    def flush(self) -> Tensors:
        """Return what was recorded since the last flush, as the tensors of a ``log`` message."""
        records, self._records = self._records, []
        steps, self._steps = self._steps, []
        tensors = {}
        if records:
            tensors["records"] = np.frombuffer(pack(encode_records(records)), np.uint8)
        if steps:
            tensors["steps"] = np.frombuffer(pack(STEPS.dump_json(steps)), np.uint8)
        return tensors

    def outputs(self) -> Iterator[_Output]:
        """Yield the distinct outputs."""
        yield from self._outputs.values()
