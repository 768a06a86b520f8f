"""Inputs that are indices are drawn below the rows of the table that they reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import GraphProto, NodeProto, TensorProto, helper

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.model.load import load_chain
from planner.profiling.measure import measure
from planner.runtime.inputs import random_inputs
from planner.runtime.session import BlockSession
from tests.model.chained import (
    BOOL,
    FLOAT,
    INT64,
    Arrays,
    assert_cuts_match_tensors,
    check_split,
    floats,
    onnxruntime_before,
    save,
    value,
)
from tests.model.indexed import WRITERS, load, with_function

node = helper.make_node
TABLE = {"table": floats(7, 3)}
LOOKUP = node("Gather", ["table", "j"], ["y"])


def branch(*nodes: NodeProto) -> GraphProto:
    return helper.make_graph(nodes, "branch", [], [value(nodes[-1].output[0], None)])


def choose(condition: str, then_node: NodeProto) -> NodeProto:
    """Return an If node; its second branch negates ``a``."""
    second = branch(node("Neg", ["a"], ["y2"]))
    return node("If", [condition], ["y"], then_branch=branch(then_node), else_branch=second)


IS_RATE = [node("Equal", ["i", "rate"], ["e"]), node("Squeeze", ["e", "zero"], ["c"])]
RATE = {"rate": np.array([16000]), "zero": np.array([0]), "a": floats(4, 3)}
LOOP = helper.make_graph(
    [node("Identity", ["go"], ["on"]), node("Gather", ["table", "at"], ["row"]), node("Sub", ["at", "one"], ["next"])],
    "loop",
    [value("step", [], INT64), value("go", [], BOOL), value("at", [], INT64)],
    [value("on", [], BOOL), value("next", [], INT64), value("row", [3])],
)
SCAN = helper.make_graph(
    [node("Gather", ["table", "one_id"], ["row"])], "scan", [value("one_id", [], INT64)], [value("row", [3])]
)
CASES: Mapping[str, tuple[Sequence[NodeProto], Arrays, Sequence[int], tuple[int, int] | None]] = {
    "directly": ([node("Gather", ["table", "i"], ["y"])], {}, [4], (0, 6)),
    "of columns": ([node("Gather", ["table", "i"], ["y"], axis=-1)], {}, [4], (0, 2)),
    "elements": ([node("GatherElements", ["table", "i"], ["y"], axis=1)], {}, [7, 2], (0, 2)),
    "points": ([node("GatherND", ["table", "i"], ["y"])], {}, [5, 2], (0, 2)),
    "points of batches": ([node("GatherND", ["table", "i"], ["y"], batch_dims=1)], {}, [7, 1], (0, 2)),
    "scattered": ([node("ScatterElements", ["table", "i", "u"], ["y"], axis=0)], {"u": floats(2, 3)}, [2, 3], (0, 6)),
    "one-hot": ([node("OneHot", ["i", "d", "v"], ["y"])], {"d": np.array(5), "v": floats(2)}, [4], (0, 4)),
    "cast": ([node("Cast", ["i"], ["j"], to=TensorProto.INT32), LOOKUP], {}, [4], (0, 6)),
    "cast to float and back": (
        [
            node("Cast", ["i"], ["f"], to=FLOAT),
            node("Mul", ["f", "half"], ["g"]),
            node("Cast", ["g"], ["j"], to=INT64),
            LOOKUP,
        ],
        {"half": np.array(0.5, np.float32)}, [4], (0, 12),
    ),
    "reshaped": (
        [node("Reshape", ["i", "s"], ["k"]), node("Transpose", ["k"], ["j"]), LOOKUP],
        {"s": np.array([2, 2])}, [4], (0, 6),
    ),
    "shifted": ([node("Add", ["i", "two"], ["j"]), LOOKUP], {"two": np.array(2)}, [4], (0, 4)),
    "shifted down": ([node("Sub", ["i", "two"], ["j"]), LOOKUP], {"two": np.array(2)}, [4], (2, 8)),
    "counted down": ([node("Sub", ["two", "i"], ["j"]), LOOKUP], {"two": np.array(2)}, [4], (0, 2)),
    "scaled": ([node("Mul", ["i", "two"], ["j"]), LOOKUP], {"two": np.array(2)}, [4], (0, 3)),
    "divided": ([node("Div", ["i", "two"], ["j"]), LOOKUP], {"two": np.array(2)}, [4], (0, 12)),
    "added to itself": ([node("Add", ["i", "i"], ["j"]), LOOKUP], {}, [4], (0, 3)),
    "summed": ([node("ReduceSum", ["i", "last"], ["j"], keepdims=0), LOOKUP], {"last": np.array([1])}, [4, 3], (0, 2)),
    "counted": ([node("CumSum", ["i", "first"], ["j"]), LOOKUP], {"first": np.array(0)}, [3], (0, 2)),
    "of two tables": (
        [node("Gather", ["table", "i"], ["a"]), node("Gather", ["small", "i"], ["b"]), node("Add", ["a", "b"], ["y"])],
        {"small": floats(2, 3)}, [4], (0, 1),
    ),
    "of one row": ([node("Gather", ["small", "i"], ["y"])], {"small": floats(1, 3)}, [4], (0, 0)),
    "a rate": ([*IS_RATE, choose("c", node("Identity", ["a"], ["y1"]))], RATE, [1], (16000, 16000)),
    "in a branch": (
        [choose("true", node("Gather", ["table", "i"], ["y1"]))],
        {"true": np.ones((), bool), "a": floats(4, 3)}, [4], (0, 6),
    ),
    "in a loop": (
        [node("Loop", ["two", "", "i"], ["z", "y"], body=LOOP)], {"two": np.array(2), "one": np.array(1)}, [], (1, 6)
    ),
    "in a scan": ([node("Scan", ["i"], ["y"], body=SCAN, num_scan_inputs=1)], {}, [4], (0, 6)),
    "lengths of sequences": (
        [node("ReverseSequence", ["data", "i"], ["y"], time_axis=0, batch_axis=1)], {"data": floats(5, 3)}, [3], (1, 5)
    ),
    "lengths of a recurrence": (
        [
            node("Cast", ["i"], ["j"], to=TensorProto.INT32),
            node("LSTM", ["data", "lw", "lr", "", "j"], ["y"], hidden_size=2),
        ],
        {"data": floats(5, 1, 3), "lw": floats(1, 8, 3), "lr": floats(1, 8, 2)}, [1], (1, 5),
    ),
    "regions of images": (
        [node("RoiAlign", ["images", "regions", "i"], ["y"], output_height=1, output_width=1)],
        {"images": floats(2, 1, 4, 4), "regions": np.zeros((3, 4), np.float32)}, [3], (0, 1),
    ),
    "of an embedding": (
        [
            node("Cast", ["i"], ["j"], to=TensorProto.INT32),
            node("EmbedLayerNormalization", ["j", "j", "table", "places", "small", "gain", "gain"], ["y", "mask_index"],
                 domain="com.microsoft"),
        ],
        {"places": floats(9, 3), "small": floats(2, 3), "gain": floats(3)}, [1, 4], (0, 1),
    ),
    "of a rotation": (
        [node("RotaryEmbedding", ["heads", "i", "angles", "angles"], ["y"], domain="com.microsoft")],
        {"heads": floats(1, 2, 3, 4), "angles": floats(6, 2)}, [1, 3], (0, 5),
    ),
    "the first of a rotation": (
        [node("RotaryEmbedding", ["heads", "i", "angles", "angles"], ["y"], domain="com.microsoft")],
        {"heads": floats(1, 2, 3, 4), "angles": floats(6, 2)}, [1], (0, 3),
    ),
    "no index": ([node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["f", "f"], ["y"])], {}, [4], None),
}  # fmt: skip


STATED = {
    "in a loop": [2, 3],
    "of an embedding": [1, 4, 3],
    "of a rotation": [1, 2, 3, 4],
    "the first of a rotation": [1, 2, 3, 4],
}
"""Sizes that ONNX cannot infer."""
UNCHECKED = {"regions of images", "of a rotation", "the first of a rotation"} if onnxruntime_before(1, 24) else set()
"""Cases in which onnxruntime 1.23 and older take any index."""
NOT_TIGHT = {"one-hot", "cast to float and back", "divided", "counted down", "a rate"}


@pytest.mark.parametrize("case", CASES)
def test_an_index_has_the_bounds_of_its_table(case: str, tmp_path: Path) -> None:
    nodes, weights, shape, bounds = CASES[case]
    path = save(tmp_path / "m.onnx", nodes, [value("i", shape, INT64)], [value("y", None)], {**TABLE, **weights})
    proto = onnx.load(path)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(proto.SerializeToString())
    stated = {"y": STATED[case]} if case in STATED else {}
    (spec,) = load_chain(path, max_blocks=1, shape=stated).chain.cuts[0].tensors
    assert spec.bounds == bounds
    whole = BlockSession(path)
    for seed in range(5):
        whole.run(random_inputs([spec], np.random.default_rng(seed)))
    if bounds is not None and case not in NOT_TIGHT | UNCHECKED:
        with pytest.raises(RuntimeSessionError):
            whole.run({"i": np.full(shape, bounds[1] + 1)})


@pytest.mark.parametrize("nested", [False, True])
def test_a_rate_is_drawn_for_the_branch_that_fits_the_shapes(*, nested: bool, tmp_path: Path) -> None:
    square = node("MatMul", ["a", "a"], ["y3"])
    inner = node("If", ["true"], ["y1"], then_branch=branch(square), else_branch=branch(node("Abs", ["a"], ["y4"])))
    nodes = [*IS_RATE, choose("c", inner if nested else node("MatMul", ["a", "a"], ["y1"]))]
    inputs = [value("i", [1], INT64), value("a", ["rows", "columns"])]
    weights = {"rate": RATE["rate"], "zero": RATE["zero"], "true": np.ones((), bool)}
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("y", None)], weights)
    for shape, bounds in (([4, 3], (16001, 16002)), ([3, 3], (16000, 16000))):
        model = load_chain(path, shape={"a": shape})
        specs = model.chain.cuts[0].tensors
        assert [spec.bounds for spec in specs] == [bounds, None]
        drawn = random_inputs(specs, np.random.default_rng(0))
        made = BlockSession(model.block_model(0)).run(drawn)
        assert made["y"].tobytes() == BlockSession(path).run(drawn)["y"].tobytes()
        assert made["y"].shape == tuple(shape) == model.chain.cuts[-1].tensors[0].shape


def test_an_index_has_the_bounds_of_a_table_in_a_function(tmp_path: Path) -> None:
    assert load_chain(with_function(tmp_path / "m.onnx")).chain.cuts[0].tensors[0].bounds == (0, 6)


def test_a_cache_asks_for_a_mask_of_as_many_tokens_as_there_are(tmp_path: Path) -> None:
    """The mask of a decoder as onnxruntime's generator writes it; an incomplete one would count fewer tokens."""
    nodes = [
        node("ReduceSum", ["mask", "axis"], ["count"], keepdims=0),
        node("Sub", ["count", "one"], ["last"]),
        node("Cast", ["last"], ["lengths"], to=TensorProto.INT32),
        node("Shape", ["mask"], ["dims"]),
        node("Gather", ["dims", "second"], ["all"]),
        node("Cast", ["all"], ["total"], to=TensorProto.INT32),
        node("GroupQueryAttention", ["q", "k", "v", "past_k", "past_v", "lengths", "total"], ["y", "pk", "pv"],
             domain="com.microsoft", num_heads=2, kv_num_heads=2),
    ]  # fmt: skip
    weights = {"axis": np.array([1]), "one": np.array([1]), "second": np.array(1)}
    inputs = [value("mask", ["n", "t"], INT64), *(value(name, [1, 2, 16]) for name in "qkv")]
    inputs += [value(name, [1, 2, "past", 8]) for name in ("past_k", "past_v")]
    outputs = [value("y", [1, 2, 16]), *(value(name, [1, 2, "t", 8]) for name in ("pk", "pv"))]
    path = save(tmp_path / "m.onnx", nodes, inputs, outputs, weights)
    proto = onnx.load(path)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(proto.SerializeToString())
    for past in (0, 3):
        cache = {name: [1, 2, past, 8] for name in ("past_k", "past_v")}
        model = load_chain(path, shape={"mask": [1, 2 + past], **cache})
        assert {spec.name: spec.bounds for spec in model.chain.cuts[0].tensors}["mask"] == (1, 1)
        outputs_of = BlockSession(path).run(random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0)))
        assert outputs_of["pk"].shape == (1, 2, 2 + past, 8)
        assert np.isfinite(outputs_of["y"]).all()


