"""Picture of the Pareto front of accuracy and delay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.report.figure import FAINT, PALETTE, new_figure, source_colours
from planner.solvers.pareto import ParetoPoint


def draw_front(front: Sequence[ParetoPoint], path: Path) -> None:
    """Draw delay against accuracy, over all sources and for each source.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    sources = list(front[0].plan.sources)
    with new_figure(path) as figure:
        whole, each = figure.subplots(1, 2)
        whole.set_title("All sources, weighted by priority")
        whole.plot(
            [point.accuracy * 100 for point in front],
            [point.delay_s * 1e3 for point in front],
            marker="o",
            color=PALETTE[0],
            markersize=9,
            linewidth=2.2,
        )
        each.set_title("Each source")
        for source, colour in source_colours(sources).items():
            pairs = sorted(
                ((point.plan.sources[source].accuracy, point.plan.sources[source].delay_s) for point in front),
            )
            accuracies, delays_s = zip(*pairs, strict=True)
            each.plot(
                [accuracy * 100 for accuracy in accuracies],
                [delay_s * 1e3 for delay_s in delays_s],
                marker="o",
                color=colour,
                label=source,
            )
        each.legend(frameon=False)
        for axes in (whole, each):
            axes.set_xlabel("Accuracy [%]")
            axes.set_ylabel("Mean delay [ms]")
            axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
            axes.grid(color=FAINT, linewidth=0.8)
