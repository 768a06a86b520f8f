"""Load an ONNX file as a chain of blocks, and extract its block models.

A *block model* is a self-contained, valid ONNX model. Its inputs are the tensors that the block uses of those crossing
the cut before it. Its outputs are the tensors that the block produces of those crossing the cut after it, followed by
the exits that it produces. A tensor that only passes through is neither an input nor an output: the runner keeps it by
name and passes it on. Chained in this way, the block models produce all outputs of the model, those of the last cut and
the exits. What a model keeps from one run to the next stays with the block that uses it: the state before and after a
run are further inputs and outputs of the block model, whose metadata names them (:mod:`planner.model.state`). A block
model may contain additional poolings over one element. They leave all values unchanged and let onnxruntime fuse the
same operators as in the whole model (see :mod:`planner.model.extract`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import ModelError, PlannerWarning, explain
from planner.files import StrPath
from planner.model.chain import SEQUENCE, Block, Chain, Cut, Exit, StatePair
from planner.model.coarsen import choose_borders

if TYPE_CHECKING:  # these modules need onnx, which the base install lacks, so they are imported inside functions
    from planner.model.axes import Axes
    from planner.model.cost import NodeCosts
    from planner.model.device_annotations import PipelineStages
    from planner.model.extract import Subgraph
    from planner.model.functions import RuntimeNode
    from planner.model.line import WorkOrder
    from planner.model.shapes import Shapes
    from planner.model.source import ModelSource
    from planner.model.work import Work


@dataclass(frozen=True)
class ChainModel:
    """A chain with the ONNX model from which it was built.

    Parameters
    ----------
    chain
        Blocks and cuts.
    source, line, shapes, costs
        The model file, its work in order, the types of its tensors, and the costs of its nodes.
    borders
        The cut of the line at each cut of the chain.
    stages
        Pipeline stages that the model's annotations state.
    placed
        Device of each work node by these annotations and the rules for layers; None where they name none.
    single
        Reason why the block models run single samples only; empty if they run several as one.
    """

    chain: Chain
    source: ModelSource
    line: WorkOrder
    shapes: Shapes
    costs: NodeCosts
    borders: tuple[int, ...]
    stages: PipelineStages
    placed: tuple[str | None, ...]
    single: str = "it was loaded for single samples"

    @property
    def path(self) -> Path:
        """File of the model."""
        return self.source.path

    @property
    def axes(self) -> Axes:
        """Sizes of the axes that the model names: those that were given, and those that follow."""
        return self.shapes.axes

    @property
    def block_devices(self) -> tuple[str | None, ...]:
        """Device of each block by the model's own annotations; None where they name none, or several."""
        named = [set(self.placed[first:last]) for first, last in itertools.pairwise(self.borders)]
        return tuple(devices.pop() if len(devices) == 1 else None for devices in named)

    @property
    def uncounted(self) -> Mapping[str, int]:
        """Number of nodes of each operator that has no FLOP rule."""
        return self.costs.uncounted

    @property
    def runtime_nodes(self) -> Mapping[str, RuntimeNode]:
        """What onnxruntime makes of each node of the model, by the first tensor that the node produces."""
        nodes = zip(self.source.proto.graph.node, self.source.runtime_nodes, strict=False)
        return {next(filter(None, node.output)): runtime for node, runtime in nodes if any(node.output)}

    @property
    def uncut(self) -> Mapping[str, str]:
        """Reason why there is no cut where a tensor crosses, for each tensor that prevents one, by name."""
        names = [name for cut in range(1, len(self.line)) for name in self.line.alive[cut]]
        unsized = [name for name in dict.fromkeys(names) if name not in self.line.specs]
        return {name: self.shapes.uncut_reason(name) for name in unsized}

    def block_inputs(self, index: int) -> tuple[str, ...]:
        """Return the names of the tensors that block ``index`` uses."""
        return self._part(index, index).inputs

    def block_outputs(self, index: int) -> tuple[str, ...]:
        """Return the names of the tensors that block ``index`` produces for later blocks or as model outputs."""
        return self._part(index, index).outputs

    def block_model(self, index: int) -> bytes:
        """Return block ``index`` as an ONNX model; the bytes are reproducible."""
        return self.stage_model(index, index)

    def stage_inputs(self, first: int, last: int) -> tuple[str, ...]:
        """Return the names of the tensors that blocks ``first`` to ``last`` use from outside."""
        return self._part(first, last).inputs

    def stage_outputs(self, first: int, last: int) -> tuple[str, ...]:
        """Return the names of the tensors that blocks ``first`` to ``last`` produce for later blocks or as outputs."""
        return self._part(first, last).outputs

    def stage_model(self, first: int, last: int) -> bytes:
        """Return blocks ``first`` to ``last``, inclusive, as one ONNX model.

        Raises
        ------
        ModelError
            If these blocks do not exist.
        """
        from planner.model.extract import serialise

        name = f"{self.chain.name}[{first}:{last + 1}]"
        return serialise(self.source, self.line, self.shapes, self._part(first, last), name)

    def work(self, index: int) -> Work:
        """Return the work of block ``index`` by kind of operator."""
        from planner.model.kernels import NodeFacts, work_of

        part = self._part(index, index)
        nodes = part.nodes
        flop = {node.proto.output[0]: self.costs.flop[node.index] for node in nodes if node.proto.output}
        facts = NodeFacts(
            self.shapes.dims, self.shapes.bytes, lambda proto: flop[proto.output[0]], self.costs.graph.is_free
        )
        border_bytes = sum(map(self.shapes.bytes, (*part.inputs, *part.outputs)))
        return work_of([node.proto for node in nodes], facts, border_bytes)

    @property
    def state(self) -> Mapping[int, tuple[StatePair, ...]]:
        """State that stays with each block; without blocks that have none."""
        from planner.model.state import pairs_of

        kept = {
            block: self.line.state_in(first, last)
            for block, (first, last) in enumerate(itertools.pairwise(self.borders))
        }
        return {
            block: pairs_of(self.shapes, {name: self.line.graph.state[name] for name in names})
            for block, names in kept.items()
            if names
        }

    def model_bytes(self) -> bytes:
        """Return the whole model with external data embedded, and its state described as in block models."""
        from planner.model.state import described

        pairs = [pair for pairs in self.state.values() for pair in pairs]
        return described(self.source.whole(), pairs) if pairs else self.source.whole()

    def joined_chain_sha256(self) -> str:
        """Return the ``chain_sha256`` of earlier versions on Python 3.10, if the model has external data."""
        return _chain_sha256(self.source.joined_sha256, self.chain.cuts, self.chain.exits)

    def _part(self, first: int, last: int) -> Subgraph:
        if not 0 <= first <= last < len(self.chain):
            expected = f"0 <= first <= last <= {len(self.chain) - 1}"
            raise ModelError("no such blocks", where=str(self.path), value=f"{first}..{last}", expected=expected)
        return _select(self.line, self.borders[first], self.borders[last + 1])