@given(
    st.sampled_from(["int8", "uint8", "int32", "int64", "float16", "float32", "bool"]),
    st.lists(st.integers(0, 4), max_size=3),
    st.tuples(st.integers(0, 1), st.integers(1, 10**6)),
    st.integers(0, 2**32),
)
def test_numbers_are_drawn_between_bounds(dtype: str, shape: list[int], bounds: tuple[int, int], seed: int) -> None:
    drawn = random_inputs([TensorSpec("t", dtype, tuple(shape), bounds)], np.random.default_rng(seed))["t"]
    assert (drawn.dtype, drawn.shape) == (np.dtype(dtype), tuple(shape))
    numbers = drawn.astype(np.float64)
    assert np.all((numbers >= bounds[0]) & (numbers <= bounds[1]) & (numbers == np.round(numbers)))


def test_a_row_of_a_mask_hides_not_everything() -> None:
    drawn = random_inputs([TensorSpec("mask", "int64", (9, 1))], np.random.default_rng(0))["mask"]
    assert drawn.all()


@pytest.mark.parametrize("name", WRITERS)
def test_models_with_indices_are_split_and_measured(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    assert_cuts_match_tensors(model)
    for cut in range(1, len(model.chain)):
        assert check_split(model, [cut]).bit_equal
    profile = measure(load(name, tmp_path, max_blocks=3), device_class="here", rounds=3, budget_s=0.01)
    assert all(block.mean_s > 0 for block in profile.blocks)


def test_what_must_cross_a_cut_and_what_need_not(tmp_path: Path) -> None:
    def crosses(name: str) -> set[str]:
        return {spec.name for cut in load(name, tmp_path).chain.cuts[1:-1] for spec in cut.tensors}

    assert "best" in crosses("index across cuts")
    assert "s" in crosses("shape across cuts")
    assert {"edges"} <= crosses("message passing")
