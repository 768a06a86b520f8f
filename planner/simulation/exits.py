"""Where simulated samples leave: as their recorded confidences say, or by chance, as often as was calibrated.

By chance, sample k of a source has one number u, uniform in [0, 1), which says how hard it is: under each operating
point it goes beyond an exit when u is less than the reach behind it. So each operating point has its calibrated reach,
what leaves under a strict threshold leaves under a loose one, and all policies and attempts meet the same samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import RunBlock

_STREAM: Final = 2_000
"""Streams of the samples' hardness are numbered from here; those of sources from 0, those of devices from 1000."""


class Exits:
    """What the model would say of each sample of one run."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._seed = seed
        self._streams = {source: _STREAM + index for index, source in enumerate(instance.sources)}
        self._exits: dict[str, dict[int, list[int]]] = {model: {} for model in instance.profiles}
        for model, by_block in self._exits.items():
            for index, leave in enumerate(instance.any_profile(model).exits):
                by_block.setdefault(leave.cut - 1, []).append(index)

    def confidence(self, run: RunBlock) -> tuple[float, ...]:
        """Give how sure the model is at each exit that a block computes; where that is drawn 1 or 0, leaves or not."""
        exits = self._exits[run.model].get(run.block)
        if exits is None:
            return ()
        known = self._instance.answers.get(run.key.source, {}).get(run.model)
        if known is not None:
            entry = known.confidence[run.key.sample % len(known)]
            return tuple(float(entry[index]) for index in exits)
        reach = self._instance.operating_points(run.model)[run.operating_point].reach
        goes_on = self._hardness(run.key.source, run.key.sample) < reach[run.block + 1]
        return (0.0 if goes_on else 1.0,) * len(exits)

    def judged(self, record: SampleRecord) -> SampleRecord:
        """Say of a completed sample whether its result is right, where that is known."""
        origin = record.origin
        known = self._instance.answers.get(record.source, {}).get(origin.model) if origin is not None else None
        if origin is None or known is None or known.correct is None:
            return record
        exits = [leave.name for leave in self._instance.any_profile(origin.model).exits]
        column = len(exits) if origin.exit is None else exits.index(origin.exit)
        return replace(record, correct=bool(known.correct[record.sample % len(known), column]))

    def _hardness(self, source: str, sample: int) -> float:
        chance = np.random.SeedSequence(self._seed, spawn_key=(self._streams[source], sample))
        return float(chance.generate_state(1, np.uint64)[0]) / 2.0**64
