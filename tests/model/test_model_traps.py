"""Graph patterns that exporters produce, each split at every cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from planner.errors import ModelError
from planner.model.load import ChainModel, load_chain
from planner.runtime.session import BlockSession
from tests.model.chained import (
    BOOL,
    INT64,
    assert_cuts_match_tensors,
    check_split,
    floats,
    inputs_of,
    needs_onnxruntime,
    save,
    value,
)

node = helper.make_node


def assert_every_cut(model: ChainModel) -> None:
    assert_cuts_match_tensors(model)
    for cut in range(1, len(model.chain)):
        assert check_split(model, [cut]).bit_equal, cut
    assert check_split(model, range(1, len(model.chain))).bit_equal


def operators(model: bytes) -> list[str]:
    return [proto.op_type for proto in onnx.load_from_string(model).graph.node]


def crossing_names(model: ChainModel) -> list[list[str]]:
    return [[spec.name for spec in cut.tensors] for cut in model.chain.cuts]


def test_skips_and_several_tensors_at_a_cut(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["c"]),
        node("Add", ["c", "a"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [2, 4])], [value("y", [2, 4])], {"w": floats(4, 4)})
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model) == [["x"], ["a"], ["a", "b"], ["a", "c"], ["y"]]
    assert_every_cut(model)


def test_a_weight_used_on_both_sides_counts_in_both_blocks(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"]), node("MatMul", ["b", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])], {"w": floats(4, 4)})
    model = load_chain(path, max_blocks=None)
    assert [block.parameters for block in model.chain.blocks] == [16, 0, 16]
    assert [block.weight_bytes for block in model.chain.blocks] == [64, 0, 64]
    assert load_chain(path, max_blocks=1).chain.blocks[0].parameters == 16
    assert_every_cut(model)


def test_constants_are_copied_instead_of_transferred(tmp_path: Path) -> None:
    constant = node("Constant", [], ["k"], value=numpy_helper.from_array(floats(4, 4), "unnamed"))
    nodes = [
        constant,
        node("Transpose", ["k"], ["kt"]),
        node("MatMul", ["x", "kt"], ["a"]),
        node("MatMul", ["a", "kt"], ["y"]),
    ]
    model = load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])]), max_blocks=None)
    assert crossing_names(model) == [["x"], ["a"], ["y"]]
    assert [operators(model.block_model(index)) for index in (0, 1)] == [["Constant", "Transpose", "MatMul"]] * 2
    assert [block.parameters for block in model.chain.blocks] == [16, 16]
    assert_every_cut(model)


def dynamic_reshape(tmp_path: Path) -> Path:
    """Write a model that needs the shape of a tensor after the tensor's last use."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["batch"]),
        node("Concat", ["batch", "rest"], ["target"], axis=0),
        node("Relu", ["x"], ["a"]),
        node("Flatten", ["a"], ["b"]),
        node("Reshape", ["b", "target"], ["c"]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    weights = {"zero": np.array([0]), "rest": np.array([2, 6])}
    return save(tmp_path / "m.onnx", nodes, [value("x", ["n", 3, 4])], [value("y", ["n", 2, 6])], weights)


@pytest.mark.parametrize("fixed", [True, False])
def test_shapes_are_constants_whether_fixed_by_the_file_or_the_user(*, fixed: bool, tmp_path: Path) -> None:
    path = dynamic_reshape(tmp_path)
    if fixed:
        proto = onnx.load(path)
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
        path.write_bytes(proto.SerializeToString())
    model = load_chain(path, max_blocks=None, shape={} if fixed else {"x": [5, 3, 4]})
    assert crossing_names(model) == [["x"], ["a"], ["b"], ["c"], ["y"]]
    assert operators(model.block_model(0)) == ["Relu"]
    assert operators(model.block_model(2)) == ["Gather", "Concat", "Reshape"]
    assert_every_cut(model)


def sized_by_data(tmp_path: Path) -> Path:
    """Write a model that needs the shape of a tensor of the data's size after the tensor's last use."""
    nodes = [
        node("NonZero", ["x"], ["k"]),
        node("Shape", ["k"], ["s"]),
        node("Cast", ["k"], ["f"], to=1),
        node("ReduceSum", ["f", "last"], ["a"], keepdims=0),
        node("MatMul", ["a", "w"], ["b"]),
        node("Expand", ["b", "s"], ["c"]),
        node("Sigmoid", ["c"], ["y"]),
    ]
    weights = {"last": np.array([1]), "w": floats(2, 12)}
    return save(tmp_path / "m.onnx", nodes, [value("x", [3, 4])], [value("y", [2, 12])], weights)


def test_the_shape_of_a_tensor_that_only_the_user_sizes_is_transferred(tmp_path: Path) -> None:
    path = sized_by_data(tmp_path)
    model = load_chain(path, max_blocks=None, shape={"k": [2, 12]})
    assert ["s", "b"] in crossing_names(model)
    assert_every_cut(model)


def exits_graph(*, reused: bool = False) -> list[NodeProto]:
    return [
        node("MatMul", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["c"]),
        node("MatMul", ["c", "w"], ["d"]),
        node("Add", ["d", "early" if reused else "d"], ["late"]),
        node("MatMul", ["b", "head"], ["early"]),
    ]


@pytest.mark.parametrize("max_blocks", [1, 2, None])
def test_an_exit_ends_a_block_and_is_not_transferred(tmp_path: Path, max_blocks: int | None) -> None:
    outputs = [value("late", [1, 4]), value("early", [1, 4])]
    weights = {"w": floats(4, 4), "head": floats(4, 4, seed=1)}
    path = save(tmp_path / "m.onnx", exits_graph(), [value("x", [1, 4])], outputs, weights)
    model = load_chain(path, max_blocks=max_blocks)
    (exit_,) = model.chain.exits
    assert (exit_.name, exit_.result_bytes) == ("early", 16)
    assert "early" in model.block_outputs(exit_.cut - 1)
    assert crossing_names(model)[exit_.cut] == ["b"]
    assert crossing_names(model)[-1] == ["late"]
    assert_every_cut(model)


def test_an_output_that_is_used_again_is_not_an_exit(tmp_path: Path) -> None:
    outputs = [value("late", [1, 4]), value("early", [1, 4])]
    weights = {"w": floats(4, 4), "head": floats(4, 4, seed=1)}
    path = save(tmp_path / "m.onnx", exits_graph(reused=True), [value("x", [1, 4])], outputs, weights)
    model = load_chain(path, max_blocks=None)
    assert model.chain.exits == ()
    assert crossing_names(model)[-1] == ["late", "early"]
    assert_every_cut(model)


def test_recurrent_state_is_an_output_not_an_exit(tmp_path: Path) -> None:
    nodes = [
        node("LSTM", ["x", "w", "r", "", "", "h", "c"], ["", "hn", "cn"], hidden_size=3),
        node("Squeeze", ["hn", "axis"], ["flat"]),
        node("MatMul", ["flat", "head"], ["y"]),
    ]
    weights = {"w": floats(1, 12, 2), "r": floats(1, 12, 3), "head": floats(3, 5), "axis": np.array([0])}
    inputs = [value("x", [4, 1, 2]), value("h", [1, 1, 3]), value("c", [1, 1, 3])]
    outputs = [value("y", [1, 5]), value("hn", [1, 1, 3]), value("cn", [1, 1, 3])]
    model = load_chain(save(tmp_path / "m.onnx", nodes, inputs, outputs, weights), max_blocks=None)
    assert model.chain.exits == ()
    assert model.chain.blocks[0].flop == 2 * 4 * 12 * (2 + 3) + 4 * 4 * 4 * 3
    assert_every_cut(model)


def test_bodies_that_capture_outer_values_stay_whole(tmp_path: Path) -> None:
    then = helper.make_graph([node("MatMul", ["a", "w"], ["t"])], "then", [], [value("t", [1, 4])])
    other = helper.make_graph([node("Mul", ["skip", "two"], ["e"])], "else", [], [value("e", [1, 4])])
    nodes = [
        node("Relu", ["x"], ["skip"]),
        node("Tanh", ["skip"], ["a"]),
        node("ReduceSum", ["a"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    weights = {"w": floats(4, 4), "two": np.array(2, np.float32), "zero": np.array(0, np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])], weights)
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model)[-2] == ["skip", "a", "positive"]
    assert model.chain.blocks[-1].flop == 2 * 16
    assert model.chain.blocks[-1].parameters == 16
    assert_every_cut(model)


def test_a_loop_stays_whole(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("MatMul", ["v", "w"], ["u"]), node("Add", ["u", "a"], ["out"])],
        "body",
        [value("i", [], INT64), value("go", [], BOOL), value("v", [1, 4])],
        [value("on", [], BOOL), value("out", [1, 4])],
    )
    nodes = [
        node("Tanh", ["x"], ["a"]),
        node("Loop", ["three", "", "a"], ["b"], body=body),
        node("Relu", ["b"], ["y"]),
    ]
    weights = {"w": floats(4, 4), "three": np.array(3)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])], weights)
    model = load_chain(path, max_blocks=None)
    assert len(model.chain) == 3
    assert model.uncounted == {"Loop": 1}
    assert_every_cut(model)


