"""Sequences and absent optional inputs or outputs lose no cut points and no FLOP of what follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, helper

from planner.model.load import ChainModel, load_chain
from planner.model.source import read_model
from tests.model.chained import FLOAT, INT64, assert_cuts_match_tensors, check_split, floats, save, value

WIDTH = 8
NODE = helper.make_node
WEIGHTS = {
    "w": floats(WIDTH, WIDTH),
    "zero": np.array(0),
    "one": np.array(1),
    "three": np.array(3),
    "minus_two": np.array(-2),
    "parts": np.array([2, 6]),
    "high": np.array(3.0, np.float32),
    "axes": np.array([0]),
    "rows": np.array([6, WIDTH]),
}


def built(path: Path, nodes: Sequence[NodeProto], rows: int, width: int, opset: int = 18) -> ChainModel:
    """Return the chain of r = relu(x w), then nodes that make e of shape [rows, width] from r, then tanh(e v)."""
    head = [NODE("MatMul", ["x", "w"], ["h"]), NODE("Relu", ["h"], ["r"])]
    tail = [NODE("MatMul", ["e", "v"], ["m"]), NODE("Tanh", ["m"], ["y"])]
    weights: dict[str, np.ndarray] = WEIGHTS | {"v": floats(width, 4)}
    file = save(path, [*head, *nodes, *tail], [value("x", [2, WIDTH])], [value("y", None)], weights, opset=opset)
    model = load_chain(file, max_blocks=None)
    assert [spec.shape for spec in model.chain.cuts[-1].tensors] == [(rows, 4)]
    return model


def split(*inputs: str, axis: int, keepdims: int = 1) -> NodeProto:
    return NODE("SplitToSequence", ["r", *inputs], ["s"], axis=axis, keepdims=keepdims)


def element(position: str, name: str = "e") -> NodeProto:
    return NODE("SequenceAt", ["s", position], [name])


def joined(name: str = "e", **attributes: Any) -> NodeProto:
    return NODE("ConcatFromSequence", ["s"], [name], **attributes)


CASES = {
    "absent split": ([split("", axis=1), element("zero")], 2, 1),
    "absent split, kept in no axis": (
        [split("", axis=0, keepdims=0), element("zero", "f"), NODE("Unsqueeze", ["f", "axes"], ["e"])],
        1,
        WIDTH,
    ),
    "unequal parts": ([split("parts", axis=1), element("one")], 2, 6),
    "parts of a size that does not divide": ([split("three", axis=-1), element("minus_two")], 2, 3),
    "joined again": ([split("parts", axis=1), joined(axis=1)], 2, WIDTH),
    "joined on a negative axis": ([split("three", axis=1), joined(axis=-1)], 2, WIDTH),
    "stacked": (
        [
            NODE("SequenceConstruct", ["r", "x", "r"], ["s"]),
            joined("f", axis=0, new_axis=1),
            NODE("Reshape", ["f", "rows"], ["e"]),
        ],
        6,
        WIDTH,
    ),
    "inserted and erased": (
        [
            NODE("SequenceEmpty", [], ["s0"]),
            NODE("SequenceInsert", ["s0", "r"], ["s1"]),
            NODE("SequenceInsert", ["s1", "x", "zero"], ["s2"]),
            NODE("Identity", ["s2"], ["s3"]),
            NODE("SequenceInsert", ["s3", "r"], ["s4"]),
            NODE("SequenceErase", ["s4", "one"], ["s5"]),
            NODE("ConcatFromSequence", ["s5"], ["e"], axis=0),
        ],
        4,
        WIDTH,
    ),
    "optional": ([NODE("Optional", ["r"], ["o"]), NODE("OptionalGetElement", ["o"], ["e"])], 2, WIDTH),
    "optional that is there": (
        [NODE("OptionalHasElement", ["r"], ["b"]), NODE("Where", ["b", "r", "x"], ["e"])], 2, WIDTH,
    ),
    "absent bounds": ([NODE("Clip", ["r", "", ""], ["e"])], 2, WIDTH),
    "absent lower bound": ([NODE("Clip", ["r", "", "high"], ["e"])], 2, WIDTH),
    "absent mask": ([NODE("Dropout", ["r", "", ""], ["e", ""])], 2, WIDTH),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_follows_has_its_cuts_and_flop(case: str, tmp_path: Path) -> None:
    nodes, rows, width = CASES[case]
    model = built(tmp_path / "m.onnx", nodes, rows, width)
    assert not model.uncounted
    assert [block.flop for block in model.chain.blocks[-2:]] == [2 * rows * width * 4, rows * 4]
    assert [[spec.name for spec in cut.tensors] for cut in model.chain.cuts[-3:]] == [["e"], ["m"], ["y"]]
    assert_cuts_match_tensors(model)
    assert check_split(model, range(1, len(model.chain))).bit_equal


def test_a_sequence_of_unknown_length_stays_in_its_block(tmp_path: Path) -> None:
    """The element is chosen by an input, so its size is known only if all are alike."""
    nodes = [split("parts", axis=1), element("k"), NODE("ReduceSum", ["e"], ["y"], keepdims=0)]
    head = [NODE("MatMul", ["x", "w"], ["r"])]
    inputs = [value("x", [2, WIDTH]), value("k", [], INT64)]
    file = save(tmp_path / "m.onnx", [*head, *nodes], inputs, [value("y", [])], WEIGHTS, opset=18)
    model = load_chain(file, max_blocks=None)
    assert all(spec.name not in {"s", "e"} for cut in model.chain.cuts for spec in cut.tensors)
    for index in (0, 1):
        given = {"x": floats(2, WIDTH), "k": np.array(index)}
        assert check_split(model, range(1, len(model.chain)), inputs=given).bit_equal


# Of all operators in ONNX 1.23, the inference of the first two differs where an absent last input is named "".
OPERATORS = [
    (NODE("SplitToSequence", ["a"], ["y"], axis=1), {"a": [2, 6]}, 1, 0),
    (
        NODE("MaxUnpool", ["a", "k"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        {"a": [1, 1, 2, 2], "k": [1, 1, 2, 2]},
        1,
        0,
    ),
    (NODE("Clip", ["a"], ["y"]), {"a": [2, 6]}, 2, 0),
    (NODE("Dropout", ["a"], ["y"]), {"a": [2, 6]}, 2, 1),
    (NODE("MaxPool", ["a"], ["y"], kernel_shape=[2, 2]), {"a": [1, 1, 4, 4]}, 0, 1),
    (NODE("LSTM", ["a", "b", "c"], ["y"], hidden_size=3), {"a": [4, 1, 5], "b": [1, 12, 5], "c": [1, 12, 3]}, 5, 2),
    (NODE("BatchNormalization", list("abcde"), ["y"]), {"a": [1, 2, 4]} | {name: [2] for name in "bcde"}, 0, 2),
    (NODE("Loop", ["", ""], [""]), {}, 0, 0),
]


@pytest.mark.parametrize(
    ("node", "shapes", "inputs", "outputs"), OPERATORS, ids=lambda case: getattr(case, "op_type", "")
)
def test_an_absent_last_input_or_output_is_no_other_than_none(
    node: NodeProto, shapes: dict[str, list[int]], inputs: int, outputs: int, tmp_path: Path
) -> None:
    longer = NodeProto()
    longer.CopyFrom(node)
    longer.input.extend([""] * inputs)
    longer.output.extend([""] * outputs)
    given = [value(name, shape, INT64 if name == "k" else FLOAT) for name, shape in shapes.items()]
    file = save(tmp_path / "m.onnx", [longer], given, [value("y", None)], opset=18)
    (trimmed,) = read_model(file).proto.graph.node
    assert trimmed == node
