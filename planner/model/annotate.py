"""Write placements of a model's blocks into the model, as ONNX's multi-device annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from planner.errors import ModelError
from planner.files import real_path, write_bytes_atomic
from planner.model.extract import PROTOBUF_LIMIT_BYTES
from planner.model.load import ChainModel

IR_VERSION: Final = 11
"""First version of ONNX's format that has these annotations."""


@dataclass(frozen=True)
class PlacedStage:
    """A device, and the blocks that run there, ``last_block`` inclusive."""

    device: str
    first_block: int
    last_block: int


@dataclass(frozen=True)
class Placement:
    """A way to place all blocks of a model: its name, and its stages in order."""

    name: str
    stages: Sequence[PlacedStage]


def write_annotated(model: ChainModel, placements: Sequence[Placement], path: Path) -> None:
    """Write a model with one configuration for each placement.

    A configuration's devices are those of the stages. Each node gets its stage, and its outputs the device. Nodes that
    every block computes for itself get the first stage that uses them. Annotations of other configurations stay, local
    functions are inlined, and external data is embedded unless the file stays in the model's folder.

    Raises
    ------
    ModelError
        If the model exceeds the size limit of an ONNX file.
    """
    beside = real_path(path.absolute().parent) == real_path(model.path.absolute().parent)
    proto = model.source.copied(embed=not beside)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    names = {placement.name for placement in placements}
    kept = [each for each in proto.configuration if each.name not in names]
    del proto.configuration[:]
    blocks = _blocks(model)
    by_outputs = {tuple(node.output): node for node in proto.graph.node}
    for node in proto.graph.node:
        others = [each for each in node.device_configurations if each.configuration_id not in names]
        del node.device_configurations[:]
        node.device_configurations.extend(others)
    for placement in placements:
        devices = list(dict.fromkeys(stage.device for stage in placement.stages))
        proto.configuration.add(name=placement.name, num_devices=len(devices), device=devices)
        for node in model.line.graph.nodes:
            _annotate(by_outputs[tuple(node.proto.output)], placement, devices, blocks.get(node.index))
    proto.configuration.extend(kept)
    size = proto.ByteSize()
    if size > PROTOBUF_LIMIT_BYTES:
        expected = f"a file in {model.path.parent}, where the external data is"
        raise ModelError("exceeds the size limit of an ONNX file", where=str(path), value=size, expected=expected)
    write_bytes_atomic(path, proto.SerializeToString(deterministic=True))


def _annotate(node: onnx.NodeProto, placement: Placement, devices: Sequence[str], block: int | None) -> None:
    for number, stage in enumerate(placement.stages):
        if block is not None and stage.first_block <= block <= stage.last_block:
            annotation = node.device_configurations.add(configuration_id=placement.name, pipeline_stage=number)
            for name in filter(None, node.output):
                annotation.sharding_spec.add(tensor_name=name, device=[devices.index(stage.device)])


def _blocks(model: ChainModel) -> Mapping[int, int]:
    """Return the block of each node by index: of work its own, of others the first one that uses their results."""
    graph, borders = model.line.graph, model.borders
    blocks = {
        node.index: block
        for block in range(len(model.chain))
        for node in model.line.order[borders[block] : borders[block + 1]]
    }
    for node in reversed(graph.nodes):
        if node.index in blocks:
            for name in node.inputs:
                maker = graph.maker.get(name)
                if maker is not None and maker.index in graph.free:
                    blocks[maker.index] = min(blocks.get(maker.index, blocks[node.index]), blocks[node.index])
    return blocks
