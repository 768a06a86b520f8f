"""When the tokens of a sequence are there: time to the first token, and time per token after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.plan.journey import Journey
from planner.plan.types import Route
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance


class TokenLimit(NamedTuple):
    """A bound of a source of sequences, and what a plan reaches, in seconds."""

    what: str
    bound_s: float
    reached_s: float


def token_limits(decode: DecodeSpec | None, ttft_s: float | None, tpot_s: float | None) -> tuple[TokenLimit, ...]:
    """Return the bounds of a source on the times of its tokens, with the times that it reaches."""
    if decode is None:
        return ()
    times = (("time to the first token", decode.max_ttft_s, ttft_s), ("time per token", decode.max_tpot_s, tpot_s))
    return tuple(
        TokenLimit(what, bound_s, reached_s)
        for what, bound_s, reached_s in times
        if bound_s is not None and reached_s is not None
    )


def most_s(decode: DecodeSpec | None) -> float:
    """Return the longest time of a sequence that its bounds on tokens allow, in seconds; infinite without both."""
    if decode is None or decode.max_ttft_s is None or (decode.max_tpot_s is None and decode.steps):
        return math.inf
    return decode.max_ttft_s + len(decode.steps) * (decode.max_tpot_s or 0.0)


def place_wait_s(rate_per_s: float, time_s: float, places: int) -> float:
    """Return the mean time for which a sequence waits until less than ``places`` others are under way, in seconds.

    That is the wait of a queue with Poisson arrivals and as many servers as places, where each sequence takes the same
    time: half of that with exponential times, by Erlang's formula C. It is infinite where they cannot keep up.

    Parameters
    ----------
    time_s
        Mean time of a sequence from its begin to its end.
    """
    load = rate_per_s * time_s
    if not load < places:
        return math.inf
    blocked = 1.0  # by Erlang's formula B, for 0 places and one more each time
    for count in range(1, places + 1):
        blocked = load * blocked / (count + load * blocked)
    waits = blocked / (1 - load / places * (1 - blocked))
    return waits * time_s / (places - load) / 2


def place_waits_s(
    instance: Instance,
    rate_per_s: NDArray[np.float64],
    delay_s: NDArray[np.float64],
    tokens: Mapping[str, dict[str, float]],
) -> NDArray[np.float64]:
    """Return the mean wait of each source's sequences for one of its places, and add it to the times of tokens."""
    waits_s = np.zeros(len(rate_per_s))
    for index, (source, spec) in enumerate(instance.scenario.sources.items()):
        if spec.decode is not None:
            waits_s[index] = place_wait_s(float(rate_per_s[index]), float(delay_s[index]), spec.decode.concurrent)
            tokens[source]["ttft_s"] += waits_s[index]
    return waits_s


def counted_s(
    instance: Instance, delay_s: NDArray[np.float64], tokens: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float64]:
    """Return what the delay of each source counts in the objective, in seconds."""
    return np.array(
        [
            own_s if spec.decode is None else spec.decode.counted_s(own_s, tokens[source]["ttft_s"])
            for (source, spec), own_s in zip(instance.scenario.sources.items(), delay_s.tolist(), strict=True)
        ]
    )


def token_times(
    instance: Instance, samples: Mapping[str, Sequence[tuple[Route, Journey]]], times_s: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Return ``ttft_s`` and ``tpot_s``, in seconds, of each source of sequences; the latter if there are steps.

    Parameters
    ----------
    times_s
        Mean time of each visit of each route of each source, in order, without latency.
    """
    in_order = iter(times_s)
    found: dict[str, dict[str, Any]] = {}
    for source in instance.sources:
        for route, trip in samples[source]:
            spent_s = [visit.probability * (next(in_order) + visit.latency_s) for visit in trip.visits]
            if trip.prompt_visits is None:
                continue
            own = found.setdefault(source, {})
            own["ttft_s"] = own.get("ttft_s", 0.0) + route.share * sum(spent_s[: trip.prompt_visits])
            if trip.steps:
                step_s = sum(spent_s[trip.prompt_visits :]) / trip.steps
                own["tpot_s"] = own.get("tpot_s", 0.0) + route.share * step_s
    return found
