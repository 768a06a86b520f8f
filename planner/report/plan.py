"""A plan at one look: the routes of each source along time, and how busy and how full each device and network is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from planner.plan.evaluate import Leg, alone_at_home, legs, sustained
from planner.plan.journey import Place
from planner.plan.types import Plan, Route
from planner.report.figure import (
    ALERT,
    FAINT,
    GREY,
    LEAST_ROWS,
    PALETTE,
    new_figure,
    shortened,
    text_colour,
    write_beside,
    write_inside,
)
from planner.report.loads import draw_loads, loads
from planner.scenario.instance import Instance
from planner.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROUTES: Final = 6
"""Of a source with more, those of the largest shares are drawn, and what the others come to is told."""

MOST_HEIGHT: Final = 33.0
"""In heights of a route. Where it is too little, each source has fewer of them, and the least important none."""

_REST: Final = 0.75
_GAP: Final = 0.35
_BAR: Final = 0.74

_POINTS_PER_PX: Final = 0.72
_PANEL_POINTS: Final = 520.0  # about, from top to bottom
_LABEL_POINTS: Final = 9.0
_COLUMNS: Final = (-52.0, -6.0, 58.0, 142.0)  # where the columns beside the bars end, see _write_beside
_ALL: Final = 1 - 1e-9


@dataclass(frozen=True)
class Band:
    """A source's part of the picture.

    Parameters
    ----------
    top
        Where it begins, in heights of a route.
    ways
        The routes that are drawn, with their legs, that of the largest share first.
    rest
        The others.
    """

    source: str
    top: float
    ways: Sequence[tuple[Route, Sequence[Leg]]]
    rest: Sequence[Route]

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.top + len(self.ways) + _REST * bool(self.rest)


class Piece(NamedTuple):
    """A piece of a bar: the waiting for a leg, or its work."""

    start_s: float
    length_s: float
    colour: str


def draw_plan(instance: Instance, plan: Plan, path: Path) -> None:
    """Draw where a plan sends the samples of each source, how long each leg takes, and what that makes of the devices.

    A route's bar is as long as its samples' mean delay, by :func:`planner.plan.evaluate.legs`: for the goal
    ``throughput`` at the largest rates that the bottleneck can do, for ``makespan`` without any waiting.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    bands, left_out = _bands(instance, plan)
    colours = _worker_colours(instance.workers)
    with new_figure(path) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08, wspace=0.03)
        routes, uses = figure.subplots(1, 2, width_ratios=(2.7, 1))
        _draw_frame(routes, instance, plan, bands, left_out)
        draw_loads(uses, instance, plan, colours)
        figure.suptitle(plan.summary, x=0.01, ha="left", fontsize=11)
        figure.legend(handles=_legend(bands), loc="outside lower center", ncols=6, frameon=False, fontsize=10)
        # What there is room for in a bar is known once the panels have their sizes.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _draw_ways(routes, instance, bands, colours)


def _bands(instance: Instance, plan: Plan) -> tuple[list[Band], list[str]]:
    """Give the sources that are drawn, the most important first, and the names of those that are not."""
    found = legs(instance, {source: own.routes for source, own in plan.sources.items()})
    order = sorted(plan.sources, key=lambda source: -instance.scenario.sources[source].priority)
    counts = [len(plan.sources[source].routes) for source in order]

    def height(most: int) -> float:
        return sum(min(count, most) + _REST * (count > most) + _GAP for count in counts)

    most = next((most for most in range(MOST_ROUTES, 1, -1) if height(most) <= MOST_HEIGHT), 1)
    bands: list[Band] = []
    top = 0.0
    for source in order:
        pairs = zip(plan.sources[source].routes, found[source], strict=True)
        ways = sorted(pairs, key=lambda pair: -pair[0].share)
        band = Band(source, top, ways[:most], [route for route, _ in ways[most:]])
        if band.bottom > MOST_HEIGHT:
            break
        bands.append(band)
        top = band.bottom + _GAP
    return bands, order[len(bands) :]


# ---- routes ---------------------------------------------------------------------------------------------------------


def _draw_frame(axes: Axes, instance: Instance, plan: Plan, bands: Sequence[Band], left_out: Sequence[str]) -> None:
    """Draw all but the bars: who the sources are, the shares of their routes, and the delays they come to."""
    height = max(bands[-1].bottom + bool(left_out), LEAST_ROWS) + _GAP
    line = 13 * height / _PANEL_POINTS
    axes.set_ylim(height, -2.8 * line)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("From a sample's arrival to its result")
    long = max(_finite_s(way) for band in bands for _, way in band.ways) >= 10
    axes.xaxis.set_major_formatter(lambda time_s, _: f"{time_s if long else 1e3 * time_s:g}")
    axes.set_xlabel(f"Mean time since the sample's arrival{_condition(plan)} [{'s' if long else 'ms'}]")
    for text, offset in zip(("source", "share", "mean\ndelay", "whole model\nalone at home"), _COLUMNS, strict=True):
        write_beside(axes, -0.4 * line, text, offset, color=GREY, va="bottom")
    if left_out:
        write_inside(axes, bands[-1].bottom + 0.6, _left_out(instance, plan, left_out))
    for band in bands:
        axes.axhspan(band.top - 0.05, band.bottom + 0.05, color=FAINT, alpha=0.35, linewidth=0)
        _write_band(axes, instance, plan, band, line)


