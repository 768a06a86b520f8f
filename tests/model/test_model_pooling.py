"""Pools with ``ceil_mode``, whose last window may start behind the input."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import NodeProto, helper

from planner.model.load import load_chain
from planner.runtime.session import BlockSession
from tests.model.chained import check_split, inputs_of, save, value

SPATIAL = (
    ([9], [2], [2], [0, 1]),
    ([8], [2], [2], [0, 1]),
    ([7], [1], [3], [0, 0]),
    ([5, 8], [1, 3], [2, 3], [0, 1, 0, 1]),
    ([4, 5, 6], [2, 1, 3], [3, 2, 2], [1, 0, 1, 0, 0, 2]),
)
"""Sizes, kernels, strides and padding."""

CHOSEN = (([4], [1], [4]), ([8], [1], [3]), ([8], [2], [4]), ([6, 9], [1, 2], [3, 4]), ([6, 6], [1, 1], [3, 4]))
"""The same where ONNX chooses the padding."""


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize(("operator", "opset"), [("MaxPool", 12), ("AveragePool", 17), ("LpPool", 18), ("MaxPool", 22)])
def test_the_shape_is_that_of_the_run(operator: str, opset: int, *, stated: bool, tmp_path: Path) -> None:
    for size, kernel, strides, pads in SPATIAL:
        pool = helper.make_node(operator, ["a"], ["b"], kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=1)
        nodes: list[NodeProto] = [
            helper.make_node("Relu", ["x"], ["a"]),
            pool,
            helper.make_node("Sigmoid", ["b"], ["y"]),
        ]
        axes = zip(size, kernel, strides, pads[: len(size)], pads[len(size) :], strict=True)
        dims = [-(-(axis + before + after - of) // by) + 1 for axis, of, by, before, after in axes] if stated else None
        path = save(
            tmp_path / "pool.onnx",
            nodes,
            [value("x", [1, 2, *size])],
            [value("y", dims and [1, 2, *dims])],
            opset=opset,
        )
        model = load_chain(path, max_blocks=None)
        inputs = inputs_of(model)
        whole = BlockSession(model.stage_model(0, len(model.chain) - 1)).run(inputs)
        assert model.chain.cuts[-1].tensors[0].shape == whole["y"].shape
        for cut in range(1, len(model.chain)):
            assert check_split(model, [cut]).bit_equal


@pytest.mark.parametrize(
    ("operator", "opset", "auto_pad"),
    [
        ("MaxPool", 12, "VALID"),
        ("AveragePool", 17, "VALID"),
        ("LpPool", 18, "VALID"),
        ("LpPool", 18, "SAME_UPPER"),
        ("LpPool", 18, "SAME_LOWER"),
    ],
)
def test_no_window_starts_in_padding_that_onnx_chooses(
    operator: str, opset: int, auto_pad: str, tmp_path: Path
) -> None:
    for size, kernel, strides in CHOSEN:
        pool = helper.make_node(
            operator, ["a"], ["b"], kernel_shape=kernel, strides=strides, auto_pad=auto_pad, ceil_mode=1
        )
        nodes = [helper.make_node("Relu", ["x"], ["a"]), pool, helper.make_node("Sigmoid", ["b"], ["y"])]
        model = load_chain(
            save(tmp_path / "pool.onnx", nodes, [value("x", [1, 2, *size])], [value("y", None)], opset=opset),
            max_blocks=None,
        )
        for cut in range(1, len(model.chain)):
            assert check_split(model, [cut]).bit_equal
