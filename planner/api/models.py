"""Inspect a model as a chain of blocks, and split it into stage models."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final

from planner.api.picture import Picture, drawn
from planner.errors import ModelError
from planner.files import StrPath, write_bytes_atomic, write_text_atomic
from planner.model.chain import Block, Chain, Cut, TensorSpec
from planner.model.load import ChainModel, load_chain, load_for_batches
from planner.tables import Printable, Table, short_name

MANIFEST: Final = "manifest.json"


MAX_BLOCKS: Final = 8
"""Maximum number of blocks to cut a model into, by default."""


UNCUT_SHOWN: Final = 3
"""Number of tensors that are named as preventing cuts."""


CROSSING_SHOWN: Final = 4
"""Most tensors of a cut that are named in a table."""


def chain_of(
    model: StrPath | ChainModel,
    *,
    max_blocks: int | None,
    shape: Mapping[str, Sequence[int]] | None,
    axes: Mapping[str, int] | None,
    layer_assignment: str,
    state: Mapping[str, str] | None,
    batch: bool = False,
) -> ChainModel:
    """Return a model that is given as such or as a file, as a chain of blocks; for batches, if it runs them."""
    if isinstance(model, ChainModel):
        return model
    load = load_for_batches if batch else load_chain
    return load(model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state)


class ChainSummary(Printable):
    """The blocks and cuts of a model, with their costs."""

    def __init__(self, model: ChainModel) -> None:
        self.model = model

    @property
    def chain(self) -> Chain:
        """Blocks, cuts and exits."""
        return self.model.chain

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, in order."""
        return self.chain.blocks

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The tensors that cross each cut."""
        return self.chain.cuts

    @property
    def uncounted(self) -> str:
        """Operators that have no FLOP rule, with their numbers; empty if there are none."""
        return ", ".join(f"{name} ×{count}" for name, count in sorted(self.model.uncounted.items()))

    @property
    def uncut(self) -> str:
        """Tensors that prevent cuts where they cross, with the reason; empty if there are none."""
        reasons = list(self.model.uncut.items())
        told = [f"{name} ({reason})" for name, reason in reasons[:UNCUT_SHOWN]]
        more = len(reasons) - len(told)
        return ", ".join(told) + (f" and {more} more" if more else "")

    def contents(self) -> Iterator[Table | str]:
        """Return a table of the blocks, each with the cut after it."""
        chain = self.chain
        exits = {exit_.cut: short_name(exit_.name) for exit_ in chain.exits}
        rows = []
        for index, (block, cut) in enumerate(zip(chain.blocks, chain.cuts[1:], strict=True)):
            crossing = _crossing(cut)
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
                    crossing + (f"; exit {exits[cut.index]}" if cut.index in exits else ""),
                )
            )
        columns = (">block", ">nodes", ">MFLOP", ">k weights", ">MiB weights", ">MiB peak", ">cut", ">KiB", "crosses")
        yield Table(f"{chain.name}: {len(chain)} blocks", columns, rows)
        flop = sum(block.flop for block in chain.blocks)
        yield f"{flop / 1e6:.1f} MFLOP (a multiply-add is 2), input {chain.cuts[0].bytes / 1024:.1f} KiB"
        yield from self._stages()
        if axes := str(self.model.axes):
            yield f"axes {axes}"
        yield f"chain {chain.chain_sha256}"

    def _stages(self) -> Iterator[str]:
        """Yield a line about the devices that the model's annotations name, if they do."""
        if any(self.model.block_devices):
            named = enumerate(self.model.block_devices)
            runs = [(device, [block for block, _ in run]) for device, run in groupby(named, key=lambda pair: pair[1])]
            placed = [f"blocks {run[0]}..{run[-1]} on {device or 'any device'}" for device, run in runs]
            yield f"annotated: {', '.join(placed)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the chain as JSON data."""
        chain = self.chain
        return {
            "name": chain.name,
            "model_sha256": chain.model_sha256,
            "chain_sha256": chain.chain_sha256,
            "axes": dataclasses.asdict(self.model.axes),
            "blocks": [dataclasses.asdict(block) for block in chain.blocks],
            "cuts": [
                {
                    "index": cut.index,
                    "tensors": [
                        {key: getattr(spec, key) for key in ("name", "dtype", "shape")} for spec in cut.tensors
                    ],
                    "bytes": cut.bytes,
                }
                for cut in chain.cuts
            ],
            "annotated_devices": list(self.model.block_devices),
            "exits": [dataclasses.asdict(exit_) for exit_ in chain.exits],
            "uncounted": dict(self.model.uncounted),
            "uncut": dict(self.model.uncut),
        }

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of costs and cut sizes along the chain; write it to ``path`` if given."""
        from planner.report.chain import draw_chain

        return drawn(lambda file: draw_chain(self.model, file), path)

    def __repr__(self) -> str:
        return f"<ChainSummary of {self.chain.name}: {len(self.chain)} blocks>"


def _crossing(cut: Cut) -> str:
    """Return the tensors of a cut in words; of many, the largest and the number of others."""
    tensors: Sequence[TensorSpec] = cut.tensors
    others = 0
    if len(tensors) > CROSSING_SHOWN:
        tensors = sorted(tensors, key=lambda tensor: -tensor.bytes)[: CROSSING_SHOWN - 1]
        others = len(cut.tensors) - len(tensors)
    named = ", ".join(f"{short_name(tensor.name)} {list(tensor.shape)}" for tensor in tensors)
    return f"{named} and {others} more" if others else named


def inspect(
    model: StrPath | ChainModel,
    *,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
) -> ChainSummary:
    """Show a model as a chain of blocks.

    Parameters
    ----------
    model
        ONNX file, or a model from :func:`planner.load_chain`.
    max_blocks
        Maximum number of blocks to cut the model into; None for the finest chain. Only for a file.
    shape
        Shapes of inputs with dynamic axes, by name. Only for a file.
    axes
        Sizes of dynamic axes by the name that the model gives them: ``{"batch": 1}``. Only for a file.
    layer_assignment, state
        Rules for the model's layers, and its state, as for :func:`planner.load_chain`. Only for a file.

    Raises
    ------
    ModelError
        If the model is invalid, or has dynamic axes that ``shape`` and ``axes`` do not fix.

    Examples
    --------
    >>> inspect("models/resnet56-exits-fashion.onnx", max_blocks=4).blocks[1].name
    '1:stage1.0.slice'
    """
    return ChainSummary(
        chain_of(model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state)
    )


class Split(Printable):
    """Stage models of a model, and whether chained they compute the same as the whole model.

    Parameters
    ----------
    folder
        Folder of the stage models and of their manifest.
    document
        Contents of the manifest.
    """

    def __init__(self, folder: Path, document: Mapping[str, Any]) -> None:
        self.folder = folder
        self._document = dict(document)

    @property
    def files(self) -> tuple[Path, ...]:
        """File of each stage model, in order."""
        return tuple(self.folder / stage["file"] for stage in self._document["stages"])

    @property
    def passed(self) -> bool | None:
        """Whether the stages compute the same as the whole model; None if that was not checked."""
        return self._document["check"]["passed"] if "check" in self._document else None

    def contents(self) -> Iterator[Table | str]:
        """Return a table of the stages, and the result of the check."""
        stages = self._document["stages"]
        yield Table(
            f"{len(stages)} stages in {self.folder}",
            ("file", ">blocks", "inputs", "outputs"),
            [
                (
                    stage["file"],
                    f"{stage['first_block']}..{stage['last_block']}",
                    ", ".join(map(short_name, stage["inputs"])),
                    ", ".join(map(short_name, stage["outputs"])),
                )
                for stage in stages
            ],
        )
        if "check" in self._document:
            check = self._document["check"]
            plain = check["plain"]
            equal = "bit-equal" if plain["bit_equal"] else f"not bit-equal ({_error(plain['max_rel_error'])})"
            yield (
                f"{'passed' if check['passed'] else 'FAILED'}: chained against whole, {equal} without graph "
                f"optimisation, largest relative error {_error(check['optimised']['max_rel_error'])} with it"
                f"{_runs(check['runs'])}; "
                f"optimisation alone changes the whole model's outputs by {_error(check['whole_error'])} "
                f"({check['tolerance']:.1e} is allowed)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the manifest."""
        return dict(self._document)

    def __repr__(self) -> str:
        return f"<Split: {len(self.files)} stages in {self.folder}>"


