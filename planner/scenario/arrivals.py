"""Arrival times of samples. Random numbers come from the caller's generator, so a seed determines them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from planner.scenario.instance import Instance
from planner.scenario.types import BurstSpec, SourceSpec


def source_rng(seed: int, source_index: int) -> np.random.Generator:
    """Return the random stream of one source: independent of all others, and the same under every policy."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(source_index,)))


def arrival_times(
    source: SourceSpec, rng: np.random.Generator, trace: Sequence[float] | None = None
) -> Iterator[float]:
    """Return the arrival times of a source's samples in seconds, never decreasing.

    Parameters
    ----------
    source
        Its ``samples`` is the number of times; a shorter trace ends early.
    rng
        Used by random arrivals only; see :func:`source_rng`.
    trace
        For ``arrivals: trace``: the times in seconds, never decreasing.

    Raises
    ------
    ValueError
        The source's arrivals need a rate, bursts or a trace, and there are none.
    """
    if source.arrivals == "batch":
        return itertools.repeat(0.0, source.samples)
    if source.arrivals == "trace":
        if trace is None:
            raise ValueError("arrivals: trace need the trace's times")
        return itertools.islice(iter(trace), source.samples)
    if source.rate_per_s is None:
        raise ValueError(f"arrivals: {source.arrivals} need a rate")
    if source.arrivals == "constant":
        return (index / source.rate_per_s for index in range(source.samples))
    times = itertools.accumulate(rng.exponential(1 / source.rate_per_s) for _ in range(source.samples))
    if source.arrivals == "poisson":
        return times
    if source.bursts is None:
        raise ValueError("arrivals: mmpp need bursts")
    return warp(times, _switches(source.bursts, rng.spawn(1)[0]))


def _switches(bursts: BurstSpec, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield when the rate changes, and its factor from then on: both states last exponentially distributed times."""
    calm_s = bursts.every_s - bursts.length_s
    busy = bool(rng.random() < bursts.share)
    at_s = 0.0
    while True:
        yield at_s, bursts.factor if busy else bursts.calm
        at_s += rng.exponential(bursts.length_s if busy else calm_s)
        busy = not busy


def warp(times: Iterable[float], factors: Iterable[tuple[float, float]]) -> Iterator[float]:
    """Return the times, after time has passed faster or slower from certain moments on.

    Parameters
    ----------
    times
        Never decreasing, in seconds, as they would be at factor 1.
    factors
        ``(from_s, factor)``, in order of time: the seconds of ``times`` that pass in one second from then on.
    """
    begin_s, passed_s, factor = 0.0, 0.0, 1.0
    changes = iter(factors)
    change = next(changes, None)
    for time_s in times:
        while change is not None and (change[0] - begin_s) * factor <= time_s - passed_s:
            passed_s += (change[0] - begin_s) * factor
            begin_s, factor = change
            change = next(changes, None)
        yield begin_s + (time_s - passed_s) / factor


def instance_arrivals(instance: Instance, source: str, seed: int) -> Iterator[float]:
    """Return the arrival times of one of an instance's sources, in seconds; simulation and execution draw the same.

    They take account of the scenario's events that change the source's rate.
    """
    spec = instance.scenario.sources[source]
    times = arrival_times(spec, source_rng(seed, instance.sources.index(source)), instance.traces.get(source))
    changes = sorted(
        (event.at_s, event.rate_per_s / spec.rate_per_s)
        for event in instance.scenario.events
        if event.source == source and event.rate_per_s is not None and spec.rate_per_s is not None
    )
    return warp(times, changes) if changes else times
