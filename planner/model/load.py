"""An ONNX file as a chain of blocks, and its block models.

A *block model* is a valid ONNX model of its own. Its inputs are those tensors of the cut before the block that it
uses, its outputs those of the cut behind it that it makes, then the exits it makes. A tensor that only passes through
is neither: the runner keeps it by name and passes it along. Chained in this way the block models give all outputs of
the model: those of the last cut, and the exits. Beside its part of the model it may hold poolings over one element,
which change nothing and let onnxruntime fuse what it fuses in the whole model (see :mod:`planner.model.extract`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import ModelError
from planner.model.chain import Block, Chain, Cut, Exit
from planner.model.coarsen import choose_borders

if TYPE_CHECKING:  # what these import needs onnx, and the base install is without: only calls load it
    from planner.model.cost import Costs
    from planner.model.extract import Part
    from planner.model.line import Line
    from planner.model.shapes import Shapes
    from planner.model.source import ModelSource


@dataclass(frozen=True)
class ChainModel:
    """A chain with the ONNX model it is made of.

    Parameters
    ----------
    chain
        Blocks and cuts.
    source, line, shapes, costs
        The model, its work in a row, its tensors, and what its nodes cost.
    borders
        The cut of the line at each cut of the chain.
    """

    chain: Chain
    source: ModelSource
    line: Line
    shapes: Shapes
    costs: Costs
    borders: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The model's file."""
        return self.source.path

    @property
    def uncounted(self) -> Mapping[str, int]:
        """Operators without a FLOP rule, with how many nodes each has."""
        return self.costs.uncounted

    def block_inputs(self, index: int) -> tuple[str, ...]:
        """Names of the tensors that block ``index`` uses."""
        return self._part(index, index).inputs

    def block_outputs(self, index: int) -> tuple[str, ...]:
        """Names of the tensors that block ``index`` makes for later blocks or gives out."""
        return self._part(index, index).outputs

    def block_model(self, index: int) -> bytes:
        """Give block ``index`` as an ONNX model; the same bytes each time."""
        return self.stage_model(index, index)

    def stage_inputs(self, first: int, last: int) -> tuple[str, ...]:
        """Names of the tensors that blocks ``first`` to ``last`` use from outside."""
        return self._part(first, last).inputs

    def stage_outputs(self, first: int, last: int) -> tuple[str, ...]:
        """Names of the tensors that blocks ``first`` to ``last`` make for later blocks or give out."""
        return self._part(first, last).outputs

    def stage_model(self, first: int, last: int) -> bytes:
        """Give blocks ``first`` to ``last``, inclusive, as one ONNX model.

        Raises
        ------
        ModelError
            If there are no such blocks.
        """
        from planner.model.extract import serialise

        name = f"{self.chain.name}[{first}:{last + 1}]"
        return serialise(self.source, self.line, self.shapes, self._part(first, last), name)

    def model_bytes(self) -> bytes:
        """Give the whole model as it is in its file, external data included."""
        return self.source.whole()

    def joined_chain_sha256(self) -> str:
        """Give what earlier versions took for ``chain_sha256`` on Python 3.10, where the model has external data."""
        return _chain_sha256(self.source.joined_sha256, self.chain.cuts, self.chain.exits)

    def _part(self, first: int, last: int) -> Part:
        if not 0 <= first <= last < len(self.chain):
            expected = f"0 <= first <= last <= {len(self.chain) - 1}"
            raise ModelError("no such blocks", where=str(self.path), value=f"{first}..{last}", expected=expected)
        return _select(self.line, self.borders[first], self.borders[last + 1])


def load_chain(
    path: Path,
    *,
    max_blocks: int | None = 8,
    shape: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
) -> ChainModel:
    """Read an ONNX model as a chain of blocks.

    Parameters
    ----------
    path
        The model's file.
    max_blocks
        How many blocks to make at most (early exits may force more); None: the finest chain, a block for each node
        that is work.
    shape
        Shapes of inputs with dynamic axes, by name.
    name
        Name of the chain; the file's stem by default.

    Raises
    ------
    ModelError
        If the file is no sound ONNX model, or has dynamic axes that ``shape`` does not settle.
    """
    if max_blocks is not None and max_blocks < 1:
        raise ModelError("a chain has at least one block", where="--max-blocks", value=max_blocks, expected="1 or more")
    from planner.model.cost import measure_costs
    from planner.model.graph import build_graph
    from planner.model.line import draw_line
    from planner.model.shapes import infer
    from planner.model.source import read_model

    source = read_model(path)
    graph = build_graph(source)
    shapes = infer(source, graph, shape or {})
    for node in graph.nodes:
        fixed = shapes.fixed_shape(node)
        if fixed is not None:
            graph.weights[fixed.name] = fixed
    costs = measure_costs(graph, shapes.specs)
    line = draw_line(graph, shapes.specs, costs.time_s)
    borders = _borders(path, line, shapes, costs, max_blocks)
    chain = _chain(name or path.stem, source, line, costs, borders)
    return ChainModel(chain, source, line, shapes, costs, borders)


def _borders(path: Path, line: Line, shapes: Shapes, costs: Costs, max_blocks: int | None) -> tuple[int, ...]:
    unsized = [cut for cut in (0, *line.exits.values(), len(line)) if not line.is_sized(cut)]
    if unsized:
        lost = [name for cut in unsized for name in line.alive[cut] if name not in line.specs]
        raise ModelError(shapes.unsized_fault(name, path) for name in dict.fromkeys(lost))
    if max_blocks is None:
        return (0, *line.borders, len(line))
    cuts = range(len(line) + 1)
    chosen = choose_borders(
        costs.times_s(line),
        cut_bytes=[line.bytes_at(cut) for cut in cuts],
        fused=[cut in line.fused for cut in cuts],
        allowed=line.borders,
        forced=sorted(set(line.exits.values())),
        blocks=max_blocks,
    )
    return (0, *chosen, len(line))


def _chain(name: str, source: ModelSource, line: Line, costs: Costs, borders: Sequence[int]) -> Chain:
    cuts = tuple(
        Cut(index, tuple(line.specs[tensor] for tensor in line.alive[cut])) for index, cut in enumerate(borders)
    )
    spans = enumerate(itertools.pairwise(borders))
    blocks = tuple(_block(index, line, costs, first, last) for index, (first, last) in spans)
    exits = tuple(Exit(tensor, borders.index(cut), line.specs[tensor].bytes) for tensor, cut in line.exits.items())
    return Chain(name, source.sha256, _chain_sha256(source.sha256, cuts, exits), blocks, cuts, exits)


def _chain_sha256(model_sha256: str, cuts: Sequence[Cut], exits: Sequence[Exit]) -> str:
    identity = [
        model_sha256,
        [[[spec.name, spec.dtype, spec.shape] for spec in cut.tensors] for cut in cuts],
        [[leave.name, leave.cut] for leave in exits],
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _select(line: Line, first: int, last: int) -> Part:
    from planner.model.extract import select

    return select(line, first, last)


def _block(index: int, line: Line, costs: Costs, first: int, last: int) -> Block:
    part = _select(line, first, last)
    head = line.order[first]
    return Block(
        name=f"{index}:{head.proto.name or head.outputs[0]}",
        nodes=len(part.nodes),
        flop=sum(costs.flop[node.index] for node in part.nodes),
        parameters=costs.parameters(part),
        weight_bytes=costs.weight_bytes(part),
        activation_bytes=costs.peak_bytes(line, first, last),
    )
