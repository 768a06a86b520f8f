"""When the tokens of a sequence are there: time to the first token, and time per token after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.plan.journey import Journey
from planner.plan.types import Route
from planner.scenario.instance import Instance


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
