"""Borders that people set: pipeline stages, modules and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import checker, helper

from planner.errors import ModelError
from planner.model.load import ChainModel, load_chain
from planner.model.scopes import Scope, scope_of
from planner.runtime.session import BlockSession
from tests.model.chained import check_split, floats, needs_onnxruntime, reference, save, value

node = helper.make_node
WIDTH = 8


def annotated(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    stages: Mapping[str, int],
    *,
    change: Callable[[onnx.ModelProto], object] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> Path:
    """Write a model whose nodes, found by their names, have pipeline stages of configuration ``pair``."""
    weights = {name: floats(WIDTH, WIDTH, seed=seed) for seed, name in enumerate("wuv")}
    save(path, nodes, [value("x", [1, WIDTH])], [value("y", [1, WIDTH])], weights, ir_version=11)
    model = onnx.load(path)
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.configuration.add(name="pair", num_devices=2, device=["camera", "office"])
    model.metadata_props.add(key="task", value="test")
    for each in model.graph.node:
        if each.name in stages:
            annotation = each.device_configurations.add(configuration_id="pair", pipeline_stage=stages[each.name])
            annotation.sharding_spec.add(tensor_name=each.output[0], device=[stages[each.name]])
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def line(*operators: str) -> list[onnx.NodeProto]:
    names = ["x", *(f"t{index}" for index in range(1, len(operators))), "y"]
    return [
        node(operator, [before, *(["w"] if operator == "MatMul" else [])], [after], name=f"n{index}")
        for index, (operator, (before, after)) in enumerate(zip(operators, pairwise(names), strict=True))
    ]


def cut_names(model: ChainModel) -> list[list[str]]:
    return [[spec.name for spec in cut.tensors] for cut in model.chain.cuts[1:-1]]


LINE = line("MatMul", "Relu", "MatMul", "Relu", "MatMul", "Relu")


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_stages_are_borders_of_blocks_with_their_devices(tmp_path: Path) -> None:
    path = annotated(tmp_path / "m.onnx", LINE, {"n0": 0, "n3": 1})
    model = load_chain(path, max_blocks=1)
    assert cut_names(model) == [["t3"]]
    assert model.stages.configuration == "pair"
    assert model.block_devices == ("camera", "office")
    assert check_split(model, [1]).bit_equal


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_work_of_parallel_branches_follows_the_stages(tmp_path: Path) -> None:
    nodes = [
        *(node("MatMul", ["x", weight], [f"a{weight}"], name=f"first-{weight}") for weight in "wu"),
        *(node("MatMul", [f"a{weight}", "v"], [f"b{weight}"], name=f"second-{weight}") for weight in "wu"),
        node("Add", ["bw", "bu"], ["y"], name="sum"),
    ]
    stages = {"first-w": 0, "second-w": 0, "first-u": 1, "second-u": 1}
    model = load_chain(annotated(tmp_path / "m.onnx", nodes, stages), max_blocks=2)
    assert cut_names(model) == [["x", "bw"]]
    assert check_split(model, [1]).bit_equal
    across = {"first-w": 0, "first-u": 0, "second-w": 1, "second-u": 1}
    model = load_chain(annotated(tmp_path / "m.onnx", nodes, across), max_blocks=2)
    assert cut_names(model) == [["aw", "au"]]


def _set(field: str, new: Any) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(model.graph.node[3].device_configurations[0], field, new)


def _spec(field: str, new: Any) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        spec = model.graph.node[3].device_configurations[0].sharding_spec[0]
        if field == "device":
            spec.device[:] = new
        else:
            spec.tensor_name = new

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.ClearField("configuration"), "unknown configuration; found 'pair'; .*the model has none"),
        (_set("configuration_id", "trio"), "node 'n3': .*unknown configuration; found 'trio'; expected one of pair"),
        (_spec("device", [2]), "node 'n3': .*names no device; found 2; expected 0 to 1, .* configuration 'pair'"),
        (_spec("device", [-1]), "names no device; found -1"),
        (_spec("tensor_name", "t1"), "another node's tensor; found 't1'; expected one of t3, t4"),
        (_set("pipeline_stage", -1), "node 'n3': not a pipeline stage; found -1"),
        (lambda model: model.configuration[0].device.append("shed"), "wrong number of names.*expected 2 names"),
        (lambda model: setattr(model.configuration[0], "num_devices", 0), "without devices; found 0"),
        (lambda model: model.configuration.add(num_devices=1), "needs a name of its own"),
    ],
)
def test_annotations_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    path = annotated(tmp_path / "m.onnx", LINE, {"n0": 0, "n3": 1}, change=change)
    with pytest.raises(ModelError, match=message):
        load_chain(path)


def test_a_stage_that_runs_backwards_is_named(tmp_path: Path) -> None:
    path = annotated(tmp_path / "m.onnx", LINE, {"n0": 1, "n3": 0})
    with pytest.raises(ModelError, match=r"node 'n3': the pipeline stage runs backwards; found 0; .*1 or .* node 'n2'"):
        load_chain(path)


def test_a_device_may_be_a_group(tmp_path: Path) -> None:
    def group(model: onnx.ModelProto) -> None:
        spec = model.graph.node[3].device_configurations[0].sharding_spec[0]
        spec.device[:] = [7]
        spec.index_to_device_group_map.add(key=7, value=[0, 1])

    assert (
        len(load_chain(annotated(tmp_path / "m.onnx", LINE, {"n0": 0, "n3": 1}, change=group), max_blocks=1).chain) == 2
    )


def layer() -> onnx.FunctionProto:
    """Return a function with a product, which says where it lies itself, and a call of another function."""
    nodes = [node("MatMul", ["a", "b"], ["t"], name="product"), node("Inner", ["t"], ["c"], domain="own")]
    nodes[0].metadata_props.add(key="layer_ann", value="product")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", "Layer", ["a", "b"], ["c"], nodes, opsets)


def inner() -> onnx.FunctionProto:
    nodes = [node("Relu", ["p"], ["q"], name="relu"), node("Neg", ["q"], ["r"], name="neg")]
    annotation = nodes[0].device_configurations.add(configuration_id="pair")
    annotation.sharding_spec.add(tensor_name="q", device=[1])
    return helper.make_function("own", "Inner", ["p"], ["r"], nodes, [helper.make_opsetid("", 17)])


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_annotations_of_calls_and_in_functions_are_kept(tmp_path: Path) -> None:
    calls = [node("Layer", [a, "w"], [b], domain="own", name=f"call-{b}") for a, b in pairwise(["x", "m", "y"])]
    for call in calls:
        call.metadata_props.add(key="layer_ann", value=call.name)
    path = annotated(tmp_path / "m.onnx", calls, {"call-m": 0, "call-y": 1}, functions=[layer(), inner()])
    checker.check_model(path)
    model = load_chain(path, max_blocks=1)
    assert cut_names(model) == [["m"]]
    placed = [spec.tensor_name for each in model.source.proto.graph.node for spec in specs(each)]
    assert placed == [each.output[0] for each in model.source.proto.graph.node if each.op_type == "Relu"]
    layers = [[entry.value for entry in each.metadata_props] for each in model.source.proto.graph.node]
    assert layers == [["product"], ["call-m"], ["call-m"], ["product"], ["call-y"], ["call-y"]]
    assert check_split(model, [1]).bit_equal


def test_functions_that_call_each_other_are_named(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("own", 1)]
    first = helper.make_function("own", "First", ["a"], ["b"], [node("Second", ["a"], ["b"], domain="own")], opsets)
    second = helper.make_function("own", "Second", ["a"], ["b"], [node("First", ["a"], ["b"], domain="own")], opsets)
    calls = [node("First", ["x"], ["y"], domain="own", name="call")]
    path = annotated(tmp_path / "m.onnx", calls, {"call": 0}, functions=[first, second])
    with pytest.raises(ModelError, match=r"m\.onnx: a local function calls itself; found '(First|Second)'"):
        load_chain(path)


def test_a_function_with_too_many_inputs_is_refused(tmp_path: Path) -> None:
    calls = [node("Inner", ["x", "x"], ["y"], domain="own", name="call")]
    with pytest.raises(ModelError, match=r"m\.onnx: a local function cannot be inlined"):
        load_chain(annotated(tmp_path / "m.onnx", calls, {}, functions=[inner()]))


@pytest.mark.filterwarnings("ignore::planner.errors.PlannerWarning")
def test_flipped_bytes_of_annotations_are_never_a_traceback(tmp_path: Path) -> None:
    calls = [node("Layer", [a, "w"], [b], domain="own", name=f"/call/{b}") for a, b in pairwise(["x", "m", "y"])]

    def describe(model: onnx.ModelProto) -> None:
        del model.graph.initializer[:]
        model.graph.input.extend([value("w", [WIDTH, WIDTH])])
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        for each in model.graph.node:
            each.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer', 'layer.0', 'call']")

    stages = {"/call/m": 0, "/call/y": 1}
    path = annotated(tmp_path / "m.onnx", calls, stages, change=describe, functions=[layer(), inner()])
    good, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    assert set(load_chain(path, axes={"batch": 1}).stages.of.values()) == {0, 1}
    for _ in range(400):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] = rng.integers(256)
        path.write_bytes(bad)
        try:
            load_chain(path, axes={"batch": 1})
        except ModelError:
            refused += 1
    assert refused > 100


def specs(each: onnx.NodeProto) -> list[onnx.ShardingSpecProto]:
    return [spec for annotation in each.device_configurations for spec in annotation.sharding_spec]


def residual(path: Path) -> Path:
    """Write ResNet-56 with every tensor on a device: its sums' inputs are renamed at borders."""
    model = onnx.load(reference("resnet56"))
    model.ir_version = 11
    model.configuration.add(name="pair", num_devices=1)
    model.metadata_props.add(key="task", value="test")
    for each in model.graph.node:
        annotation = each.device_configurations.add(configuration_id="pair")
        for name in (*each.input, *each.output):
            annotation.sharding_spec.add(tensor_name=name, device=[0])
    path.write_bytes(model.SerializeToString())
    return path


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_stage_models_keep_their_annotations_consistent(tmp_path: Path) -> None:
    model = load_chain(residual(tmp_path / "m.onnx"), max_blocks=4)
    renamed = 0
    for index in range(len(model.chain)):
        block = onnx.load_model_from_string(model.block_model(index))
        checker.check_model(block, full_check=True)
        assert [(entry.key, entry.value) for entry in block.metadata_props] == [("task", "test")]
        assert [each.name for each in block.configuration] == ["pair"]
        for each in block.graph.node:
            assert all(spec.tensor_name in (*each.input, *each.output) for spec in specs(each))
            renamed += sum(spec.tensor_name.endswith("/blocked") for spec in specs(each))
        BlockSession(model.block_model(index))
    assert renamed > 0


