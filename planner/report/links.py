"""Picture of a network survey: bandwidth and latency between agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from planner.report.figure import FAINT, PIXELS, new_figure, text_colour
from planner.units import format_quantity

_CELL_PX: Final = (190, 92)
_FRAME_PX: Final = (200, 170)
"""Width and height of a cell, and of what is around the cells."""


def draw_links(
    workers: Sequence[str],
    bytes_per_s: Mapping[tuple[str, str], float],
    latency_s: Mapping[tuple[str, str], float],
    path: Path,
) -> None:
    """Draw a matrix of senders and receivers, shaded by bandwidth, with bandwidth and latency in each cell.

    Parameters
    ----------
    bytes_per_s, latency_s
        Values by sender and receiver; cells of missing pairs stay empty.
    """
    index_of = {worker: index for index, worker in enumerate(workers)}
    megabits = np.full((len(workers), len(workers)), np.nan)
    for (sender, receiver), rate in bytes_per_s.items():
        megabits[index_of[sender], index_of[receiver]] = rate * 8 / 1e6
    width, height = (frame + cell * len(workers) for frame, cell in zip(_FRAME_PX, _CELL_PX, strict=True))
    with new_figure(path, (min(width, PIXELS[0]), min(height, PIXELS[0]))) as figure:
        axes = figure.add_subplot()
        axes.set_facecolor(FAINT)
        image = axes.imshow(megabits, cmap="cividis", norm="log", aspect="auto")
        for (sender, receiver), rate in bytes_per_s.items():
            red, green, blue, _ = image.to_rgba(np.array([rate * 8 / 1e6]))[0]
            colour = text_colour(f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}")
            latency = format_quantity(latency_s[sender, receiver], "time")
            text = f"{format_quantity(rate, 'bandwidth')}\n{latency}"
            axes.text(index_of[receiver], index_of[sender], text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(workers)), workers)
        axes.set_yticks(range(len(workers)), workers)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("Receiver")
        axes.set_ylabel("Sender")
        axes.set_title("Bandwidth and latency between agents, the darker the slower")
