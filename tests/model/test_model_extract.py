"""Block models and the poolings added to them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

from planner.model.load import load_chain
from tests.model.chained import reference


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_block_fuses_its_sums_as_the_whole_model_does(tmp_path: Path) -> None:
    model = load_chain(reference("resnet56"))
    block = model.block_model(1)
    assert operators(onnx.load_from_string(block)).count("AveragePool") == 1
    assert model.chain.blocks[1].nodes == len(operators(onnx.load_from_string(block))) - 1
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(block, options, providers=["CPUExecutionProvider"])
    left = operators(onnx.load(tmp_path / "optimised.onnx"))
    if "ReorderInput" not in left:
        pytest.skip("onnxruntime has no blocked layout for this processor")
    assert "Add" not in left


def test_a_block_without_convolutions_gets_no_pooling() -> None:
    model = load_chain(reference("gpt2-small"))
    for index in range(len(model.chain)):
        assert "AveragePool" not in operators(onnx.load_from_string(model.block_model(index)))
