"""nn-Meter's predictions: whole models keep their predicted time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planner
from planner.errors import PlannerError

HEADER = "model_name, model_type, predictor, predictor_version, latency\n"
ROWS = "net.onnx, onnx, cortexA76cpu_tflite21, 1.0, 84.7938\n\nnet.onnx, onnx, adreno640gpu_tflite21, 1.0, 13.1248\n"
WIDTHS = (4, 64, 8, 32)


def table(folder: Path, text: str = HEADER + ROWS) -> Path:
    path = folder / "predictions.csv"
    path.write_text(text)
    return path


def model(folder: Path) -> Path:
    """Three products of matrices, with unequal work."""
    weights = [
        numpy_helper.from_array(np.ones((a, b), np.float32), f"w{index}")
        for index, (a, b) in enumerate(pairwise(WIDTHS))
    ]
    nodes = [helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"]) for index in range(3)]
    inputs, outputs = (
        [helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, [1, WIDTHS[index]])] for index in (0, 3)
    )
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "net", inputs, outputs, initializer=weights),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        ),
        folder / "net.onnx",
    )
    return folder / "net.onnx"


def test_a_model_takes_its_predicted_time_on_each_device(tmp_path: Path) -> None:
    files = [table(tmp_path), model(tmp_path)]
    converted = planner.convert("nn-meter", files, tmp_path / "out", bandwidth="54 Mbit/s")
    chain = planner.load_chain(files[1]).chain
    profile = converted.scenario.instance.profile("net", "cortexA76cpu_tflite21-1.0")
    times_s = [block.mean_s for block in profile.blocks]
    assert sum(times_s) == pytest.approx(0.0847938, rel=1e-12)
    assert times_s[0] / times_s[2] == pytest.approx(4 * 64 / (8 * 32))
    assert profile.chain_sha256 == chain.chain_sha256
    assert profile.cut_bytes == tuple(cut.bytes for cut in chain.cuts)
    local = planner.solve(converted.scenario, method="local").sources["samples"]
    assert [stage.worker for stage in local.routes[0].stages] == ["adreno640gpu_tflite21-1.0"]


def test_what_is_not_known_or_not_used_is_told(tmp_path: Path) -> None:
    files = [table(tmp_path, HEADER + ROWS + "other.pb, tensorflow, cortexA76cpu_tflite21, 1.0, 3\n"), model(tmp_path)]
    told = " ".join(planner.convert("nn-meter", files, tmp_path / "out", bandwidth="1 Gbit/s").notes)
    assert "other.pb" in told
    assert "divided among the blocks" in told


@pytest.mark.parametrize(
    ("text", "options", "place"),
    [
        ("", {}, "predictions.csv:1"),
        (HEADER, {}, "predictions.csv"),
        (HEADER.replace("latency", "time") + ROWS, {}, "predictions.csv:1"),
        (HEADER + ROWS.replace("13.1248", "fast"), {}, "predictions.csv:4"),
        (HEADER + ROWS.replace("13.1248", "-1"), {}, "predictions.csv:4"),
        (HEADER + ROWS.replace("13.1248", "nan"), {}, "predictions.csv:4"),
        (HEADER + ROWS.replace(", 13.1248", ""), {}, "predictions.csv:4"),
        (HEADER + ROWS + ROWS, {}, "predictions.csv:5"),
        (HEADER + ROWS.replace("net.onnx, onnx, adreno", "other, onnx, adreno"), {}, "predictions.csv"),
        (HEADER + ROWS, {}, "--set bandwidth"),
        (HEADER + ROWS, {"bandwidth": "54"}, "--set bandwidth"),
        (HEADER + ROWS, {"bandwidth": "54 Mbit/s", "memory": "much"}, "--set memory"),
    ],
)
def test_bad_tables_and_options_are_named(text: str, options: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(PlannerError) as found:
        planner.convert("nn-meter", [table(tmp_path, text), model(tmp_path)], tmp_path / "out", **options)
    (fault,) = found.value.faults
    assert str(fault.where).endswith(place)
    assert fault.expected
