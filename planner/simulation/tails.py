"""Limits of single samples held against a simulation of the plan, since plans are made by approximate distributions."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, inf
from typing import Final

from planner.plan.limits import tail_limits
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulator
from planner.trace.metrics import wilson
from planner.trace.records import Record, SampleRecord
from planner.units import format_quantity

SAMPLES: Final = 4000
"""Samples that are simulated, of all sources with limits together, and as many of the others as come meanwhile."""
LEAST: Final = 400
"""Samples of each source with limits, at least."""


def broken_in_simulation(instance: Instance, plan: PlanSpec, *, seed: int = 0) -> Iterator[str]:
    """Yield a sentence for each limit on late samples or percentiles that a simulated run surely breaks.

    The run has the plan's rates, without the scenario's events. Surely means that the whole 95 % confidence interval
    of the share of late samples is above what is allowed.
    """
    specs = instance.scenario.sources
    limited = {name: limits for name, spec in specs.items() if (limits := tail_limits(spec))}
    rates = {name: spec.rate_per_s for name, spec in specs.items()}
    if not limited or instance.scenario.objective.goal in {"makespan", "throughput"}:
        return
    known = {name: rate or _rate_of_trace(instance, name) for name, rate in rates.items()}
    length_s = max(SAMPLES / sum(known[name] for name in limited), *(LEAST / known[name] for name in limited))
    counts = {name: min(ceil(rate * length_s), 10 * SAMPLES) for name, rate in known.items()}
    run = instance.with_samples(counts).with_scenario(events=())
    delays_s: dict[str, list[float]] = {name: [] for name in limited}

    def sink(record: Record) -> None:
        if isinstance(record, SampleRecord) and record.source in delays_s:
            delays_s[record.source].append(record.delay_s if record.status == "completed" else inf)

    Simulator(run, policy="planned", plan=plan, seed=seed, sink=sink).run()
    for name, limits in limited.items():
        for limit in limits:
            found = delays_s[name]
            late = sum(delay_s > limit.bound_s for delay_s in found) / len(found)
            bounds = wilson(late, len(found))
            if bounds.low > 1 - limit.level:
                yield (
                    f"in a simulation {late:.1%} of {len(found)} samples of {name} take more than "
                    f"{format_quantity(limit.bound_s, 'time')} (95 % interval {bounds.low:.1%} to {bounds.high:.1%}), "
                    f"{1 - limit.level:.1%} are allowed"
                )


def _rate_of_trace(instance: Instance, source: str) -> float:
    times_s = instance.traces[source]
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])