def test_a_scan_stays_whole(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("Add", ["s", "e"], ["s2"]), node("MatMul", ["s2", "w"], ["o"])],
        "body",
        [value("s", [1, 4]), value("e", [1, 4])],
        [value("s2", [1, 4]), value("o", [1, 4])],
    )
    nodes = [
        node("Tanh", ["x"], ["a"]),
        node("Scan", ["h", "a"], ["hn", "all"], body=body, num_scan_inputs=1),
        node("Relu", ["all"], ["y"]),
    ]
    inputs, outputs = [value("x", [5, 1, 4]), value("h", [1, 4])], [value("y", [5, 1, 4]), value("hn", [1, 4])]
    model = load_chain(save(tmp_path / "m.onnx", nodes, inputs, outputs, {"w": floats(4, 4)}), max_blocks=None)
    assert model.chain.blocks[1].flop == 5 * (4 + 2 * 16)
    assert model.uncounted == {}
    assert_every_cut(model)


def test_old_ir_lists_initializers_as_inputs(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])]
    inputs = [value("x", [1, 4]), value("w", [4, 4])]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", [1, 4])], {"w": floats(4, 4)}, opset=8, ir_version=3)
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model)[0] == ["x"]
    assert_every_cut(model)


def test_external_data_is_embedded_in_block_models(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"]), node("MatMul", ["b", "v"], ["y"])]
    weights = {"w": floats(64, 64), "v": floats(64, 64, seed=1)}
    inside = save(tmp_path / "inside.onnx", nodes, [value("x", [1, 64])], [value("y", [1, 64])], weights)
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(inside), outside, save_as_external_data=True, location="weights.bin", size_threshold=64)
    model, same = load_chain(outside, max_blocks=None), load_chain(inside, max_blocks=None)
    assert model.chain.blocks == same.chain.blocks
    for index in range(3):
        graph = onnx.load_from_string(model.block_model(index)).graph
        assert not any(tensor.external_data for tensor in graph.initializer)
    assert_every_cut(model)
    before = model.chain.model_sha256
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert load_chain(outside).chain.model_sha256 != before