def _write_band(axes: Axes, instance: Instance, plan: Plan, band: Band, line: float) -> None:
    """Write what stands beside the bars of a source; ``line`` is the height of a line of text."""
    source_at, share_at, delay_at, home_at = _COLUMNS
    middle = (band.top + band.bottom) / 2
    about = _about(instance, plan, band.source)
    name = shortened(band.source)
    if band.bottom - band.top > 2 * line:
        write_beside(axes, middle - line / 2, name, source_at, fontweight="bold")
        write_beside(axes, middle + line / 2, ", ".join(about), source_at, color=GREY, fontsize=_LABEL_POINTS)
    else:
        write_beside(axes, middle, f"{name}, {about[0]}", source_at)
    for row, (route, _) in enumerate(band.ways):
        write_beside(axes, band.top + row + 0.5, f"{route.share:.1%}", share_at)
    if band.rest:
        write_inside(axes, band.top + len(band.ways) + _REST / 2, _rest(band.rest))
    delay_s = plan.sources[band.source].delay_s
    colour = "black" if math.isfinite(delay_s) else ALERT
    write_beside(axes, middle, _time(delay_s), delay_at, fontweight="bold", color=colour)
    write_beside(axes, middle, _at_home(instance, band), home_at, color=GREY)


def _draw_ways(axes: Axes, instance: Instance, bands: Sequence[Band], colours: Mapping[str, str]) -> None:
    """Draw the bars of the routes, with what there is room for written in them and behind them."""
    width_px = axes.get_window_extent().width
    rows = [
        (band.top + row + 0.5, way, _note(instance, band, route, way))
        for band in bands
        for row, (route, way) in enumerate(band.ways)
    ]
    longest_s = max(_finite_s(way) / (1 - (_width_px(note) + 14) / width_px) for _, way, note in rows) or 1.0
    axes.set_xlim(0, longest_s)
    px_per_s = width_px / longest_s
    for middle, way, short in rows:
        end_s, told = 0.0, True
        for leg in way:
            if not math.isfinite(leg.wait_s):
                told = False
                break
            colour = GREY if leg.place.transfer else colours[leg.place.place]
            pieces = [
                Piece(end_s, leg.wait_s, _lighter(colour)),
                Piece(end_s + leg.wait_s, leg.work_s, colour),
            ]
            label = _draw_leg(axes, middle, pieces, _labels(leg), px_per_s)
            told = told and (leg.place.transfer or label.startswith(f"{leg.place.place}: "))
            end_s += leg.wait_s + leg.work_s
        longer = ", ".join(filter(None, (short, _stages(way))))
        roomy = end_s * px_per_s + _width_px(longer) + 14 < width_px
        note = longer if roomy and not told else short
        axes.annotate(
            note,
            (end_s, middle),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=_LABEL_POINTS,
            color=GREY if math.isfinite(_mean_s(way)) else ALERT,
        )


def _draw_leg(axes: Axes, middle: float, pieces: Sequence[Piece], labels: Sequence[str], px_per_s: float) -> str:
    """Draw the pieces of a leg, and give the fullest label that has room in one of them, which is written."""
    for piece in pieces:
        if piece.length_s > 0:
            # What follows is parted by a pixel; what is thinner than one may not be drawn at all.
            shown_px = max(piece.length_s * px_per_s - 1, 1)
            axes.barh(middle, shown_px / px_per_s, _BAR, left=piece.start_s, color=piece.colour, linewidth=0)
    for label in labels:
        for piece in reversed(pieces):
            if _width_px(label) + 10 < piece.length_s * px_per_s:
                axes.text(
                    piece.start_s + piece.length_s / 2,
                    middle,
                    label,
                    ha="center",
                    va="center",
                    fontsize=_LABEL_POINTS,
                    color=text_colour(piece.colour),
                )
                return label
    return ""


def _labels(leg: Leg) -> list[str]:
    """Give what may be written on a leg, the fullest first."""
    name = leg.place.place
    if leg.place.transfer:
        network, _, link = name.partition(":")
        return [name, link or network]
    some = f" ({leg.probability:.0%})" if leg.probability < _ALL else ""
    short = f"{name}: {_blocks(leg.place)}"
    return [f"{leg.place}{some}", f"{short}{some}", short, name]


def _stages(way: Sequence[Leg]) -> str:
    stages = [leg.place for leg in way if not leg.place.transfer]
    return " > ".join(f"{place.place}: {_blocks(place)}" for place in stages)


def _blocks(place: Place) -> str:
    return str(place.first) if place.first == place.last else f"{place.first}-{place.last}"


