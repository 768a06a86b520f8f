"""Description of a plan for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from planner.plan.sessions import has_sessions, smallest_batches
from planner.plan.types import EnergyUse, PlanPrices, PlanSpec, PlanWorth, Route, SourcePlan
from planner.scenario.instance import Instance
from planner.tables import Table, milliseconds
from planner.units import format_number

MATTERS: Final = 0.01
"""Smallest relative difference that is told."""
_BETTER: Final = {
    "delay": ("{}x faster than", "is {}x faster"),
    "makespan": ("{}x faster than", "is {}x faster"),
    "throughput": ("{}x the throughput of", "has {}x the throughput"),
    "misses": ("{}x fewer misses than", "has {}x fewer misses"),
    "energy": ("{}x less power than", "draws {}x less power"),
}
"""How a plan that is better than the whole model at home is told, and how one that is worse."""


def describe_plan(plan: PlanSpec, instance: Instance) -> Iterator[Table | str]:
    """Return routes, utilisations, prices if known, and the objective with its gap."""
    yield _routes(plan, instance)
    if any(source.p50_delay_s is not None for source in plan.sources.values()):
        yield _punctuality(plan, instance)
    if any(spec.decode is not None for spec in instance.scenario.sources.values()):
        yield _tokens(plan, instance)
    for name, source in plan.sources.items():
        if source.rate_interval_per_s is not None:
            low, high = source.rate_interval_per_s
            yield f"{name}: the plan sustains {low:.4g} to {high:.4g} samples per second"
    yield from _sessions(plan)
    yield _loads(plan)
    if plan.energy is not None:
        yield describe_energy(plan.energy, instance)
    if plan.prices is not None:
        yield _prices(plan, plan.prices)
    yield plan.summary
    if plan.threads > 1:
        yield f"solved by {plan.threads} threads: another run may find another plan; --threads 1 repeats exactly"
    if plan.warning is not None:
        yield f"warning: {plan.warning}"
    if plan.worth is not None:
        yield describe_worth(plan, plan.worth)


def _sessions(plan: PlanSpec) -> Iterator[str]:
    if has_sessions(plan):
        waits = f"; more urgent work waits up to {milliseconds(plan.max_wait_s)} for one" if plan.max_wait_s else ""
        yield f"blocks in brackets run as one session{waits}"
    if limits := smallest_batches(plan):
        sizes = ", ".join(f"{size} at {worker}" for worker, size in limits.items())
        wait = f", so that more urgent work waits up to {milliseconds(plan.max_wait_s)}" if plan.max_wait_s else ""
        yield f"batches of at most {sizes}{wait}"


def describe_worth(plan: PlanSpec, worth: PlanWorth) -> str:
    """Return one line by which a user decides about the plan's devices."""
    line = _against_home(plan, worth.times_home)
    if worth.spare is None or worth.spare_cost is None:
        return line
    cost = f"at most {format_number(100 * worth.spare_cost, 2)} %" if worth.spare_cost > MATTERS / 10 else "nothing"
    return f"{line}; dropping {worth.spare} would cost {cost}"


def _against_home(plan: PlanSpec, times: float | None) -> str:
    if times is None:
        return "the whole model at home would break a limit"
    factor = format_number(max(times, 1 / times), 2)
    ours, home = _BETTER[plan.goal]
    if times > 1 + MATTERS:
        return f"{ours.format(factor)} the whole model at home"
    if times < 1 - MATTERS:
        return f"the devices together are worse than one: the whole model at home {home.format(factor)}"
    return "no better than the whole model at home"


def _routes(plan: PlanSpec, instance: Instance) -> Table:
    accuracy = [">accuracy"] if instance.calibrated else []
    interval = [f">{plan.coverage:.0%} interval"] if plan.coverage is not None else []
    return Table(
        "Routes",
        ("source", ">share", "model", "route (worker: blocks)", *accuracy, ">delay", *interval, ">surrogate"),
        [
            (
                name,
                f"{route.share:.1%}",
                _model(route, instance),
                " > ".join(f"{stage.worker}: {stage.blocks}" for stage in route.stages),
                *([f"{source.accuracy:.1%}"] if accuracy else []),
                milliseconds(source.delay_s),
                *([_interval(source)] if interval else []),
                milliseconds(source.surrogate_delay_s),
            )
            for name, source in plan.sources.items()
            for route in source.routes
        ],
    )