def _runs(number: int) -> str:
    return f", over {number} runs with their state" if number > 1 else ""


def _error(relative: float | None) -> str:
    return "infinite" if relative is None else f"{relative:.1e}"


def split(
    model: StrPath | ChainModel,
    *,
    cuts: Sequence[int],
    folder: StrPath,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    check: bool = True,
    inputs: StrPath | None = None,
) -> Split:
    """Split a model into stage models, and check that chained they compute the same as the whole model.

    Parameters
    ----------
    model, max_blocks, shape, axes, layer_assignment, state
        As for :func:`planner.inspect`.
    cuts
        Inner cuts of the chain, as :func:`planner.inspect` numbers them.
    folder
        Folder to write, with the stage models and ``manifest.json``.
    check
        Whether to compare the stages, chained, with the whole model.
    inputs
        ``.npz`` file of inputs by name for the check; random by default.

    Raises
    ------
    ModelError
        If the model is invalid, or a cut is not an inner cut of the chain.
    RuntimeSessionError
        If onnxruntime fails, or the inputs cannot be read.
    """
    chain_model = chain_of(
        model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state
    )
    chain = chain_model.chain
    borders = [0, *_checked_cuts(cuts, chain), len(chain)]
    arrays = _check_inputs(chain, inputs) if check else {}
    target = Path(folder)
    with _removed_on_failure(target) as written:
        stages = [_write_stage(chain_model, first, end - 1, target, written) for first, end in pairwise(borders)]
        document: dict[str, Any] = {
            "model_sha256": chain.model_sha256,
            "chain_sha256": chain.chain_sha256,
            "stages": stages,
        }
        if check:
            document["check"] = _check(chain_model, stages, target, arrays, drawn=not inputs)
    write_text_atomic(target / MANIFEST, json.dumps(document, indent=2) + "\n")
    return Split(target, document)