def test_annotations_leave_the_blocks_of_a_model_as_they_are(tmp_path: Path) -> None:
    plain, model = load_chain(reference("resnet56")), load_chain(residual(tmp_path / "m.onnx"))
    assert model.chain.cuts == plain.chain.cuts
    assert [block.name for block in model.chain.blocks] == [block.name for block in plain.chain.blocks]


@pytest.mark.parametrize(
    ("name", "metadata", "scope"),
    [
        ("/layer1/layer1.0/conv1/Conv", {}, ("layer1", "0", "conv1")),
        ("/encoder/layer.11/attention/self/query/MatMul", {}, ("encoder", "layer", "11", "attention", "self", "query")),
        ("/Conv", {}, ()),
        ("stem.conv", {}, ()),
        ("TFModel/dense/MatMul", {}, ()),
        (
            "node_add",
            {"pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.layer.0', 'encoder.layer.0.output', 'add']"},
            ("encoder", "layer", "0", "output"),
        ),
        (
            "node_add",
            {"namespace": ": own.Model/encoder: own.Encoder/encoder.layer.0: own.Layer/add: aten.add.Tensor"},
            ("encoder", "layer", "0"),
        ),
        ("node_add", {"pkg.torch.onnx.name_scopes": "[1, 2", "namespace": ""}, ()),
        ("node_add", {"pkg.torch.onnx.name_scopes": "__import__('os')"}, ()),
    ],
)
def test_modules_as_exporters_write_them(name: str, metadata: Mapping[str, str], scope: Scope) -> None:
    each = node("Add", ["a", "b"], ["c"], name=name)
    for key, text in metadata.items():
        each.metadata_props.add(key=key, value=text)
    assert scope_of(each) == scope