def load_chain(
    path: StrPath,
    *,
    max_blocks: int | None = 8,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    batch: bool = False,
    name: str | None = None,
) -> ChainModel:
    """Load an ONNX model as a chain of blocks.

    Parameters
    ----------
    path
        File of the model.
    max_blocks
        Maximum number of blocks; early exits and the model's own pipeline stages may force more. None gives the finest
        chain, with one block per work node.
    shape
        Shapes of inputs with dynamic axes, by name.
    axes
        Sizes of dynamic axes by the name that the model gives them: ``{"batch": 1}``. Other names may follow, see
        :attr:`ChainModel.axes`.
    layer_assignment
        Rules that assign layers, named by the nodes' metadata ``layer_ann``, to devices, as in onnxruntime's
        ``session.layer_assignment_settings``: ``gpu(encoder); cpu(=head)``. Blocks end where the device changes.
    state
        Inputs with the state before a run, and the outputs with the state after it; empty to send state like any other
        tensor. Defaults to pairs that are named by convention, see :mod:`planner.model.state`.
    batch
        Whether the block models are to run several samples as one, on their first axis (:mod:`planner.model.batches`).
    name
        Name of the chain. Defaults to the stem of the file name.

    Raises
    ------
    ModelError
        If the file is not a valid ONNX model, has dynamic axes that ``shape`` and ``axes`` do not fix, has annotations
        or rules for layers that do not fit it, or lacks the ``state``; or runs no ``batch``.
    """
    if max_blocks is not None and max_blocks < 1:
        raise ModelError(
            "a chain needs at least one block", where="--max-blocks", value=max_blocks, expected="1 or more"
        )
    from planner.model.axes import several_sizes
    from planner.model.batches import checked_for_batches, with_open_batch
    from planner.model.bounds import input_bounds
    from planner.model.cost import count_costs
    from planner.model.device_annotations import read_stages
    from planner.model.graph import build_graph
    from planner.model.layers import assign, parse_rules
    from planner.model.line import order_work
    from planner.model.shapes import infer_shapes
    from planner.model.source import read_model
    from planner.model.state import find_state, with_varying_axes

    path, rules = Path(path), parse_rules(layer_assignment)
    source = read_model(path)
    several = several_sizes(source, shape or {})
    try:
        graph = build_graph(source)
        shapes = infer_shapes(source, graph, shape or {}, axes or {})
        if kept := find_state(source, graph, shapes, state):
            shapes = with_varying_axes(source, graph, shapes, kept, shape or {})
            graph = replace(graph, state=kept)
        if batch:
            shapes = with_open_batch(source, graph, shapes, shape or {})
        graph = graph.folded(shapes.fixed)
        shapes = shapes.bounded(input_bounds(graph, shapes))
        costs = count_costs(graph, shapes)
        stages = read_stages(source, graph)
        line = order_work(graph, shapes.specs, costs.time_s, stages.of)
        placed = _placed(line, stages, assign(rules, graph.work(), str(path)))
        wishes = _wishes(path, line, stages, placed)
        borders = _borders(path, line, shapes, costs, max_blocks=max_blocks, wishes=wishes)
        chain = _chain(name or path.stem, source, line, costs, borders)
        if batch:
            chain = checked_for_batches(chain, str(path))
    except ModelError as error:
        if several:  # likely the reason
            raise ModelError([*several, *error.faults]) from error
        raise
    for fault in several:
        warnings.warn(f"{fault}; it is left open elsewhere", PlannerWarning, stacklevel=2)
    return ChainModel(chain, source, line, shapes, costs, borders, stages, placed, *([""] if batch else []))