def _checked_cuts(cuts: Sequence[int], chain: Chain) -> list[int]:
    if len(chain) == 1:
        raise ModelError("this model is one block, which has no inner cut", where="--cuts", value=list(cuts))
    wrong = [cut for cut in cuts if not 1 <= cut <= len(chain) - 1]
    if wrong:
        expected = f"inner cuts of the chain, 1 to {len(chain) - 1}"
        raise ModelError("no such cut", where="--cuts", value=wrong[0], expected=expected)
    return sorted(set(cuts))


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[list[Path]]:
    """Yield a list of files; if something fails, delete those in it, and the folder unless it was there before."""
    before, written = folder.exists(), list[Path]()
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        if not before:
            with suppress(OSError):  # it has files of others
                folder.rmdir()
        raise


def _write_stage(chain_model: ChainModel, first: int, last: int, folder: Path, written: list[Path]) -> dict[str, Any]:
    file = f"stage-{first}-{last}.onnx"
    stage = chain_model.stage_model(first, last)
    written.append(folder / file)
    write_bytes_atomic(folder / file, stage)
    return {
        "file": file,
        "first_block": first,
        "last_block": last,
        "inputs": list(chain_model.stage_inputs(first, last)),
        "outputs": list(chain_model.stage_outputs(first, last)),
        "sha256": hashlib.sha256(stage).hexdigest(),
    }


def _check_inputs(chain: Chain, inputs: StrPath | None) -> dict[str, Any]:
    import numpy as np

    from planner.runtime.inputs import random_inputs, read_inputs

    specs = chain.cuts[0].tensors
    return read_inputs(Path(inputs), specs) if inputs else random_inputs(specs, np.random.default_rng(0))


def _check(
    chain_model: ChainModel,
    stages: Sequence[Mapping[str, Any]],
    folder: Path,
    arrays: Mapping[str, Any],
    *,
    drawn: bool,
) -> dict[str, Any]:
    from planner.runtime.check import StageModel, check_split
    from planner.runtime.difference import json_number
    from planner.runtime.inputs import hint_at_real_inputs

    chain = chain_model.chain
    models = [StageModel(stage["first_block"], stage["last_block"], folder / stage["file"]) for stage in stages]
    with hint_at_real_inputs(chain.cuts[0].tensors, "--inputs FILE.npz") if drawn else nullcontext():
        found = check_split(chain, chain_model.model_bytes() if chain_model.state else chain_model.path, models, arrays)
    return {
        "passed": found.passed,
        "tolerance": found.tolerance.limit,
        "plain": found.plain.to_dict(),
        "optimised": found.optimised.to_dict(),
        "whole_error": json_number(found.tolerance.whole_error or 0.0),
        "runs": found.runs,
    }
