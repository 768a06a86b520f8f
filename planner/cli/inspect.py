"""``planner inspect``: the chain of blocks that a model is seen as."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.output import JSON_OPTION, print_json, print_table
from planner.cli.places import picture_to_write
from planner.cli.shape import FINEST_OPTION, MAX_BLOCKS_OPTION, SHAPE_OPTION, parse_shapes

if TYPE_CHECKING:
    from planner.model.load import ChainModel


def command(
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    max_blocks: int = MAX_BLOCKS_OPTION,
    finest: bool = FINEST_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also draw costs and cut sizes along the chain, .svg or .png.", callback=picture_to_write),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Show the blocks and cut points of a model, with what they cost."""
    from planner.model.load import load_chain

    chain_model = load_chain(model, max_blocks=None if finest else max_blocks, shape=parse_shapes(shape))
    if picture is not None:
        from planner.report.chain import draw_chain

        draw_chain(chain_model, picture)
    if json:
        print_json(_document(chain_model))
    else:
        _print_chain(chain_model)


def _document(chain_model: ChainModel) -> dict[str, Any]:
    chain = chain_model.chain
    return {
        "name": chain.name,
        "model_sha256": chain.model_sha256,
        "chain_sha256": chain.chain_sha256,
        "blocks": [dataclasses.asdict(block) for block in chain.blocks],
        "cuts": [{**dataclasses.asdict(cut), "bytes": cut.bytes} for cut in chain.cuts],
        "exits": [dataclasses.asdict(leave) for leave in chain.exits],
        "uncounted": dict(chain_model.uncounted),
    }


def _print_chain(chain_model: ChainModel) -> None:
    chain = chain_model.chain
    exits = {leave.cut: leave.name for leave in chain.exits}
    rows = []
    for index, (block, cut) in enumerate(zip(chain.blocks, chain.cuts[1:], strict=True)):
        crossing = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in cut.tensors)
        leaving = f"; exit {exits[cut.index]}" if cut.index in exits else ""
        rows.append(
            (
                index,
                block.nodes,
                f"{block.flop / 1e6:.1f}",
                f"{block.parameters / 1e3:.1f}",
                f"{block.weight_bytes / 2**20:.2f}",
                f"{block.activation_bytes / 2**20:.2f}",
                cut.index,
                f"{cut.bytes / 1024:.1f}",
                crossing + leaving,
            )
        )
    columns = [">block", ">nodes", ">MFLOP", ">k weights", ">MiB weights", ">MiB peak", ">cut", ">KiB", "crosses"]
    print_table(f"{chain.name}: {len(chain)} blocks", columns, rows)
    flop = sum(block.flop for block in chain.blocks)
    typer.echo(f"{flop / 1e6:.1f} MFLOP (a multiply-add is 2), input {chain.cuts[0].bytes / 1024:.1f} KiB")
    typer.echo(f"chain {chain.chain_sha256}")
    if chain_model.uncounted:
        names = ", ".join(f"{name} ×{count}" for name, count in sorted(chain_model.uncounted.items()))
        typer.echo(f"not counted in FLOP, for want of a rule or a shape: {names}", err=True)