def load_for_batches(path: StrPath, **options: Any) -> ChainModel:
    """Load a model such that its blocks run several samples as one, or else single ones; :attr:`ChainModel.single`.

    Takes the options of :func:`load_chain`, and raises its errors.
    """
    single = load_chain(path, **options)
    try:
        opened = load_chain(path, batch=True, **options)
    except ModelError as error:
        return replace(single, single=explain(error))
    if opened.chain.chain_sha256 != single.chain.chain_sha256:
        return replace(single, single="with an open batch axis its blocks would begin elsewhere")
    return opened


def _placed(line: WorkOrder, stages: PipelineStages, layers: Mapping[int, str]) -> tuple[str | None, ...]:
    """Return the device of each work node by the rules for its layer, or else by its stage.

    Nodes that no rule is about stay with the node before them.
    """
    by_layer: list[str | None] = []
    for node in line.order:
        by_layer.append(layers.get(node.index, by_layer[-1] if by_layer else None))
    by_stage = (stages.devices.get(stages.of.get(node.index, -1)) for node in line.order)
    return tuple(device or other for device, other in zip(by_layer, by_stage, strict=True))


def _wishes(path: Path, line: WorkOrder, stages: PipelineStages, placed: Sequence[str | None]) -> list[int]:
    """Return the cuts at which the model's annotations want a border: between pipeline stages, and between devices."""
    groups = [(stages.of.get(node.index), device) for node, device in zip(line.order, placed, strict=True)]
    wanted = [cut for cut in range(1, len(line)) if groups[cut - 1] != groups[cut]]
    for cut in wanted:
        if not line.can_end_block(cut):
            tensors = ", ".join(name for name in line.alive[cut] if name not in line.specs) or "state"
            before, after = (repr(node.proto.name or node.outputs[0]) for node in line.order[cut - 1 : cut + 1])
            what = f"there can be no border between nodes {before} and {after}, where {tensors} would be sent"
            warnings.warn(f"{path}: {what}", PlannerWarning, stacklevel=3)
    return [cut for cut in wanted if line.can_end_block(cut)]


