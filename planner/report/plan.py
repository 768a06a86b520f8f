"""Picture of a plan: the routes of each source over time, and the load and memory of each device and network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from planner.plan.evaluate import PlannedLeg, legs, loads_by_source
from planner.plan.types import PlanSpec, Route
from planner.report import plan_words as words
from planner.report.figure import (
    ALERT,
    COMPUTING,
    FAINT,
    GREY,
    PIXELS,
    SENDING,
    WAITING,
    new_figure,
    shortened,
    source_colours,
    text_colour,
    write_beside,
    write_inside,
)
from planner.report.headline import headline
from planner.report.loads import MAX_LOADS, draw_loads, loads
from planner.scenario.instance import Instance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ROUTES: Final = 6
"""Maximum number of routes drawn per source: those with the largest shares; the others are summarised."""

MAX_HEIGHT: Final = 33.0
"""Maximum height in rows. If it is too small, fewer routes are drawn per source, and the last sources are left out."""

LEAST_PX: Final = 360
MIN_LOADS: Final = 0.85
"""Rows of routes beside one bar of a device or network."""

_FRAME_PX, _ROW_PX = 190, 84
"""Height of what is not a row, and of a row, as long as there are few."""
_REST: Final = 0.75
_GAP: Final = 0.35
_BAR: Final = 0.74

_POINTS_PER_PX: Final = 0.72
_LABEL_POINTS: Final = 9.0
_COLUMNS: Final = (-52.0, -6.0, 58.0, 142.0)  # right ends of the columns beside the bars, see `write_beside`


@dataclass(frozen=True)
class Band:
    """Part of the picture for a source.

    Parameters
    ----------
    top
        Upper end, in rows.
    drawn
        Routes that are drawn with their legs, the largest share first.
    rest
        The other routes.
    """

    source: str
    top: float
    drawn: Sequence[tuple[Route, Sequence[PlannedLeg]]]
    rest: Sequence[Route]

    @property
    def bottom(self) -> float:
        """Lower end, in rows."""
        return self.top + len(self.drawn) + _REST * bool(self.rest)


class Piece(NamedTuple):
    """A piece of a bar: the waiting time or the work of a leg."""

    start_s: float
    length_s: float
    colour: str


def draw_plan(instance: Instance, plan: PlanSpec, path: Path) -> None:
    """Draw the routes of each source with the time of each leg, and the resulting load of the devices.

    The length of a route's bar is the mean delay of its samples, by :func:`planner.plan.evaluate.legs`: for the goal
    ``throughput`` at the largest rates that the bottleneck sustains, for ``makespan`` without waiting.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    bands, left_out = _bands(instance, plan)
    colours = source_colours(instance.sources)
    rows = max(bands[-1].bottom + bool(left_out) + _GAP, MIN_LOADS * min(len(loads(plan)), MAX_LOADS))
    height = min(max(_FRAME_PX + round(_ROW_PX * rows), LEAST_PX), PIXELS[1])
    with new_figure(path, (PIXELS[0], height)) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08, wspace=0.03)
        routes, uses = figure.subplots(1, 2, width_ratios=(2.7, 1))
        _draw_frame(routes, instance, plan, bands, left_out, colours=colours, panel_points=0.72 * (height - _FRAME_PX))
        draw_loads(uses, instance, plan, loads_by_source(instance, _routes(plan)), colours)
        figure.suptitle(headline(instance, plan), x=0.01, ha="left", fontsize=13, fontweight="bold")
        figure.legend(handles=_legend(bands), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
        # Which labels fit into a bar is known only after the layout of the panels.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _draw_bars(routes, instance, bands)


def _routes(plan: PlanSpec) -> dict[str, tuple[Route, ...]]:
    return {source: flow.routes for source, flow in plan.sources.items()}


def _bands(instance: Instance, plan: PlanSpec) -> tuple[list[Band], list[str]]:
    """Return the sources that are drawn, the most important first, and the names of those that are not."""
    legs_of = legs(instance, _routes(plan))
    order = sorted(plan.sources, key=lambda source: -instance.scenario.sources[source].priority)
    counts = [len(plan.sources[source].routes) for source in order]

    def height(most: int) -> float:
        return sum(min(count, most) + _REST * (count > most) + _GAP for count in counts)

    most = next((most for most in range(MAX_ROUTES, 1, -1) if height(most) <= MAX_HEIGHT), 1)
    bands: list[Band] = []
    top = 0.0
    for source in order:
        pairs = zip(plan.sources[source].routes, legs_of[source], strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[0].share)
        band = Band(source, top, ranked[:most], [route for route, _ in ranked[most:]])
        if band.bottom > MAX_HEIGHT:
            break
        bands.append(band)
        top = band.bottom + _GAP
    return bands, order[len(bands) :]


# ---- routes ---------------------------------------------------------------------------------------------------------


def _draw_frame(
    axes: Axes,
    instance: Instance,
    plan: PlanSpec,
    bands: Sequence[Band],
    left_out: Sequence[str],
    *,
    colours: Mapping[str, str],
    panel_points: float,
) -> None:
    """Draw everything except the bars: names of sources, shares of routes, and delays."""
    height = bands[-1].bottom + bool(left_out) + _GAP
    line = 13 * height / panel_points
    axes.set_ylim(height, -2.8 * line)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("From a sample's arrival to its result")
    long = max(words.finite_s(route_legs) for band in bands for _, route_legs in band.drawn) >= 10
    axes.xaxis.set_major_formatter(lambda time_s, _: f"{time_s if long else 1e3 * time_s:g}")
    axes.set_xlabel(f"Mean time since the sample's arrival{words.condition(instance, plan)} [{'s' if long else 'ms'}]")
    for text, offset in zip(("source", "share", "mean\ndelay", "whole model\nalone at home"), _COLUMNS, strict=True):
        write_beside(axes, -0.4 * line, text, offset, color=GREY, va="bottom")
    if left_out:
        write_inside(axes, bands[-1].bottom + 0.6, words.left_out(instance, plan, left_out))
    for band in bands:
        axes.axhspan(band.top - 0.05, band.bottom + 0.05, color=FAINT, alpha=0.35, linewidth=0)
        axes.add_patch(_stripe(axes, band, colours[band.source]))
        _write_band(axes, instance, plan, band, line)


def _stripe(axes: Axes, band: Band, colour: str) -> Any:
    """Return the mark of a source at the left side of its rows."""
    from matplotlib.patches import Rectangle

    return Rectangle(
        (-0.008, band.top - 0.05),
        0.008,
        band.bottom - band.top + 0.1,
        transform=axes.get_yaxis_transform(),
        color=colour,
        linewidth=0,
        clip_on=False,
    )


def _write_band(axes: Axes, instance: Instance, plan: PlanSpec, band: Band, line: float) -> None:
    """Write the text beside the bars of a source; ``line`` is the height of a line of text, in rows."""
    source_at, share_at, delay_at, home_at = _COLUMNS
    middle = (band.top + band.bottom) / 2
    about = words.about(instance, plan, band.source)
    name = shortened(band.source)
    if band.bottom - band.top > 2 * line:
        write_beside(axes, middle - line / 2, name, source_at, fontweight="bold")
        write_beside(axes, middle + line / 2, ", ".join(about), source_at, color=GREY, fontsize=_LABEL_POINTS)
    else:
        write_beside(axes, middle, f"{name}, {about[0]}", source_at)
    for row, (route, _) in enumerate(band.drawn):
        write_beside(axes, band.top + row + 0.5, f"{route.share:.1%}", share_at)
    if band.rest:
        write_inside(axes, band.top + len(band.drawn) + _REST / 2, words.rest(band.rest))
    delay_s = plan.sources[band.source].delay_s
    colour = "black" if math.isfinite(delay_s) else ALERT
    write_beside(axes, middle, words.time(delay_s), delay_at, fontweight="bold", color=colour)
    write_beside(axes, middle, words.at_home(instance, band.source, band.drawn[0][0]), home_at, color=GREY)


def _draw_bars(axes: Axes, instance: Instance, bands: Sequence[Band]) -> None:
    """Draw the bars of the routes, with as many labels in and after them as fit."""
    width_px = axes.get_window_extent().width
    rows = [
        (
            band.top + row + 0.5,
            route_legs,
            words.note(instance, band.source, route, route_legs, several=len(band.drawn) + len(band.rest) > 1),
        )
        for band in bands
        for row, (route, route_legs) in enumerate(band.drawn)
    ]
    longest_s = (
        max(words.finite_s(route_legs) / (1 - (_width_px(note) + 14) / width_px) for _, route_legs, note in rows) or 1.0
    )
    axes.set_xlim(0, longest_s)
    px_per_s = width_px / longest_s
    for middle, route_legs, short in rows:
        end_s, all_named = 0.0, True
        for leg in route_legs:
            if not math.isfinite(leg.wait_s):
                all_named = False
                break
            pieces = [
                Piece(end_s, leg.wait_s, WAITING),
                Piece(end_s + leg.wait_s, leg.work_s, SENDING if leg.site.transfer else COMPUTING),
            ]
            label = _draw_leg(axes, middle, pieces, words.labels(leg), px_per_s)
            all_named = all_named and (leg.site.transfer or label.startswith(f"{leg.site.resource}: "))
            end_s += leg.wait_s + leg.work_s
        longer = ", ".join(filter(None, (short, words.stages(route_legs))))
        roomy = end_s * px_per_s + _width_px(longer) + 14 < width_px
        note = longer if roomy and not all_named else short
        axes.annotate(
            note,
            (end_s, middle),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=_LABEL_POINTS,
            color=GREY if math.isfinite(words.mean_s(route_legs)) else ALERT,
        )


def _draw_leg(axes: Axes, middle: float, pieces: Sequence[Piece], labels: Sequence[str], px_per_s: float) -> str:
    """Draw the pieces of a leg, write the longest label that fits into the last one, and return this label."""
    for piece in pieces:
        if piece.length_s > 0:
            # A pixel separates the piece from the next one; pieces thinner than a pixel may not be drawn.
            shown_px = max(piece.length_s * px_per_s - 1, 1)
            axes.barh(middle, shown_px / px_per_s, _BAR, left=piece.start_s, color=piece.colour, linewidth=0)
    work = pieces[-1]
    for label in labels:
        if _width_px(label) + 10 < work.length_s * px_per_s:
            axes.text(
                work.start_s + work.length_s / 2,
                middle,
                label,
                ha="center",
                va="center",
                fontsize=_LABEL_POINTS,
                color=text_colour(work.colour),
            )
            return label
    return ""


# ---- small helpers --------------------------------------------------------------------------------------------------


@cache
def _width_px(text: str) -> float:
    """Return the width of a label in pixels."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=_LABEL_POINTS).get_extents().width) / _POINTS_PER_PX if text else 0.0


def _legend(bands: Sequence[Band]) -> list[object]:
    from matplotlib.patches import Patch

    drawn = [leg for band in bands for _, route_legs in band.drawn for leg in route_legs]
    waiting = any(leg.wait_s > 0 for leg in drawn)
    partial = any(leg.probability < words.ALL for leg in drawn if not leg.site.transfer)
    return [
        Patch(color=COMPUTING, label="computing"),
        Patch(color=SENDING, label="sending"),
        *([Patch(color=WAITING, label="waiting for what follows")] if waiting else []),
        Patch(color="none", label="coloured: the source, and its part of each load"),
        *(
            [Patch(color="none", label="(62%): share of samples that get this far; times are means over all")]
            if partial
            else []
        ),
    ]
