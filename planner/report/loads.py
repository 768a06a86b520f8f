"""Picture of the utilisation of workers and networks by a plan, and of the memory it needs on workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from planner.plan.types import PlanSpec
from planner.report.figure import ALERT, FAINT, GREY, shortened, write_beside, write_inside
from planner.scenario.instance import Instance
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LOADS: Final = 28
"""Maximum number of workers and networks drawn: the busiest ones."""

_IDLE: Final = 5e-4
"""Share of a full bar below which a network is not drawn, because its label would read 0.0%."""


def loads(plan: PlanSpec) -> dict[str, float]:
    """Return the utilisation of each worker and network; for the goal ``makespan``, their work in seconds."""
    workers = {name: use.utilisation for name, use in plan.workers.items()}
    return workers | {name: use.utilisation for name, use in plan.networks.items()}


def draw_loads(
    axes: Axes,
    instance: Instance,
    plan: PlanSpec,
    by_source: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
) -> None:
    """Draw a bar for each worker and network, divided by source, and a thin bar for the memory of each worker.

    A full bar means a utilisation of 100 % or, for the goal ``makespan``, the largest work of all.
    """
    load, batch = loads(plan), plan.goal == "makespan"
    full = (batch and max(load.values())) or 1.0
    used = [name for name in load if name in plan.workers or load[name] > _IDLE * full]
    drawn = set(sorted(used, key=lambda name: -load[name])[:MAX_LOADS])
    names = [name for name in load if name in drawn]
    axes.set_title("Work of the batch" if batch else "Utilisation")
    unit = "Work [time]" if batch else "Utilisation [%]"
    axes.set_xlabel(f"{unit}; thin bars: memory needed of memory available", fontsize=10)
    axes.set_xlim(0, 1)
    ticks = (0.0, 0.5, 1.0)
    axes.set_xticks(ticks, [format_quantity(tick * full, "time") if batch else f"{tick:.0%}" for tick in ticks])
    axes.set_ylim(len(names) + (len(load) > len(names)) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [shortened(name) for name in names], fontsize=10)
    axes.tick_params(axis="y", length=0)
    for row, name in enumerate(names):
        label = format_quantity(load[name], "time") if batch else f"{load[name]:.1%}"
        write_beside(axes, row, label, 46, color="black" if load[name] <= full else ALERT)
        middle = row - 0.12 if name in plan.workers else row
        _draw_load(axes, middle, {source: part / full for source, part in by_source[name].items()}, colours)
        if name in plan.workers:
            _draw_memory(axes, row, plan.workers[name].memory_bytes, instance.worker(name).memory_bytes)
    if len(load) > len(names):
        largest = max(load[name] for name in load if name not in drawn) / full
        write_inside(axes, len(names), f"and {len(load) - len(names)} more, at most {max(largest, 0.001):.1%}")


def _draw_load(axes: Axes, middle: float, parts: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Draw what each source adds to a load, as far as a full bar goes."""
    axes.barh(middle, 1, 0.5, color=FAINT, linewidth=0)
    begun = 0.0
    for source, part in parts.items():
        shown = min(part, 1 - begun)
        if shown > 0:
            axes.barh(middle, shown, 0.5, left=begun, color=colours[source], linewidth=0)
        begun += max(shown, 0.0)


def _draw_memory(axes: Axes, row: int, needed_bytes: float, available_bytes: float) -> None:
    axes.barh(row + 0.27, (1, min(needed_bytes / available_bytes, 1)), 0.16, color=(FAINT, GREY), linewidth=0)
    label = f"{format_quantity(needed_bytes, 'memory')} of {format_quantity(available_bytes, 'memory')}"
    write_beside(axes, row, label, 148, fontsize=9, color=GREY if needed_bytes <= available_bytes else ALERT)
