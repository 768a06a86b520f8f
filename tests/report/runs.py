"""Runs for the tests of pictures."""

from __future__ import annotations

from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord


def small_run(delay_s: float = 0.5, samples: int = 4) -> list[Record]:
    """Return a run of two sources on one worker; the gate's samples continue to a second worker over a network."""
    records: list[Record] = []
    for sample in range(samples):
        at_s = float(sample)
        records += [
            BlockRecord("box", "gate", sample, 0, at_s, at_s + delay_s / 4),
            TransferRecord("lan", "box", "hut", "gate", sample, 1, 1000, at_s + delay_s / 4, at_s + delay_s / 2),
            BlockRecord("hut", "gate", sample, 1, at_s + delay_s / 2, at_s + delay_s),
            SampleRecord("gate", sample, at_s, at_s + delay_s, "completed"),
            BlockRecord("box", "yard", sample, 0, at_s + delay_s / 4, at_s + delay_s),
            SampleRecord("yard", sample, at_s, at_s + delay_s, "completed"),
        ]
    return records