def test_unsorted_nodes_dead_nodes_and_unused_inputs(tmp_path: Path) -> None:
    nodes = [node("Relu", ["a"], ["y"]), node("MatMul", ["x", "w"], ["a"]), node("Exp", ["a"], ["dead"])]
    inputs = [value("x", [1, 4]), value("unused", [3])]
    model = load_chain(
        save(tmp_path / "m.onnx", nodes, inputs, [value("y", [1, 4])], {"w": floats(4, 4)}), max_blocks=None
    )
    assert crossing_names(model) == [["x", "unused"], ["a"], ["y"]]
    assert [block.nodes for block in model.chain.blocks] == [1, 1]
    tensors = inputs_of(model)
    for index in range(2):
        tensors |= BlockSession(model.block_model(index)).run(tensors)
    np.testing.assert_allclose(tensors["y"], np.maximum(tensors["x"] @ floats(4, 4), 0), rtol=1e-5)


def test_outputs_that_are_inputs_or_constants(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Tanh", ["a"], ["y"]), node("Neg", ["w"], ["k"])]
    outputs = [value("y", [1, 4]), value("k", [2])]
    model = load_chain(
        save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], outputs, {"w": floats(2)}), max_blocks=None
    )
    assert model.block_outputs(1) == ("y", "k")
    assert_every_cut(model)


