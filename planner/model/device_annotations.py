"""ONNX's multi-device annotations: configurations of a model, and the pipeline stages of its nodes.

A model has named configurations (IR version 11): a number of devices, perhaps with names. A node states for each
configuration to which pipeline stage it belongs, and on which devices its tensors lie. Stages are wishes for cuts.
Nothing else checks that the two fit together: onnx's checker accepts a node that names a configuration that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from planner.errors import Fault, ModelError
from planner.model.graph import Node, WorkGraph
from planner.model.inlining import all_nodes
from planner.model.line import producers_of
from planner.model.source import ModelSource


@dataclass(frozen=True)
class PipelineStages:
    """Pipeline stages of a model.

    Parameters
    ----------
    configuration
        Name of the configuration to which they belong.
    of
        Stage of every work node, by node index; empty if the model has no stages.
    devices
        Device of each stage, by stage, as far as it is known.
    """

    configuration: str = ""
    of: Mapping[int, int] = field(default_factory=dict)
    devices: Mapping[int, str] = field(default_factory=dict)


def read_stages(source: ModelSource, graph: WorkGraph) -> PipelineStages:
    """Return the pipeline stages of the first configuration that has any.

    Nodes without a stage belong to the latest stage of the nodes before them.

    Raises
    ------
    ModelError
        If a configuration or an annotation is invalid, or a stage runs backwards.
    """
    faults = list(annotation_faults(source))
    if faults:
        raise ModelError(faults)
    for configuration in source.proto.configuration:
        stated = {
            node.index: annotation.pipeline_stage
            for node in graph.work()
            for annotation in node.proto.device_configurations
            if annotation.configuration_id == configuration.name and annotation.HasField("pipeline_stage")
        }
        if stated:
            of = _completed(source, graph, stated)
            return PipelineStages(configuration.name, of, _devices(configuration, graph, of))
    return PipelineStages()


def _completed(source: ModelSource, graph: WorkGraph, stated: Mapping[int, int]) -> dict[int, int]:
    """Return the stage of each work node."""
    stages: dict[int, int] = {}
    faults: list[Fault] = []
    for node in graph.work():
        before = max(producers_of(graph, node), key=lambda index: stages[index], default=None)
        least = min(stated.values()) if before is None else stages[before]
        stages[node.index] = max(stated.get(node.index, least), least)
        if before is not None and stated.get(node.index, least) < least:
            where, earlier = f"{source.path}, node {_label(node.proto)}", _label(graph.nodes[before].proto)
            expected = f"stage {least} or later, as it uses the result of node {earlier}"
            faults.append(Fault("the pipeline stage runs backwards", where, stated[node.index], expected))
    if faults:
        raise ModelError(faults)
    return stages


def _devices(
    configuration: onnx.DeviceConfigurationProto, graph: WorkGraph, stages: Mapping[int, int]
) -> dict[int, str]:
    """Return the devices of the stages: where their tensors lie, or else by number."""
    named = dict(enumerate(configuration.device)) or {i: f"device {i}" for i in range(configuration.num_devices)}
    places: dict[int, set[int]] = {}
    for index, stage in stages.items():
        places.setdefault(stage, set()).update(_placed(graph.nodes[index], configuration.name))
    if not any(places.values()) and len(places) == configuration.num_devices:
        return {stage: named[position] for position, stage in enumerate(sorted(places))}
    return {stage: named[min(on)] for stage, on in places.items() if len(on) == 1 and min(on) in named}


def _placed(node: Node, configuration: str) -> Iterator[int]:
    for annotation in node.proto.device_configurations:
        if annotation.configuration_id == configuration:
            for spec in annotation.sharding_spec:
                yield from spec.device


def annotation_faults(source: ModelSource) -> Iterator[Fault]:
    """Yield a fault for each invalid configuration of a model and each invalid annotation of its nodes."""
    declared: dict[str, onnx.DeviceConfigurationProto] = {}
    for configuration in source.proto.configuration:
        where = f"{source.path}, configuration {configuration.name!r}"
        if not configuration.name or configuration.name in declared:
            yield Fault("a configuration needs a name of its own", where)
        if configuration.num_devices < 1:
            yield Fault("a configuration without devices", where, configuration.num_devices, "num_devices of 1 or more")
        elif configuration.device and len(configuration.device) != configuration.num_devices:
            expected = f"{configuration.num_devices} names, by num_devices, or none"
            yield Fault("the wrong number of names of devices", where, list(configuration.device), expected)
        declared[configuration.name] = configuration
    for node in all_nodes(source.proto.graph.node):
        for annotation in node.device_configurations:
            where = f"{source.path}, node {_label(node)}"
            if annotation.configuration_id in declared:
                yield from _node_faults(node, annotation, declared[annotation.configuration_id], where)
            else:
                expected = (
                    f"one of {', '.join(map(str, declared))}" if declared else "a configuration, but the model has none"
                )
                what = "the node's annotation names an unknown configuration"
                yield Fault(what, where, annotation.configuration_id, expected)


def _node_faults(
    node: onnx.NodeProto,
    annotation: onnx.NodeDeviceConfigurationProto,
    configuration: onnx.DeviceConfigurationProto,
    where: str,
) -> Iterator[Fault]:
    if annotation.pipeline_stage < 0:
        yield Fault("not a pipeline stage", where, annotation.pipeline_stage, "0 or more")
    for spec in annotation.sharding_spec:
        groups = {entry.key: list(entry.value) for entry in spec.index_to_device_group_map}
        devices: Iterable[int] = (device for entry in spec.device for device in groups.get(entry, [entry]))
        for device in devices:
            if not 0 <= device < configuration.num_devices:
                expected = f"0 to {configuration.num_devices - 1}, the devices of configuration {configuration.name!r}"
                yield Fault("the node's annotation names no device", where, device, expected)
        if spec.tensor_name not in (*node.input, *node.output):
            expected = f"one of {', '.join(map(str, filter(None, (*node.input, *node.output))))}"
            yield Fault("the node's annotation names another node's tensor", where, spec.tensor_name, expected)


def _label(node: onnx.NodeProto) -> str:
    return repr(node.name or node.op_type)