def _note(instance: Instance, band: Band, route: Route, way: Sequence[Leg]) -> str:
    """Give what stands behind a route's bar: its delay where the source has others, its model where it has others."""
    endless = next((leg for leg in way if not math.isfinite(leg.wait_s)), None)
    if endless is not None:
        return f"waits for ever for {endless.place.place}"
    points = instance.operating_points(route.model)
    told = [_time(_mean_s(way))] if len(band.ways) + len(band.rest) > 1 else []
    if len(points) > 1:
        told.append(f"{route.model} ({points[route.operating_point].name})")
    elif len(instance.scenario.sources[band.source].models) > 1:
        told.append(route.model)
    return shortened(", ".join(told), 48)


def _about(instance: Instance, plan: Plan, source: str) -> list[str]:
    """Say what a source asks for, and how accurate its answers are where that is known."""
    spec = instance.scenario.sources[source]
    told = [f"priority {spec.priority:g}"]
    if plan.goal == "makespan":
        told.append(f"{spec.samples} samples")
    elif spec.rate_per_s is not None:
        told.append(format_quantity(spec.rate_per_s, "rate"))
    if spec.deadline_s is not None:
        told.append(f"≤ {format_quantity(spec.deadline_s, 'time')}")
    if instance.calibrated:
        told.append(f"{plan.sources[source].accuracy:.1%} right")
    return told


def _at_home(instance: Instance, band: Band) -> str:
    """Give the mean delay of a source whose samples all stay at home, were there no other source."""
    home = instance.home(band.source)
    found = alone_at_home(instance, band.source, band.ways[0][0])
    if found.workers[home].memory_bytes > instance.worker(home).memory_bytes:
        return "does not fit"
    if instance.scenario.objective.goal != "makespan" and found.workers[home].utilisation >= 1:
        return "overloaded"
    return _time(found.sources[band.source].delay_s)


def _rest(routes: Sequence[Route]) -> str:
    share = sum(route.share for route in routes)
    return f"and {len(routes)} more {'route' if len(routes) == 1 else 'routes'}, {share:.1%} of the samples"


def _left_out(instance: Instance, plan: Plan, sources: Sequence[str]) -> str:
    priority = max(instance.scenario.sources[source].priority for source in sources)
    delays_s = [plan.sources[source].delay_s for source in sources]
    between = f"mean delays {_time(min(delays_s))} to {_time(max(delays_s))}"
    return f"and {len(sources)} more sources, of priority {priority:g} or less: {between}"


def _condition(plan: Plan) -> str:
    """Say under which load the times are, where it is not the scenario's."""
    if plan.goal == "makespan":
        return ", waiting left out"
    share = sustained(max(loads(plan).values())) if plan.goal == "throughput" else 1.0
    return f", at {share:.1%} of the rates" if share < 1 else ""


# ---- small things ---------------------------------------------------------------------------------------------------


def _worker_colours(workers: Iterable[str]) -> dict[str, str]:
    """Give each worker a colour: six, the same darker, and then all again."""
    dark = ["#" + "".join(f"{int(one[place : place + 2], 16) * 9 // 16:02x}" for place in (1, 3, 5)) for one in PALETTE]
    every = (*PALETTE, *dark)
    return {worker: every[index % len(every)] for index, worker in enumerate(workers)}


def _lighter(colour: str) -> str:
    return "#" + "".join(f"{255 - (255 - int(colour[place : place + 2], 16)) * 2 // 5:02x}" for place in (1, 3, 5))


@cache
def _width_px(text: str) -> float:
    """Give how wide a label is."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=_LABEL_POINTS).get_extents().width) / _POINTS_PER_PX if text else 0.0


def _mean_s(way: Sequence[Leg]) -> float:
    return sum(leg.wait_s + leg.work_s for leg in way)


def _finite_s(way: Sequence[Leg]) -> float:
    """Give the time up to the first leg that is waited for without end."""
    endless = next((place for place, leg in enumerate(way) if not math.isfinite(leg.wait_s)), len(way))
    return _mean_s(way[:endless])


def _time(time_s: float) -> str:
    return format_quantity(time_s, "time") if math.isfinite(time_s) else "endless"


def _legend(bands: Sequence[Band]) -> list[object]:
    from matplotlib.patches import Patch

    drawn = [leg for band in bands for _, way in band.ways for leg in way]
    waiting = any(leg.wait_s > 0 for leg in drawn)
    some = any(leg.probability < _ALL for leg in drawn if not leg.place.transfer)
    return [
        Patch(color=PALETTE[0], label="computing, in the worker's colour"),
        *([Patch(color=_lighter(PALETTE[0]), label="waiting for the worker")] if waiting else []),
        Patch(color=GREY, label="sending"),
        *([Patch(color=_lighter(GREY), label="waiting for the network")] if waiting else []),
        *([Patch(color="none", label="(62%): so many samples come so far; times are means over all")] if some else []),
    ]
