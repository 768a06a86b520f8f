"""Invalid model files and requests: one clear message per error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from planner.errors import ModelError, RuntimeSessionError
from planner.model.load import load_chain
from planner.model.reference import build_model
from planner.runtime.check import StageModel, check_split
from planner.runtime.quantise import build_quantised
from planner.runtime.session import BlockSession
from tests.model.chained import BOOL, INT64, floats, inputs_of, reference, save, value

node = helper.make_node


def two_layers(folder: Path, *, shape: Sequence[int | str | None] | None = (1, 4)) -> Path:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])]
    return save(folder / "m.onnx", nodes, [value("x", shape)], [value("y", shape)], {"w": floats(4, 4)})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file"):
        load_chain(tmp_path / "absent.onnx")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_chain(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"no model at all", b"\x89PNG\r\n\x1a\n" + b"\x00" * 64])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx"):
        load_chain(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    whole = reference("gpt2-small").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ModelError, match="truncated"):
        load_chain(path)


def test_cycle(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"]), node("Neg", ["b"], ["y"])]
    with pytest.raises(ModelError, match="node 'first': the graph has a cycle"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])]))


def test_an_input_without_a_producer(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "ghost"], ["y"], name="sum")]
    with pytest.raises(ModelError, match="node 'sum': no node produces this input; found 'ghost'"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])]))


def test_an_output_without_a_producer(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["a"])]
    with pytest.raises(ModelError, match="no node produces this output of the model; found 'y'"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])]))


def test_a_tensor_with_two_producers(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])]
    with pytest.raises(ModelError, match="more than one node produces this tensor; found 'y'"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])]))


def test_no_work(tmp_path: Path) -> None:
    nodes = [node("Neg", ["w"], ["y"])]
    with pytest.raises(ModelError, match="no output depends on any input"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])], {"w": floats(2)}))


def test_unknown_operator_domains_are_all_named(tmp_path: Path) -> None:
    nodes = [node("Magic", ["x"], ["a"], domain="acme"), node("Trick", ["a"], ["y"], domain="acme", name="t")]
    with pytest.raises(ModelError) as caught:
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [2])]))
    assert [fault.value for fault in caught.value.faults] == ["acme", "acme"]
    assert "operator Trick belongs to an unknown domain" in str(caught.value)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", "outside the model's folder is not allowed"),
        ("/etc/passwd", "outside the model's folder is not allowed"),
        ("C:\\secret.bin", "outside the model's folder is not allowed"),
        ("sub/../../secret.bin", "outside the model's folder is not allowed"),
        ("link.bin", "outside the model's folder is not allowed"),
        ("", "outside the model's folder is not allowed"),
        ("absent.bin", "external data is missing"),
        ("short.bin", "external data ends early"),
    ],
)
def test_external_data(tmp_path: Path, location: str, message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(bytes(63))
    path = two_layers(folder)
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in {"location": location, "offset": "0", "length": "64"}.items():
        tensor.external_data.add(key=key, value=text)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=message) as caught:
        load_chain(path)
    assert "tensor 'w'" in str(caught.value)


@pytest.mark.parametrize(
    ("stated", "requested", "message"),
    [
        (("n", 4), {}, r"input 'x': this input has dynamic axes; found \['n', 4\]; expected .* --shape x=1,4"),
        ((-1, 4), {}, "has dynamic axes"),
        (None, {}, "has dynamic axes"),
        (("n", 4), {"x": [2, 5]}, r"--shape does not match this input; found \[2, 5\]"),
        (("n", 4), {"x": [2]}, "--shape does not match this input"),
        (("n", 4), {"x": [-1, 4]}, "--shape does not match this input"),
        ((1, 4), {"x": [2, 4]}, "--shape does not match this input"),
        (
            (1, 4),
            {"input": [1, 4]},
            "--shape names an unknown tensor; found 'input'; expected one of the inputs x",
        ),
    ],
)
def test_shapes(
    tmp_path: Path, stated: Sequence[int | str | None] | None, requested: Mapping[str, Sequence[int]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_chain(two_layers(tmp_path, shape=stated), shape=requested)


def test_blocks_that_do_not_exist(tmp_path: Path) -> None:
    model = load_chain(two_layers(tmp_path), max_blocks=None)
    for first, last in ((-1, 0), (1, 0), (0, 2)):
        with pytest.raises(ModelError, match="no such blocks"):
            model.stage_model(first, last)
    with pytest.raises(ModelError, match="at least one block"):
        load_chain(two_layers(tmp_path), max_blocks=0)


def test_inputs_of_the_check(tmp_path: Path) -> None:
    model = load_chain(two_layers(tmp_path), max_blocks=None)
    stages = [StageModel(0, 1, model.stage_model(0, 1))]
    good = inputs_of(model)
    for wrong, message in (
        ({**good, "z": good["x"]}, "not an input of the model; found 'z'; expected inputs named x"),
        ({}, "input is missing"),
        ({"x": good["x"][:, :3]}, "wrong shape"),
        ({"x": good["x"].astype("float64")}, "wrong dtype"),
    ):
        with pytest.raises(RuntimeSessionError, match=message):
            check_split(model.chain, model.path, stages, wrong)


def test_unknown_reference_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown reference model; found 'vgg'; expected one of mobilenetv2"):
        build_model("vgg", tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="unknown int8 variant"):
        build_quantised("vgg", tmp_path / "m.onnx")


def test_an_output_of_unknown_size(tmp_path: Path) -> None:
    nodes = [node("NonZero", ["x"], ["y"])]
    with pytest.raises(ModelError, match=r"tensor 'y': the size of this tensor is unknown; expected .* y=1,16"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [value("y", [1, None], INT64)]))


def test_tensors_of_a_type_that_cannot_be_sent(tmp_path: Path) -> None:
    nodes = [node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER")]
    text = onnx.TensorProto.STRING
    with pytest.raises(ModelError) as caught:
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2], text)], [value("y", [2], text)]))
    assert [(fault.where, fault.what, fault.value) for fault in caught.value.faults] == [
        (f"{tmp_path / 'm.onnx'}, tensor {name!r}", "this type cannot be sent", "string") for name in ("x", "y")
    ]


def test_an_output_that_is_a_sequence(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("SplitToSequence", ["a"], ["y"], axis=0)]
    output = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    with pytest.raises(ModelError, match="tensor 'y': this value is not a tensor and cannot be sent; found 'sequence'"):
        load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [2])], [output]))


def test_flipped_bytes_are_never_a_traceback(tmp_path: Path) -> None:
    proto = onnx.load(reference("gpt2-small"))
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > 256:
            tensor.raw_data = b""  # so that most flips hit the graph instead of the weights
    good = proto.SerializeToString()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "m.onnx", 0
    for _ in range(150):
        bad = bytearray(good)
        for position in rng.integers(len(bad), size=rng.integers(1, 4)):
            bad[position] = rng.integers(256)
        path.write_bytes(bad)
        try:
            load_chain(path)
        except ModelError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("operator", "left", "right"),
    [("MatMul", [1, 4], [5, 4]), ("MatMul", [3, 3, 4], [2, 4, 4]), ("Gemm", [1, 4], [5, 4])],
)
def test_matrices_of_incompatible_shapes(tmp_path: Path, operator: str, left: list[int], right: list[int]) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node(operator, ["a", "w"], ["y"], name="odd")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", left)], [value("y", [1, 4])], {"w": floats(*right)})
    with pytest.raises(ModelError, match=r"m\.onnx, node 'odd': ONNX rejects this node .*found .* and .*; expected"):
        load_chain(path)
    # Nor does such a model run: some versions of onnxruntime refuse to load it, others fail at the node.
    with pytest.raises(RuntimeSessionError, match=r"onnxruntime (rejects|fails)"):
        BlockSession(path).run({"x": np.ones(left, np.float32)})


def test_matrices_incompatible_with_the_requested_shape(tmp_path: Path) -> None:
    path = two_layers(tmp_path, shape=(1, None))
    assert len(load_chain(path, shape={"x": [1, 4]}).chain) >= 1
    with pytest.raises(ModelError, match=r"'MatMul'.*found '\[1, 3\] and \[4, 4\]'"):
        load_chain(path, shape={"x": [1, 3]})


def test_incompatible_matrices_in_a_branch_that_may_not_be_taken_are_accepted(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph([node("MatMul", ["x", weight], [name])], name, [], [value(name, None)])
        for name, weight in (("then_branch", "fits"), ("else_branch", "odd"))
    }
    weights = {"fits": floats(4, 4), "odd": floats(5, 4)}
    nodes = [node("If", ["yes"], ["a"], **branches), node("Relu", ["a"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4]), value("yes", [], BOOL)], [value("y", [1, 4])], weights)
    assert load_chain(path).chain.cuts[-1].tensors[0].shape == (1, 4)
