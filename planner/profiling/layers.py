"""Layers as other tools time them, and the nodes of a model that they may be."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from planner.errors import ProfileError
from planner.profiling.sampling import ProfiledModel

if TYPE_CHECKING:
    from planner.model.functions import RuntimeNode

LONGEST_S: Final = 1e9
"""A layer that takes longer (30 years) was timed in another unit."""

NOT_IN_MODEL: Final = "layers that are not in the model"


@dataclass(frozen=True)
class Layer:
    """A layer as timed by another tool.

    Parameters
    ----------
    name
        Its name in the tool's file.
    mean_s, std_s
        Mean and standard deviation of its time per run, seconds.
    blocks
        Indices of the blocks that it belongs to; empty for those of the layer before it.
    unknown
        What it is if it is no layer of the model, for the user; else empty.
    compiled
        Whether it is an unknown part of the model that runs as one.
    """

    name: str
    mean_s: float
    std_s: float
    blocks: tuple[int, ...]
    unknown: str = ""
    compiled: bool = False


@dataclass(frozen=True)
class ModelNode:
    """A node of the model.

    Parameters
    ----------
    block
        Index of the first block that has it.
    operator
        Its operator.
    names
        Its name and those of the tensors that it produces, where they have one.
    feeds
        Operators of the nodes that use its results.
    runtime
        What onnxruntime makes of it; None if unknown.
    """

    block: int
    operator: str
    names: tuple[str, ...]
    feeds: frozenset[str]
    runtime: RuntimeNode | None


def model_nodes(chain_model: ProfiledModel) -> list[ModelNode]:
    """Return the nodes of a chain's model, in the order of its blocks."""
    import onnx

    blocks = [onnx.load_model_from_string(chain_model.block_model(index)) for index in range(len(chain_model.chain))]
    feeds: defaultdict[str, set[str]] = defaultdict(set)
    for node in (node for block in blocks for node in block.graph.node):
        for name in node.input:
            feeds[name].add(node.op_type)
    runtime, nodes = chain_model.runtime_nodes, dict[str, ModelNode]()
    for index, block in enumerate(blocks):
        for node in block.graph.node:
            outputs = [name for name in node.output if name]
            names = tuple(name for name in (node.name, *outputs) if name)
            fed = frozenset[str]().union(*(feeds[name] for name in outputs))
            nodes.setdefault(outputs[0], ModelNode(index, node.op_type, names, fed, runtime.get(outputs[0])))
    return list(nodes.values())


def by_name(nodes: Iterable[ModelNode]) -> dict[str, ModelNode]:
    """Return nodes by their names and those of their tensors; of several nodes of one name, the first."""
    named: dict[str, ModelNode] = {}
    for node in nodes:
        for name in node.names:
            named.setdefault(name, node)
    return named


def seconds(value: object, unit_s: float, where: str) -> float:
    """Return a time in a tool's file in seconds.

    Raises
    ------
    ProfileError
        If it is no number, negative, not finite or absurdly long.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        time_s = unit_s * value if abs(value) < 1e300 else math.inf
        if 0 <= time_s <= LONGEST_S:
            return time_s
    raise ProfileError("not a time", where=where, value=value, expected=f"a number from 0 to {LONGEST_S / unit_s:g}")