def test_random_numbers_are_drawn_once(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormal", [], ["noise"], shape=[1, 4], seed=1.0),
        node("Add", ["x", "noise"], ["a"]),
        node("Sub", ["a", "noise"], ["y"]),
    ]
    model = load_chain(save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])]), max_blocks=None)
    assert crossing_names(model)[2] == ["noise", "a"]
    tensors = inputs_of(model)
    for index in range(len(model.chain)):
        tensors |= BlockSession(model.block_model(index)).run(tensors)
    np.testing.assert_allclose(tensors["y"], tensors["x"], atol=1e-6)


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function(
        "own", "Twice", ["p"], ["q"], [node("Add", ["p", "p"], ["q"])], [helper.make_opsetid("", 17)]
    )
    nodes = [node("Twice", ["x"], ["a"], domain="own"), node("Relu", ["a"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", [3])], [value("y", [3])])
    path = tmp_path / "m.onnx"
    model_proto = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)
    path.write_bytes(model_proto.SerializeToString())
    model = load_chain(path, max_blocks=None)
    assert len(model.chain) == 2
    assert_every_cut(model)


def test_channels_last_and_old_opset(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Upsample", ["b", "scales"], ["c"], mode="nearest"),
        node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    weights = {"w": floats(5, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 8, 8, 3])], [value("y", [1, 16, 16, 5])], weights, opset=9)
    model = load_chain(path, max_blocks=None)
    assert model.chain.blocks[1].flop == 2 * 8 * 8 * 5 * 27
    assert_every_cut(model)


def test_a_cut_through_a_sequence_or_an_unknown_size_is_not_offered(tmp_path: Path) -> None:
    nodes = [
        node("SplitToSequence", ["x"], ["parts"], axis=0),
        node("ConcatFromSequence", ["parts"], ["a"], axis=0),
        node("NonZero", ["a"], ["where"]),
        node("ReduceSum", ["where"], ["y"], keepdims=0),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [2, 4])], [value("y", [], INT64)])
    model = load_chain(path, max_blocks=None)
    assert all(spec.name not in ("parts", "where") for cut in model.chain.cuts for spec in cut.tensors)
    assert model.uncut == {"parts": "sequence, not a tensor", "where": "of unknown size"}
    assert_every_cut(model)


@needs_onnxruntime(1, 32)
@pytest.mark.parametrize(
    ("name", "bits"),
    [("BFLOAT16", 16), ("FLOAT8E4M3FN", 8), ("FLOAT8E5M2", 8), ("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4)],
)
def test_no_cut_where_onnxruntime_cannot_pass_the_type_to_numpy(tmp_path: Path, name: str, bits: int) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Cast", ["a"], ["narrow"], to=TensorProto.DataType.Value(name)),
        node("Cast", ["narrow"], ["b"], to=TensorProto.FLOAT),
        node("Tanh", ["b"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [80, 1000])], [value("y", [80, 1000])], opset=23, ir_version=11)
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model) == [["x"], ["a"], ["b"], ["y"]]
    assert model.uncut == {"narrow": f"{name.lower()}, which onnxruntime does not pass to numpy"}
    assert model.uncounted == {}
    tensors_bytes = 80_000 * (32 + bits + 32) // 8
    assert 0 <= model.chain.blocks[1].activation_bytes - tensors_bytes - 2**20 // 32 <= 4096  # the arena's table
    if name != "FLOAT4E2M1":  # which onnxruntime cannot convert on a CPU
        assert_every_cut(model)


