"""Exits at which simulated samples leave: by their recorded confidences, or randomly with the calibrated frequencies.

In the random case, sample k of a source has a hardness u, uniform in [0, 1): under each operating point it continues
past an exit if u is less than the reach behind the exit. So each operating point has its calibrated reach, a sample
that leaves under a strict threshold also leaves under a loose one, and all policies and attempts face the same samples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import RunBlock

_STREAM: Final = 2_000
"""First number of the random streams of hardness; those of sources start at 0, those of devices at 1000."""


class Exits:
    """Exit confidences and correctness of the samples of one run."""

    def __init__(self, instance: Instance, seed: int) -> None:
        self._instance = instance
        self._seed = seed
        self._streams = {source: _STREAM + index for index, source in enumerate(instance.sources)}
        self._exits: dict[str, dict[int, list[int]]] = {model: {} for model in instance.profiles}
        self._recorded = bool(instance.predictions)
        self.models = frozenset(model for model in instance.profiles if instance.any_profile(model).exits)
        """Models that have exits."""
        for model, by_block in self._exits.items():
            for index, exit_point in enumerate(instance.any_profile(model).exits):
                by_block.setdefault(exit_point.cut - 1, []).append(index)

    def confidence(self, run: RunBlock) -> tuple[float, ...]:
        """Return the confidence at each exit where a session ends; if drawn at random, 1 to leave or 0 to continue."""
        exits = self._exits[run.model].get(run.session_end)
        if exits is None:
            return ()
        recorded = self._instance.predictions.get(run.key.source, {}).get(run.model)
        if recorded is not None:
            confidences = recorded.confidence[run.key.sample % len(recorded)]
            return tuple(float(confidences[index]) for index in exits)
        reach = self._instance.operating_points(run.model)[run.operating_point].reach
        continues = self._hardness(run.key.source, run.key.sample) < reach[run.session_end + 1]
        return (0.0 if continues else 1.0,) * len(exits)

    def with_correctness(self, record: SampleRecord) -> SampleRecord:
        """Return the record of a completed sample with the correctness of its result, if that is recorded."""
        if not self._recorded:
            return record
        origin = record.origin
        recorded = self._instance.predictions.get(record.source, {}).get(origin.model) if origin is not None else None
        if origin is None or recorded is None or recorded.correct is None:
            return record
        exits = [exit_point.name for exit_point in self._instance.any_profile(origin.model).exits]
        column = len(exits) if origin.exit is None else exits.index(origin.exit)
        return replace(record, correct=bool(recorded.correct[record.sample % len(recorded), column]))

    def _hardness(self, source: str, sample: int) -> float:
        seeds = np.random.SeedSequence(self._seed, spawn_key=(self._streams[source], sample))
        return float(seeds.generate_state(1, np.uint64)[0]) / 2.0**64
