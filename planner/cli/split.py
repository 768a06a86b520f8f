"""``planner split``: stage models of a model, and whether they give what it gives."""

from __future__ import annotations

import dataclasses
import hashlib
import json as json_format
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.output import JSON_OPTION, print_json, print_table
from planner.cli.places import folder_to_write
from planner.cli.shape import FINEST_OPTION, MAX_BLOCKS_OPTION, SHAPE_OPTION, parse_shapes
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.model.chain import Chain
    from planner.model.load import ChainModel

MANIFEST = "manifest.json"


def command(
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    cuts: Annotated[str, typer.Option(help="Cut points to split at, numbered as by `planner inspect`, such as 3,7.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder to write the stage models and their manifest to.", callback=folder_to_write
        ),
    ],
    max_blocks: int = MAX_BLOCKS_OPTION,
    finest: bool = FINEST_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    inputs: Annotated[
        Path | None, typer.Option(help="Inputs for the check: .npz file, by name.", show_default="random")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compare the chained stages with the whole model.")] = True,
    json: bool = JSON_OPTION,
) -> None:
    """Split a model into stage models, and check that chained they give its outputs."""
    from planner.model.load import load_chain

    chain_model = load_chain(model, max_blocks=None if finest else max_blocks, shape=parse_shapes(shape))
    borders = [0, *_parse_cuts(cuts, chain_model.chain), len(chain_model.chain)]
    stages = [_write_stage(chain_model, first, end - 1, output) for first, end in pairwise(borders)]
    document: dict[str, Any] = {
        "model_sha256": chain_model.chain.model_sha256,
        "chain_sha256": chain_model.chain.chain_sha256,
        "stages": stages,
    }
    if check:
        document["check"] = _check(chain_model, stages, output, inputs)
    from planner.files import write_text_atomic

    write_text_atomic(output / MANIFEST, json_format.dumps(document, indent=2) + "\n")
    if json:
        print_json(document)
    else:
        _print(document, output)
    if check and not document["check"]["passed"]:
        raise typer.Exit(1)


def _parse_cuts(text: str, chain: Chain) -> list[int]:
    if len(chain) == 1:
        raise UsageError("this model is one block, which has no inner cut", where="--cuts", value=text)
    expected = f"inner cuts of the chain, 1 to {len(chain) - 1}, as in 3,7"
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isdecimal() and 1 <= int(word) <= len(chain) - 1)]
    if wrong:
        raise UsageError("no such cut", where="--cuts", value=wrong[0], expected=expected)
    return sorted({int(word) for word in words})


def _write_stage(chain_model: ChainModel, first: int, last: int, folder: Path) -> dict[str, Any]:
    from planner.files import write_bytes_atomic

    file = f"stage-{first}-{last}.onnx"
    stage = chain_model.stage_model(first, last)
    write_bytes_atomic(folder / file, stage)
    return {
        "file": file,
        "first_block": first,
        "last_block": last,
        "inputs": list(chain_model.stage_inputs(first, last)),
        "outputs": list(chain_model.stage_outputs(first, last)),
        "sha256": hashlib.sha256(stage).hexdigest(),
    }


def _check(chain_model: ChainModel, stages: list[dict[str, Any]], folder: Path, inputs: Path | None) -> dict[str, Any]:
    import numpy as np

    from planner.runtime.check import TOLERANCE, StageModel, check_stages, tolerance_of
    from planner.runtime.inputs import load_arrays, random_inputs

    chain = chain_model.chain
    given = load_arrays(inputs) if inputs else random_inputs(chain.cuts[0].tensors, np.random.default_rng(0))
    models = [StageModel(stage["first_block"], stage["last_block"], folder / stage["file"]) for stage in stages]
    plain = check_stages(chain, chain_model.path, models, given, optimise=False)
    optimised = check_stages(chain, chain_model.path, models, given, optimise=True)
    tolerance = tolerance_of([cut.tensors for cut in chain.cuts])
    exact = plain.bit_equal or (tolerance > TOLERANCE and plain.max_rel_error <= tolerance)
    return {
        "passed": exact and optimised.max_rel_error <= tolerance,
        "tolerance": tolerance,
        "plain": dataclasses.asdict(plain),
        "optimised": dataclasses.asdict(optimised),
    }


def _print(document: dict[str, Any], folder: Path) -> None:
    print_table(
        f"{len(document['stages'])} stages in {folder}",
        ["file", ">blocks", "inputs", "outputs"],
        [
            (
                stage["file"],
                f"{stage['first_block']}..{stage['last_block']}",
                ", ".join(stage["inputs"]),
                ", ".join(stage["outputs"]),
            )
            for stage in document["stages"]
        ],
    )
    if "check" in document:
        found = document["check"]
        plain = found["plain"]
        equal = "bit-equal" if plain["bit_equal"] else f"not bit-equal ({plain['max_rel_error']:.1e})"
        typer.echo(
            f"{'passed' if found['passed'] else 'FAILED'}: chained against whole, {equal} without graph optimisation, "
            f"largest relative error {found['optimised']['max_rel_error']:.1e} with it "
            f"({found['tolerance']:.0e} is allowed)"
        )
