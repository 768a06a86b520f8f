"""A picture of a chain: nominal cost and cut bytes along the model, the chosen cuts marked."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from planner.files import write_bytes_atomic

if TYPE_CHECKING:
    from planner.model.load import ChainModel


def draw_chain(chain_model: ChainModel, path: Path) -> None:
    """Write the picture as SVG; the same chain gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    line, costs, borders = chain_model.line, chain_model.costs, chain_model.borders
    cuts = range(len(line) + 1)
    flop = [costs.flop[node.index] / 1e6 for node in line.order]
    with mpl.rc_context({"svg.hashsalt": chain_model.chain.chain_sha256, "svg.fonttype": "none"}):
        figure = Figure(figsize=(10, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.bar([at + 0.5 for at in range(len(line))], flop, width=0.9, color="#4477aa")
        upper.set_ylabel("MFLOP of each node")
        lower.step(cuts, [line.bytes_at(cut) / 1024 for cut in cuts], where="mid", color="#228833")
        lower.set_ylabel("KiB that cross each cut")
        lower.set_yscale("log")
        lower.set_xlabel("work of the model, in the order in which it runs")
        for axes in (upper, lower):
            for border in borders[1:-1]:
                axes.axvline(border, color="#cc6677", linewidth=1)
        for index, (first, end) in enumerate(itertools.pairwise(borders)):
            upper.text((first + end) / 2, 1.02, str(index), transform=upper.get_xaxis_transform(), ha="center")
        exits = {leave.cut for leave in chain_model.chain.exits}
        lower.plot(
            [borders[cut] for cut in sorted(exits)],
            [line.bytes_at(borders[cut]) / 1024 for cut in sorted(exits)],
            "v",
            color="#aa3377",
        )
        title = f"{chain_model.chain.name}: {len(chain_model.chain)} blocks"
        figure.suptitle(f"{title}; triangles: early exits" if exits else title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_bytes_atomic(path, buffer.getvalue())
