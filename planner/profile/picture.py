"""A picture of a profile: time, memory and cut bytes along the chain."""

from __future__ import annotations

import io
from pathlib import Path

from planner.files import write_bytes_atomic
from planner.profile.types import Profile

TIME_COLOUR = "#4477aa"
MEMORY_COLOURS = ("#ccbb44", "#ee6677")


def draw_profile(profile: Profile, path: Path) -> None:
    """Write the picture as SVG; the same profile gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    blocks = profile.blocks
    at = range(len(blocks))
    with mpl.rc_context({"svg.hashsalt": profile.chain_sha256, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 7), layout="constrained")
        times, memory, cuts = figure.subplots(3, 1, sharex=True)
        times.bar(
            at,
            [1e3 * block.mean_s for block in blocks],
            yerr=[1e3 * block.std_s for block in blocks],
            color=TIME_COLOUR,
            capsize=3,
        )
        times.set_ylabel("time of a block, ms")
        weights = [block.weight_bytes / 2**20 for block in blocks]
        memory.bar(at, weights, color=MEMORY_COLOURS[0], label="weights")
        peaks = [block.activation_bytes / 2**20 for block in blocks]
        memory.bar(at, peaks, bottom=weights, color=MEMORY_COLOURS[1], label="peak of activations")
        memory.set_ylabel("memory, MiB")
        memory.legend()
        cuts.stem(
            [cut - 0.5 for cut in range(len(blocks) + 1)], [size / 2**10 for size in profile.cut_bytes], basefmt=" "
        )
        cuts.set_ylabel("across each cut, KiB")
        cuts.set_xlabel("block")
        cuts.set_xticks(list(at), [str(index) for index in at])
        figure.suptitle(f"{profile.model.name} on {profile.device_class} ({profile.provenance})")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes_atomic(path, buffer.getvalue())
