"""Picture of the results of several solver methods for a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.report.figure import COMPUTING, FAINT, GREY, INK, SENDING, new_figure, text_colour
from planner.solvers.compare import Compared
from planner.units import format_quantity


def draw_methods(
    results: Sequence[Compared],
    gaps: Mapping[str, float | None],
    path: Path,
    *,
    simulated: Mapping[str, float | None] | None = None,
) -> None:
    """Draw the delay of each method, evaluated and simulated, its gap, and its solve time.

    Parameters
    ----------
    results
        Result of each method.
    gaps
        Relative gap of each method's plan to the best known bound.
    path
        File to write, ``.svg`` or ``.png``.
    simulated
        Simulated delay of each method's plan, weighted by priority, in seconds.
    """
    rows = range(len(results))
    with new_figure(path) as figure:
        delays, quality, times = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
        evaluated_ms = [(result.delay_s or 0.0) * 1e3 for result in results]
        delays.barh(rows, evaluated_ms, color=COMPUTING, height=0.6)
        for row, result in enumerate(results):
            label = result.status if result.delay_s is None else format_quantity(result.delay_s, "time")
            colour = GREY if result.delay_s is None else text_colour(COMPUTING)
            delays.annotate(label, (0, row), (8, 0), textcoords="offset points", va="center", color=colour)
            delay_s = (simulated or {}).get(result.method)
            if delay_s is not None:
                delays.plot(
                    delay_s * 1e3, row, "D", color="white", markeredgecolor=INK, markeredgewidth=2, markersize=9
                )
        if simulated:
            figure.legend(handles=_legend(), loc="outside upper right", ncols=2, frameon=False)
        delays.set_title("Delay, weighted by priority")
        delays.set_xlabel("Delay [ms]")
        quality.set_title("Gap to the best bound")
        quality.barh(rows, [(gaps[result.method] or 0.0) * 100 for result in results], color=SENDING, height=0.6)
        quality.set_xlabel("Gap [%]")
        times.set_title("Solve time")
        times.barh(rows, [result.solve_s for result in results], color=GREY, height=0.6)
        times.set_xscale("log")
        times.set_xlabel("Time [s]")
        for axes in (delays, quality, times):
            axes.grid(axis="x", color=FAINT, linewidth=0.8)
            axes.set_axisbelow(True)
        delays.set_yticks(rows, [result.method for result in results])
        delays.set_ylim(len(results) - 0.5, -0.5)


def _legend() -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=COMPUTING, linewidth=12, label="evaluated"),
        Line2D([], [], color="white", linestyle="none", marker="D", markeredgecolor=INK, label="simulated"),
    ]
