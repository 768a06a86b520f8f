"""What the picture of a plan says in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from planner.plan.evaluate import PlannedLeg, alone_at_home, sustained
from planner.plan.journey import LegSite
from planner.plan.types import PlanSpec, Route
from planner.report.figure import shortened
from planner.report.loads import loads
from planner.scenario.instance import Instance
from planner.units import format_quantity

ALL: Final = 1 - 1e-9
"""Least share of the samples that counts as all of them."""


def labels(leg: PlannedLeg) -> list[str]:
    """Return the possible labels of a leg, the longest first."""
    name = leg.site.resource
    if leg.site.transfer:
        network, _, link = name.partition(":")
        took = time(leg.work_s)
        return [f"{name}: {took}", f"{link or network}: {took}", name, link or network, took]
    share = f" ({leg.probability:.0%})" if leg.probability < ALL else ""
    short = f"{name}: {_blocks(leg.site)}"
    return [f"{leg.site}{share}", f"{short}{share}", short, name]


def stages(route_legs: Sequence[PlannedLeg]) -> str:
    """Return the workers of a route, with their blocks."""
    stages = [leg.site for leg in route_legs if not leg.site.transfer]
    return " > ".join(f"{stage.resource}: {_blocks(stage)}" for stage in stages)


def _blocks(stage: LegSite) -> str:
    return str(stage.first) if stage.first == stage.last else f"{stage.first}-{stage.last}"


def note(instance: Instance, source: str, route: Route, route_legs: Sequence[PlannedLeg], *, several: bool) -> str:
    """Return the text after a route's bar: its delay if the source has several routes, its model if it has several."""
    overloaded = next((leg for leg in route_legs if not math.isfinite(leg.wait_s)), None)
    if overloaded is not None:
        return f"unbounded wait for {overloaded.site.resource}"
    points = instance.operating_points(route.model)
    parts = [time(mean_s(route_legs))] if several else []
    if len(points) > 1:
        parts.append(f"{route.model} ({points[route.operating_point].name})")
    elif len(instance.scenario.sources[source].models) > 1:
        parts.append(route.model)
    return shortened(", ".join(parts), 48)


def about(instance: Instance, plan: PlanSpec, source: str) -> list[str]:
    """Return the requirements of a source, and its accuracy if known."""
    spec = instance.scenario.sources[source]
    parts = [f"priority {spec.priority:g}"]
    if plan.goal == "makespan":
        parts.append(f"{spec.samples} samples")
    elif spec.rate_per_s is not None:
        parts.append(format_quantity(spec.rate_per_s, "rate"))
    if spec.max_mean_delay_s is not None:
        parts.append(f"mean ≤ {format_quantity(spec.max_mean_delay_s, 'time')}")
    if spec.deadline_s is not None:
        parts.append(f"deadline {format_quantity(spec.deadline_s, 'time')}")
    if instance.calibrated:
        parts.append(f"accuracy {plan.sources[source].accuracy:.1%}")
    return parts


def at_home(instance: Instance, source: str, route: Route) -> str:
    """Return the mean delay of a source if all its samples stayed at home and there were no other source."""
    home = instance.home(source)
    alone = alone_at_home(instance, source, route)
    if alone.workers[home].memory_bytes > instance.worker(home).memory_bytes:
        return "does not fit"
    if instance.scenario.objective.goal != "makespan" and alone.workers[home].utilisation >= 1:
        return "overloaded"
    return time(alone.sources[source].delay_s)


def rest(routes: Sequence[Route]) -> str:
    """Return what stands for routes that are not drawn."""
    share = sum(route.share for route in routes)
    return f"and {len(routes)} more {'route' if len(routes) == 1 else 'routes'}, {share:.1%} of the samples"


def left_out(instance: Instance, plan: PlanSpec, sources: Sequence[str]) -> str:
    """Return what stands for sources that are not drawn."""
    priority = max(instance.scenario.sources[source].priority for source in sources)
    delays_s = [plan.sources[source].delay_s for source in sources]
    between = f"mean delays {time(min(delays_s))} to {time(max(delays_s))}"
    return f"and {len(sources)} more sources, of priority {priority:g} or less: {between}"


def condition(instance: Instance, plan: PlanSpec) -> str:
    """Return the load to which the times refer, if it is not that of the scenario."""
    if plan.goal == "makespan":
        return ", without waiting"
    share = sustained(instance, loads(plan)) if plan.goal == "throughput" else 1.0
    return f", at {share:.1%} of the rates" if share < 1 else ""


def mean_s(route_legs: Sequence[PlannedLeg]) -> float:
    """Return the mean time of a route, in seconds."""
    return sum(leg.wait_s + leg.work_s for leg in route_legs)


def finite_s(route_legs: Sequence[PlannedLeg]) -> float:
    """Return the time before the first leg with an unbounded wait, in seconds."""
    first = next((index for index, leg in enumerate(route_legs) if not math.isfinite(leg.wait_s)), len(route_legs))
    return mean_s(route_legs[:first])


def time(time_s: float) -> str:
    """Return a time with its unit, or the sign of an unbounded one."""
    return format_quantity(time_s, "time") if math.isfinite(time_s) else "∞"
