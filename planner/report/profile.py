"""A profile: time, memory and cut bytes along the chain."""

from __future__ import annotations

from pathlib import Path

from planner.profile.types import Profile
from planner.report.figure import FAINT, PALETTE, new_figure


def draw_profile(profile: Profile, path: Path) -> None:
    """Draw what each block takes, and what crosses each cut.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    blocks = profile.blocks
    at = range(len(blocks))
    with new_figure(path) as figure:
        times, memory, cuts = figure.subplots(3, 1, sharex=True)
        means_ms = [1e3 * block.mean_s for block in blocks]
        times.bar(at, means_ms, yerr=[1e3 * block.std_s for block in blocks], color=PALETTE[0], capsize=3)
        times.set_ylabel("Time [ms]")
        times.set_title(f"{profile.model.name} on {profile.device_class} ({profile.provenance})")
        weights = [block.weight_bytes / 2**20 for block in blocks]
        memory.bar(at, weights, color=PALETTE[1], label="weights")
        peaks = [block.activation_bytes / 2**20 for block in blocks]
        memory.bar(at, peaks, bottom=weights, color=PALETTE[4], label="largest activations")
        memory.set_ylabel("Memory [MiB]")
        memory.legend(frameon=False)
        crossing = [size / 2**10 for size in profile.cut_bytes]
        cuts.bar([cut - 0.5 for cut in range(len(crossing))], crossing, width=0.12, color=PALETTE[2])
        cuts.set_ylabel("Across each cut [KiB]")
        cuts.set_xlabel("Block")
        cuts.set_xticks(list(at), [str(index) for index in at])
        for axes in (times, memory, cuts):
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.set_axisbelow(True)
