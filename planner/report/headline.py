"""The line above the picture of a plan."""

from __future__ import annotations

import math

from planner.plan.evaluate import weighted_means, weighted_misses
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.units import format_quantity


def headline(instance: Instance, plan: PlanSpec) -> str:
    """Return what a plan achieves, with its unit, and how far that is proven."""
    mean_s, _ = weighted_means(instance, plan.sources)
    delay = format_quantity(mean_s, "time") if math.isfinite(mean_s) else "unlimited"
    value = {
        "delay": f"mean delay {delay}, weighted by priority and rate",
        "misses": f"{weighted_misses(instance, plan.sources):.2%} of the samples late, weighted by priority and rate",
        "throughput": f"busiest device or network at {plan.objective:.1%}",
        "makespan": f"batch done in {format_quantity(plan.objective, 'time')}",
        "energy": f"average power {plan.objective:.4g} W",
    }[plan.goal]
    proof = f"gap {plan.gap:.2%}" if plan.bound > 0 else "no bound"
    return f"{value}    |    {plan.status}, {proof}, by {plan.method} in {plan.solve_s:.2f} s; costs {plan.provenance}"