def modules(folder: Path, mark: Callable[[onnx.NodeProto, int], object] | None = None) -> ChainModel:
    """Load a model of 24 products in three modules of 7, 9 and 8, as three blocks."""
    nodes = line(*["MatMul"] * 24)
    for index, each in enumerate(nodes):
        if mark is not None:
            mark(each, (index >= 7) + (index >= 16))
    return load_chain(annotated(folder / "m.onnx", nodes, {}), max_blocks=3)


def test_borders_between_modules_are_preferred_to_equal_work(tmp_path: Path) -> None:
    def named(each: onnx.NodeProto, module: int) -> None:
        each.name = f"/model/layers.{module}/{each.name}/MatMul"

    def marked(each: onnx.NodeProto, module: int) -> None:
        each.metadata_props.add(key="layer_ann", value=f"part {module}")

    assert cut_names(modules(tmp_path)) == [["t8"], ["t16"]]
    assert cut_names(modules(tmp_path, marked)) == [["t7"], ["t16"]]
    model = modules(tmp_path, named)
    assert cut_names(model) == [["t7"], ["t16"]]
    names = [block.name for block in model.chain.blocks]
    assert names[:2] == ["0:model.layers.0.n0..model.layers.0.n6", "1:model.layers.1.n7..model.layers.1.n15"]


