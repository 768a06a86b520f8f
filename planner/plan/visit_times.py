"""Mean times of the visits of a fixed plan's samples; those of steps of sequences depend on each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.plan.batches import in_batches
from planner.plan.journey import Journey, Visit
from planner.plan.queueing import Stream, visit_times_s
from planner.plan.rates import bursts
from planner.plan.types import Route
from planner.scenario.instance import Instance

_ROUNDS: Final = 20
_CLOSE: Final = 1e-3
"""How many times the times of steps are found again at most, and the relative change at which they are known."""

Trips: TypeAlias = Sequence[tuple[Route, Journey]]
"""Routes of a source, with what a sample does on each."""
Samples: TypeAlias = Mapping[str, Trips]
"""Each source's routes, with what a sample does on each."""


def queueing_times_s(instance: Instance, samples: Samples, rate_per_s: NDArray[np.float64]) -> list[float]:
    """Return the mean time of each visit of each route of each source, in order.

    How often steps of sequences come depends on how long they wait, so the times are found step by step.
    """
    streams = _streams(instance, samples, rate_per_s)
    if instance.batches:
        models = [route.model for trips in samples.values() for route, trip in trips for _ in trip.visits]
        batched = in_batches(instance, streams, models)
        times_s = _times_s(instance, samples, batched.streams)
        return [batched.times_s.get(number, time_s) for number, time_s in enumerate(times_s)]
    return _times_s(instance, samples, streams)


def _streams(instance: Instance, samples: Samples, rate_per_s: NDArray[np.float64]) -> list[Stream]:
    specs = instance.scenario.sources
    level = {priority: rank for rank, priority in enumerate(sorted({-spec.priority for spec in specs.values()}))}
    crowds = {source: bursts(instance, source) for source in instance.sources}
    return [
        Stream(
            level[-specs[source].priority],
            float(rate) * route.share * visit.probability,
            visit,
            source,
            crowds[source],
        )
        for source, rate in zip(instance.sources, rate_per_s, strict=True)
        for route, trip in samples[source]
        for visit in trip.visits
    ]


def seen_by_others(instance: Instance, samples: Samples, rate_per_s: NDArray[np.float64]) -> Samples:
    """Return what samples do as others see it: those that run as batches make fewer and longer visits."""
    if not instance.batches:
        return samples
    streams = _streams(instance, samples, rate_per_s)
    models = [route.model for trips in samples.values() for route, trip in trips for _ in trip.visits]
    batched = in_batches(instance, streams, models)
    numbers = iter(range(len(streams)))

    def seen(visit: Visit) -> Visit:
        number = next(numbers)
        size = batched.sizes.get(number)
        return visit if size is None else replace(batched.streams[number].visit, probability=visit.probability / size)

    return {
        source: [(route, replace(trip, visits=tuple(map(seen, trip.visits)))) for route, trip in trips]
        for source, trips in samples.items()
    }


def _times_s(instance: Instance, samples: Samples, streams: Sequence[Stream]) -> list[float]:
    specs = instance.scenario.sources
    if len({spec.priority for spec in specs.values()}) == 1 or all(spec.decode is None for spec in specs.values()):
        return visit_times_s(streams)
    times_s = [stream.visit.mean_s for stream in streams]
    for _ in range(_ROUNDS):
        in_order = iter(times_s)
        returns_s = [
            returns_s
            for source in instance.sources
            for _, trip in samples[source]
            for returns_s in trip.returns_s(list(islice(in_order, len(trip.visits))))
        ]
        before_s = times_s
        times_s = visit_times_s(
            [replace(stream, returns_s=own_s) for stream, own_s in zip(streams, returns_s, strict=True)]
        )
        if np.allclose(times_s, before_s, rtol=_CLOSE):
            break
    return times_s
