"""FLOP by the stated convention, checked against manual counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from onnx import helper

from planner.model.flop import ELEMENTWISE, MOVES, PER_INPUT, PER_OUTPUT, RULES, node_flop


def flop(operator: str, shapes: Mapping[str, Sequence[int]], domain: str = "", **attributes: Any) -> float | None:
    """Return the FLOP of a node whose inputs are all named tensors except ``y``."""
    node = helper.make_node(operator, [name for name in shapes if name != "y"], ["y"], domain=domain, **attributes)
    known = {name: tuple(shape) for name, shape in shapes.items()}
    return node_flop(node, known.get)


CASES: list[tuple[str, dict[str, Sequence[int]], dict[str, Any], float]] = [
    ("Conv", {"x": (1, 3, 8, 8), "w": (16, 3, 3, 3), "y": (1, 16, 8, 8)}, {}, 2 * 16 * 64 * 27),
    ("Conv", {"x": (1, 8, 4, 4), "w": (8, 1, 3, 3), "b": (8,), "y": (1, 8, 4, 4)}, {"group": 8}, 2 * 8 * 16 * 9),
    ("ConvTranspose", {"x": (1, 4, 5, 5), "w": (4, 2, 2, 2), "y": (1, 2, 10, 10)}, {}, 2 * 100 * 8),
    ("QLinearConv", {"x": (1, 3, 8, 8), "s": (), "z": (), "w": (16, 3, 1, 1), "y": (1, 16, 8, 8)}, {}, 2 * 1024 * 3),
    ("MatMul", {"a": (2, 5, 7), "b": (7, 3), "y": (2, 5, 3)}, {}, 2 * 30 * 7),
    ("Gemm", {"a": (4, 6), "b": (6, 8), "c": (8,), "y": (4, 8)}, {}, 2 * 32 * 6),
    ("Gemm", {"a": (6, 4), "b": (8, 6), "y": (4, 8)}, {"transA": 1, "transB": 1}, 2 * 32 * 6),
    ("FusedMatMul", {"a": (6, 4), "b": (6, 8), "y": (4, 8)}, {"transA": 1}, 2 * 32 * 6),
    ("Einsum", {"a": (2, 3, 4), "b": (2, 4, 5), "y": (2, 3, 5)}, {"equation": "bij,bjk->bik"}, 2 * 2 * 3 * 4 * 5),
    ("Einsum", {"a": (2, 3, 4), "b": (4, 5), "y": (2, 3, 5)}, {"equation": "...j,jk->...k"}, 2 * 2 * 3 * 4 * 5),
    ("MaxPool", {"x": (1, 4, 8, 8), "y": (1, 4, 4, 4)}, {"kernel_shape": [2, 2]}, 64 * 4),
    ("GlobalAveragePool", {"x": (1, 4, 8, 8), "y": (1, 4, 1, 1)}, {}, 256),
    ("ReduceMean", {"x": (2, 10), "y": (2, 1)}, {}, 20),
    ("Relu", {"x": (2, 10), "y": (2, 10)}, {}, 20),
    ("Softmax", {"x": (2, 10), "y": (2, 10)}, {}, 100),
    ("LayerNormalization", {"x": (2, 10), "y": (2, 10)}, {}, 160),
    ("SwiGLU", {"a": (2, 10), "b": (2, 10), "y": (2, 10)}, {}, 60),
    ("Reshape", {"x": (2, 10), "y": (20,)}, {}, 0),
    ("GRU", {"x": (4, 1, 2), "w": (1, 9, 2), "r": (1, 9, 3), "y": (4, 1, 1, 3)}, {"hidden_size": 3}, 4 * (90 + 36)),
    ("Attention", {"q": (1, 2, 5, 4), "k": (1, 2, 7, 4), "v": (1, 2, 7, 4), "y": (1, 2, 5, 4)}, {}, 70 * (8 + 8 + 5)),
    (
        "Attention",
        {"q": (1, 5, 8), "k": (1, 7, 8), "v": (1, 7, 8), "y": (1, 5, 8)},
        {"q_num_heads": 2, "kv_num_heads": 2},
        70 * (8 + 8 + 5),
    ),
]


PACKED_ATTENTION = [
    ({"qkv": (2, 5, 3, 3, 4), "y": (2, 5, 12)}, 2 * 3 * 25 * (8 + 8 + 5)),
    ({"q": (2, 5, 12), "kv": (2, 7, 3, 2, 4), "y": (2, 5, 12)}, 2 * 3 * 35 * (8 + 8 + 5)),
]


@pytest.mark.parametrize(("shapes", "expected"), PACKED_ATTENTION)
def test_attention_on_packed_tensors(shapes: Mapping[str, Sequence[int]], expected: float) -> None:
    assert flop("MultiHeadAttention", shapes, "com.microsoft", num_heads=3) == expected


@pytest.mark.parametrize(("operator", "shapes", "attributes", "expected"), CASES)
def test_rules(operator: str, shapes: Mapping[str, Sequence[int]], attributes: dict[str, Any], expected: float) -> None:
    assert flop(operator, shapes, **attributes) == expected


def test_an_operator_without_a_rule_is_not_zero() -> None:
    assert flop("Magic", {"x": (2, 2), "y": (2, 2)}) is None
    assert flop("MatMul", {"x": (2, 2), "w": (2, 2)}) is None


@pytest.mark.parametrize("operator", ["Conv", "Relu", "ReduceMean", "LSTM"])
def test_an_unknown_shape_is_not_zero(operator: str) -> None:
    assert flop(operator, {"x": (1, 2, 3)}) is None or operator == "ReduceMean"
    node = helper.make_node(operator, ["x", "w", "r"], ["y"])
    assert node_flop(node, lambda _: None) is None


def test_no_operator_has_two_rules() -> None:
    names = [*MOVES, *ELEMENTWISE, *PER_OUTPUT, *PER_INPUT, *RULES]
    assert len(names) == len(set(names))