def _interval(source: SourcePlan) -> str:
    if source.delay_interval_s is None:
        return ""
    low_s, high_s = source.delay_interval_s
    return f"{milliseconds(low_s)} to {'infinity' if high_s is None else milliseconds(high_s)}"


def _punctuality(plan: PlanSpec, instance: Instance) -> Table:
    specs = instance.scenario.sources
    return Table(
        "Delays of single samples",
        ("source", ">median", ">95 %", ">99 %", ">deadline", ">missed"),
        [
            (
                name,
                *(milliseconds(time_s) for time_s in (source.p50_delay_s, source.p95_delay_s, source.p99_delay_s)),
                milliseconds(specs[name].deadline_s),
                "–" if source.miss_share is None else f"{source.miss_share:.2%}",
            )
            for name, source in plan.sources.items()
        ],
    )


def _tokens(plan: PlanSpec, instance: Instance) -> Table:
    """Return when tokens are there, and how many sequences are under way, by Little's law."""
    rows = []
    for name, source in plan.sources.items():
        decode, rate_per_s = instance.scenario.sources[name].decode, instance.scenario.sources[name].rate_per_s
        if decode is not None:
            rows.append(
                (
                    name,
                    f"{decode.prompt} + {decode.max_new}",
                    milliseconds(source.ttft_s),
                    milliseconds(source.tpot_s),
                    "–" if not source.tpot_s else f"{1 / source.tpot_s:.1f} /s",
                    _under_way(rate_per_s, source.delay_s, decode.concurrent),
                    _fed_back(source, instance.home(name)),
                )
            )
    columns = (
        "source",
        ">prompt + new",
        ">to the first token",
        ">per token",
        ">tokens",
        ">sequences at a time",
        "fed back at",
    )
    return Table("Tokens", columns, rows)


def _fed_back(source: SourcePlan, home: str) -> str:
    """Return at which workers tokens become the input of the next step."""
    workers = (home if route.loop == "home" else route.stages[-1].worker for route in source.routes)
    return ", ".join(dict.fromkeys(workers))


def _under_way(rate_per_s: float | None, delay_s: float, concurrent: int) -> str:
    return "–" if rate_per_s is None else f"{format_number(rate_per_s * delay_s, 2)} of {concurrent}"


def _loads(plan: PlanSpec) -> Table:
    from planner.units import format_quantity

    batch = plan.goal == "makespan"  # a utilisation is then the work of the whole batch, in seconds

    def load(utilisation: float) -> str:
        return format_quantity(utilisation, "time") if batch else f"{utilisation:.1%}"

    return Table(
        "Workers and networks",
        ("name", ">work of the batch" if batch else ">utilisation", ">memory"),
        [
            *(
                (name, load(use.utilisation), f"{use.memory_bytes / 2**20:.0f} MiB")
                for name, use in plan.workers.items()
            ),
            *((name, load(use.utilisation), "") for name, use in plan.networks.items()),
        ],
    )


def describe_energy(energy: EnergyUse, instance: Instance) -> str:
    """Return power and energy in one line; it says if the power of some workers is unknown."""
    from planner.units import format_quantity

    known, count = len(energy.workers), len(instance.workers)
    of_workers = "all workers" if known == count else f"{known} of {count} workers (the power of the others is unknown)"
    per_sample = energy.energy_per_sample_j
    of_sample = "" if per_sample is None else f", {format_quantity(per_sample, 'energy')} per sample"
    return f"energy of {of_workers}: {format_quantity(energy.average_power_w, 'power')} on average{of_sample}"


def _prices(plan: PlanSpec, prices: PlanPrices) -> Table:
    def part(worth: float) -> str:
        return f"{worth:.3g} ({worth / max(abs(plan.objective), 1e-9):.2%})"

    rows = [(name, "10 % faster", part(price.faster)) for name, price in prices.workers.items()]
    rows += [
        (name, f"{price.more_memory_bytes / 2**20:.0f} MiB more", part(price.more_memory))
        for name, price in prices.workers.items()
        if price.more_memory_bytes is not None and price.more_memory is not None
    ]
    rows += [(name, "1 Mbit/s more", part(price.mbit_per_s)) for name, price in prices.networks.items()]
    title = f"Reduction of the objective by more resources (by {prices.by})"
    return Table(title, ("name", "change", ">reduction"), rows)


def _model(route: Route, instance: Instance) -> str:
    """Return the name of a route's model, and of its operating point where there are several."""
    points = instance.any_profile(route.model).operating_points
    return f"{route.model} ({points[route.operating_point].name})" if len(points) > 1 else route.model
