"""Picture of a profile: time, memory and cut sizes along the chain."""

from __future__ import annotations

from pathlib import Path

from planner.profiling.types import Profile
from planner.report.figure import COMPUTING, FAINT, SENDING, WAITING, new_figure


def draw_profile(profile: Profile, path: Path) -> None:
    """Draw the time and memory of each block, and the bytes across each cut.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    blocks = profile.blocks
    indices = range(len(blocks))
    with new_figure(path) as figure:
        times, memory, cuts = figure.subplots(3, 1, sharex=True)
        means_ms = [1e3 * block.mean_s for block in blocks]
        times.bar(
            indices, means_ms, yerr=[1e3 * block.std_s for block in blocks], color=COMPUTING, ecolor=SENDING, capsize=3
        )
        times.set_ylabel("Time [ms]")
        times.set_title(f"{profile.model.name} on {profile.device_class} ({profile.provenance})")
        weights = [block.weight_bytes / 2**20 for block in blocks]
        memory.bar(indices, weights, color=SENDING, label="weights")
        peaks = [block.activation_bytes / 2**20 for block in blocks]
        memory.bar(indices, peaks, bottom=weights, color=WAITING, label="peak activations")
        memory.set_ylabel("Memory [MiB]")
        memory.legend(frameon=False)
        crossing = [size / 2**10 for size in profile.cut_bytes]
        cuts.bar([cut - 0.5 for cut in range(len(crossing))], crossing, width=0.12, color=SENDING)
        cuts.set_ylabel("Size of each cut [KiB]")
        cuts.set_xlabel("Block, in execution order; cuts lie between blocks")
        cuts.set_xticks(list(indices), [str(index) for index in indices])
        for axes in (times, memory, cuts):
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.set_axisbelow(True)