def _borders(
    path: Path, line: WorkOrder, shapes: Shapes, costs: NodeCosts, *, max_blocks: int | None, wishes: Sequence[int]
) -> tuple[int, ...]:
    unsized = [cut for cut in (0, *line.exits.values(), len(line)) if not line.is_sized(cut)]
    if unsized:
        tensors = [name for cut in unsized for name in line.alive[cut] if name not in line.specs]
        raise ModelError(shapes.unsized_fault(name, path) for name in dict.fromkeys(tensors))
    from planner.model.scopes import nesting

    if max_blocks is None:
        return (0, *line.borders, len(line))
    cuts = range(len(line) + 1)
    chosen = choose_borders(
        costs.times_s(line),
        cut_bytes=[line.bytes_at(cut) for cut in cuts],
        fused=[cut in line.fused for cut in cuts],
        nested=nesting([node.proto for node in line.order]),
        allowed=line.borders,
        forced=sorted({*line.exits.values(), *wishes}),
        blocks=max_blocks,
    )
    return (0, *chosen, len(line))


def _chain(name: str, source: ModelSource, line: WorkOrder, costs: NodeCosts, borders: Sequence[int]) -> Chain:
    spans = list(itertools.pairwise(borders))
    with_state = [block for block, (first, last) in enumerate(spans) if line.state_in(first, last)]
    cuts = tuple(
        Cut(
            index,
            (
                *(line.specs[tensor] for tensor in line.alive[cut]),
                *([SEQUENCE] if index <= max(with_state, default=-1) else []),
            ),
        )
        for index, cut in enumerate(borders)
    )
    blocks = tuple(_block(index, line, costs, first, last) for index, (first, last) in enumerate(spans))
    exits = tuple(Exit(tensor, borders.index(cut), line.specs[tensor].bytes) for tensor, cut in line.exits.items())
    return Chain(name, source.sha256, _chain_sha256(source.sha256, cuts, exits), blocks, cuts, exits)


def _chain_sha256(model_sha256: str, cuts: Sequence[Cut], exits: Sequence[Exit]) -> str:
    identity = [
        model_sha256,
        [[[spec.name, spec.dtype, spec.shape] for spec in cut.tensors] for cut in cuts],
        [[exit_.name, exit_.cut] for exit_ in exits],
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _select(line: WorkOrder, first: int, last: int) -> Subgraph:
    from planner.model.extract import extract_subgraph

    return extract_subgraph(line, first, last)


def _block(index: int, line: WorkOrder, costs: NodeCosts, first: int, last: int) -> Block:
    from planner.model.scopes import block_scope

    part = _select(line, first, last)
    head = line.order[first]
    label = block_scope([node.proto for node in line.order[first:last]]) or head.proto.name or head.outputs[0]
    return Block(
        name=f"{index}:{label}",
        nodes=len(part.nodes),
        flop=sum(costs.flop[node.index] for node in part.nodes),
        parameters=costs.parameters(part),
        weight_bytes=costs.weight_bytes(part),
        activation_bytes=costs.peak_bytes(line, first, part),
        state_bytes=sum(costs.shapes.bytes(line.graph.state[name]) for name in part.state),
    )
