"""When samples arrive. Chance comes from the caller's generator, so that a seed tells the whole story."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from planner.scenario.instance import Instance
from planner.scenario.types import SourceSpec


def source_rng(seed: int, source_index: int) -> np.random.Generator:
    """Give the random stream of one source: independent of all others, and the same whatever the policy."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(source_index,)))


def arrival_times(
    source: SourceSpec, rng: np.random.Generator, trace: Sequence[float] | None = None
) -> Iterator[float]:
    """Give the arrival times of a source's samples in seconds, never decreasing.

    Parameters
    ----------
    source
        ``samples`` many times are given; a shorter trace ends early.
    rng
        Used by Poisson arrivals alone; see :func:`source_rng`.
    trace
        For ``arrivals: trace``: the times in seconds, never decreasing.

    Raises
    ------
    ValueError
        When the source's arrivals need a rate or a trace that is not there.
    """
    if source.arrivals == "batch":
        return iter([0.0] * source.samples)
    if source.arrivals == "trace":
        if trace is None:
            raise ValueError("arrivals: trace need the trace's times")
        return itertools.islice(iter(trace), source.samples)
    if source.rate_per_s is None:
        raise ValueError(f"arrivals: {source.arrivals} need a rate")
    if source.arrivals == "constant":
        return (index / source.rate_per_s for index in range(source.samples))
    return itertools.accumulate(rng.exponential(1 / source.rate_per_s) for _ in range(source.samples))


def instance_arrivals(instance: Instance, source: str, seed: int) -> Iterator[float]:
    """Give the arrival times of one of an instance's sources, in seconds; simulation and execution draw the same."""
    rng = source_rng(seed, instance.sources.index(source))
    return arrival_times(instance.scenario.sources[source], rng, instance.traces.get(source))
