"""Picture of a network survey: bandwidth and latency between agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planner.report.figure import new_figure, text_colour


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
    with new_figure(path) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(megabits, cmap="cividis", norm="log")
        figure.colorbar(image, label="bandwidth in Mbit/s")
        for (sender, receiver), rate in bytes_per_s.items():
            red, green, blue, _ = image.to_rgba(np.array([rate * 8 / 1e6]))[0]
            colour = text_colour(f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}")
            text = f"{rate * 8 / 1e6:.3g} Mbit/s\n{latency_s[sender, receiver] * 1e3:.2g} ms"
            axes.text(index_of[receiver], index_of[sender], text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(workers)), workers)
        axes.set_yticks(range(len(workers)), workers)
        axes.set_xlabel("to")
        axes.set_ylabel("from")
        axes.set_title("Bandwidth and latency between agents")
