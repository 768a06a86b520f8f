"""Picture of a chain: nominal cost and cut sizes along the model, with the chosen cuts."""

from __future__ import annotations

import itertools
from pathlib import Path

from planner.model.load import ChainModel
from planner.report.figure import ALERT, COMPUTING, FAINT, GREY, INK, SENDING, new_figure

_NODES, _CUTS, _BORDERS = COMPUTING, SENDING, ALERT


def draw_chain(chain_model: ChainModel, path: Path) -> None:
    """Draw the FLOP of each node and the bytes across each cut of the finest chain; lines mark the cuts of the chain.

    Parameters
    ----------
    path
        File to write, ``.svg`` or ``.png``.
    """
    line, costs, borders = chain_model.line, chain_model.costs, chain_model.borders
    kib = [line.bytes_at(cut) / 1024 for cut in range(len(line) + 1)]
    with new_figure(path) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        mflop = [costs.flop[node.index] / 1e6 for node in line.order]
        upper.bar([position + 0.5 for position in range(len(line))], mflop, width=0.9, color=_NODES)
        upper.set_ylabel("Work of each node [MFLOP]")
        blocks = "1 block" if len(chain_model.chain) == 1 else f"{len(chain_model.chain)} blocks"
        upper.set_title(f"{chain_model.chain.name}: {blocks}", pad=24)
        lower.step(range(len(kib)), kib, where="mid", color=_CUTS, linewidth=2.2)
        lower.set_ylabel("Size of each cut [KiB]")
        lower.set_yscale("log")
        lower.set_xlabel("Node, in execution order")
        lower.set_xlim(0, len(line))
        for axes in (upper, lower):
            axes.grid(axis="y", color=FAINT, linewidth=0.8)
            axes.set_axisbelow(True)
            for border in borders[1:-1]:
                axes.axvline(border, color=_BORDERS, linewidth=1.2, label="block border")
        for index, (first, end) in enumerate(itertools.pairwise(borders)):
            middle = (first + end) / 2
            upper.text(middle, 1.02, str(index), transform=upper.get_xaxis_transform(), ha="center", color=GREY)
        exits = sorted({borders[exit_.cut] for exit_ in chain_model.chain.exits})
        if exits:
            lower.plot(exits, [kib[cut] for cut in exits], "v", color=INK, markersize=10, label="early exit")
        handles = dict(zip(*reversed(lower.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, frameon=False)
