"""The shape that a message suggests for an input with open axes."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from planner.model.shape_examples import example_sizes


def suggested(shape: list[int | str | None] | None, noted: dict[str, str] | None = None) -> list[int]:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph([], "g", [value], [])
    model = helper.make_model(graph)
    model.metadata_props.extend(onnx.StringStringEntryProto(key=key, value=text) for key, text in (noted or {}).items())
    return example_sizes(value, model)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (["batch", 3, "height", "width"], [1, 3, 224, 224]),
        (["N", 3, None, None], [1, 3, 224, 224]),
        ([None, "h", "w", 3], [1, 224, 224, 3]),
        ([1, None, None, 1], [1, 224, 224, 1]),
        ([None, None, None, None], [1, 3, 224, 224]),
        (["batch_size", "sequence_length"], [1, 16]),
        (["batch", 8, "past_sequence_length", 64], [1, 8, 16, 64]),
        ([None, 512], [1, 512]),
        (["rows", 4], [1, 4]),
        (["unk__190", "unk__191"], [1, 16]),
        (["unk__1", 3, "unk__2", "unk__3"], [1, 3, 224, 224]),
        (["s0", "s1", 80], [1, 16, 80]),
        (["input_dim_0", "input_dim_1"], [1, 16]),
        (["stride", "dimension"], [1, 1]),
        (None, [1, 3, 224, 224]),
        ([], []),
    ],
)
def test_a_plausible_size_for_each_open_axis(shape: list[int | str | None] | None, sizes: list[int]) -> None:
    assert suggested(shape) == sizes


@pytest.mark.parametrize(
    ("noted", "side"),
    [("[640, 480]", [640, 480]), ("320", [320, 320]), ("large", [224, 224]), ("[0, 1]", [224, 224])],
)
def test_what_the_exporter_noted_goes_before(noted: str, side: list[int]) -> None:
    assert suggested(["batch", 3, "height", "width"], {"imgsz": noted}) == [1, 3, *side]