def layered(path: Path) -> Path:
    """Write six nodes in three layers; the fourth node has none."""
    names = ["encoder.0", "encoder.0", "encoder.1", "", "head", "head"]

    def mark(model: onnx.ModelProto) -> None:
        for each, name in zip(model.graph.node, names, strict=True):
            each.metadata_props.add(key="layer_ann", value=name)

    return annotated(path, LINE, {}, change=mark)


@pytest.mark.parametrize(
    ("rules", "cuts", "devices"),
    [
        ("gpu(encoder); cpu(=head)", [["t4"]], ("gpu", "cpu")),
        ("a(encoder.0);;b( encoder.1 , =head )", [["t2"]], ("a", "b")),
        ("a(=encoder.1); b(encoder); c(head)", [["t4"]], ("b", "c")),
        ("a(=head)", [["t4"]], (None, "a")),
    ],
)
def test_rules_for_layers_are_borders(
    tmp_path: Path, rules: str, cuts: list[list[str]], devices: tuple[str | None, ...]
) -> None:
    model = load_chain(layered(tmp_path / "m.onnx"), max_blocks=1, layer_assignment=rules)
    assert cut_names(model) == cuts
    assert model.block_devices == devices


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("cpu(encoder", r"--layer-assignment: not a rule; found 'cpu\(encoder'; expected DEVICE\(LAYER, =LAYER"),
        ("encoder", "not a rule"),
        ("(encoder)", "not a rule"),
        ("a(head); b(head)", r"names a layer twice; found 'b\(head\)'"),
        ("a(tail)", r"no layer fits .* found 'a\(tail\)'; expected one of encoder\.0, encoder\.1, head"),
    ],
)
def test_rules_that_do_not_fit_are_named(tmp_path: Path, rules: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_chain(layered(tmp_path / "m.onnx"), layer_assignment=rules)