def test_a_named_axis_is_shared_by_all_inputs(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "z"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 4]), value("z", ["n", 4])], [value("y", ["n", 4])])
    model = load_chain(path, shape={"x": [3, 4]})
    assert [spec.shape for spec in model.chain.cuts[0].tensors] == [(3, 4), (3, 4)]


def test_sizes_that_cannot_be_inferred_can_be_stated(tmp_path: Path) -> None:
    nodes = [node("CDist", ["x", "w"], ["y"], domain="com.microsoft", metric="euclidean")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", None)], {"w": floats(3, 4)})
    proto = onnx.load(path)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="size of this tensor is unknown"):
        load_chain(path)
    model = load_chain(path, shape={"y": [1, 3]})
    assert model.chain.cuts[-1].tensors[0].shape == (1, 3)
    assert model.uncounted == {"CDist": 1}
    assert model.chain.cuts[-1].tensors[0].dtype == "float32"


def test_the_chain_hash_depends_on_shapes_and_borders(tmp_path: Path) -> None:
    path = dynamic_reshape(tmp_path)
    hashes = {
        load_chain(path, max_blocks=blocks, shape={"x": [batch, 3, 4]}).chain.chain_sha256
        for blocks in (1, 2, None)
        for batch in (1, 2)
    }
    assert len(hashes) == 6
    assert load_chain(path, max_blocks=2, shape={"x": [1, 3, 4]}, name="other").chain.chain_sha256 in hashes


def test_block_models_are_reproducible(tmp_path: Path) -> None:
    path = dynamic_reshape(tmp_path)
    first, second = (load_chain(path, max_blocks=2, shape={"x": [5, 3, 4]}) for _ in range(2))
    assert [first.block_model(index) for index in range(2)] == [second.block_model(index) for index in range(2)]
    for index in range(2):
        onnx.checker.check_model(onnx.load_from_string(first.block_model(index)), full_check=True)


def test_a_mask_is_rebuilt_from_the_token_ids_it_comes_from(tmp_path: Path) -> None:
    nodes = [
        node("Greater", ["ids", "pad"], ["real"]),
        node("Cast", ["real"], ["kept"], to=1),
        node("Unsqueeze", ["kept", "axis"], ["row"]),
        node("Mul", ["row", "ones"], ["mask"]),  # 8 × 8 floats from 8 ids
        node("Gather", ["table", "ids"], ["a"]),
        node("MatMul", ["mask", "a"], ["b"]),
        node("Tanh", ["b"], ["c"]),
        node("MatMul", ["mask", "c"], ["y"]),
    ]
    weights = {"pad": np.array(3), "axis": np.array([0]), "ones": floats(8, 1), "table": floats(16, 4)}
    path = save(tmp_path / "m.onnx", nodes, [value("ids", [8], INT64)], [value("y", [8, 4])], weights)
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model) == [["ids"], ["ids", "a"], ["ids", "b"], ["ids", "c"], ["y"]]
    assert operators(model.block_model(3)) == ["Greater", "Cast", "Unsqueeze", "Mul", "MatMul"]
    assert_every_cut(model)


def test_a_model_of_cheap_integer_operations_has_work(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "one"], ["a"]), node("Mul", ["a", "a"], ["y"])]
    weights = {"one": np.array(1)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [3], INT64)], [value("y", [3], INT64)], weights)
    model = load_chain(path, max_blocks=None)
    assert crossing_names(model) == [["x"], ["a"], ["y"]]
    assert_every_cut(model)
