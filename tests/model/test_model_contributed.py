"""Operators of onnxruntime and of new versions of ONNX: types against results, and FLOP against manual counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from planner.errors import ModelError
from planner.model.contributed import SHAPES
from planner.model.load import load_chain
from planner.runtime.session import BlockSession
from tests.model.chained import needs_onnxruntime

Array = NDArray[Any]
RNG = np.random.default_rng(0)
SCALE = np.array(0.1, np.float32)


def reals(*shape: int) -> Array:
    return RNG.standard_normal(shape, dtype=np.float32)


def bytes_of(*shape: int) -> Array:
    return RNG.integers(0, 255, shape, dtype=np.uint8)


def tokens(*shape: int) -> Array:
    return RNG.integers(0, 2, shape, dtype=np.int32)


ZERO = np.array(128, np.uint8)


@dataclass(frozen=True)
class Case:
    """A node on arrays; those at the positions ``fed`` are inputs of the model, the others are weights."""

    operator: str
    inputs: Sequence[Array | None]
    flop: float
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    fed: tuple[int, ...] = (0,)
    domain: str = "com.microsoft"
    opset: int = 21
    skipped: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.operator}-{len(self.inputs)}-{self.outputs}"


def qkv(*shape: int, count: int = 3) -> list[Array]:
    return [reals(*shape) for _ in range(count)]


LSTM_WEIGHTS = [bytes_of(1, 6, 16), bytes_of(1, 4, 16)]
CORE = 2 * 3  # batch of 2, 3 heads
CASES = [
    # Element-wise operators and normalisations.
    Case("BiasGelu", [reals(2, 4), reals(4)], 6 * 8),
    Case("FastGelu", [reals(2, 4)], 5 * 8),
    Case("Gelu", [reals(2, 4)], 5 * 8),
    Case("QuickGelu", [reals(2, 4)], 8),
    Case("SkipLayerNormalization", [reals(2, 3, 8), reals(2, 3, 8), reals(8), reals(8)], 9 * 48, fed=(0, 1)),
    Case(
        "SkipLayerNormalization",
        [reals(2, 3, 8), reals(2, 3, 8), reals(8), reals(8), reals(8)],
        9 * 48,
        outputs=4,
        fed=(0, 1),
        skipped=(1, 2),
    ),
    Case(
        "SkipSimplifiedLayerNormalization",
        [reals(2, 3, 8), reals(2, 3, 8), reals(8)],
        6 * 48,
        outputs=4,
        fed=(0, 1),
        skipped=(1, 2),
    ),
    Case("SimplifiedLayerNormalization", [reals(2, 3, 8), reals(8)], 5 * 48, {"axis": -1}, domain=""),
    Case(
        "EmbedLayerNormalization",
        [tokens(2, 3), tokens(2, 3), reals(9, 8), reals(5, 8), reals(2, 8), reals(8), reals(8)],
        10 * 48,
        outputs=3,
        fed=(0, 1),
    ),
    Case(
        "EmbedLayerNormalization",
        [tokens(2, 3), None, reals(9, 8), reals(5, 8), None, reals(8), reals(8), tokens(2, 3)],
        9 * 48,
        {"mask_index_type": 1},
        outputs=2,
        fed=(0, 7),
    ),
    # Products.
    Case("FusedMatMul", [reals(2, 5, 4), reals(2, 5, 3)], 2 * 2 * 4 * 3 * 5, {"transA": 1}, fed=(0, 1)),
    Case("FusedMatMul", [reals(2, 4, 5), reals(2, 3, 5)], 2 * 2 * 4 * 3 * 5, {"transB": 1, "alpha": 0.5}, fed=(0, 1)),
    Case("FusedMatMul", [reals(4, 2, 5), reals(2, 5, 3)], 2 * 2 * 4 * 3 * 5, {"transBatchA": 1}, fed=(0, 1)),
    Case("TransposeMatMul", [reals(4, 5), reals(3, 5)], 2 * 4 * 3 * 5, {"transB": 1}),
    Case("FusedGemm", [reals(4, 5), reals(5, 3), reals(3)], 2 * 12 * 5 + 12, {"activation": "Relu"}),
    Case(
        "MatMulNBits",
        [reals(2, 40), bytes_of(6, 2, 16), reals(12)],
        2 * 12 * 40,
        {"K": 40, "N": 6, "bits": 4, "block_size": 32},
    ),
    Case(
        "MatMulNBits",
        [reals(2, 3, 32), bytes_of(6, 1, 32), reals(6), bytes_of(6)],
        2 * 36 * 32,
        {"K": 32, "N": 6, "bits": 8, "block_size": 32},
    ),
    Case(
        "MatMulBnb4",
        [reals(2, 32), bytes_of(96), reals(12)],
        2 * 12 * 32,
        {"K": 32, "N": 6, "block_size": 16, "quant_type": 1},
    ),
    Case("DynamicQuantizeMatMul", [reals(2, 8), bytes_of(8, 3), SCALE, ZERO], 2 * 6 * 8),
    Case("MatMulIntegerToFloat", [bytes_of(2, 8), bytes_of(8, 3), SCALE, SCALE, ZERO, ZERO], 2 * 6 * 8),
    Case("MatMulInteger16", [tokens(2, 8).astype(np.int16), tokens(8, 3).astype(np.int16)], 2 * 6 * 8),
    Case("QGemm", [bytes_of(4, 5), SCALE, ZERO, bytes_of(5, 3), SCALE, ZERO], 2 * 12 * 5),
    Case(
        "QGemm",
        [bytes_of(4, 5), SCALE, ZERO, bytes_of(3, 5), SCALE, ZERO, tokens(3), SCALE, ZERO],
        2 * 12 * 5,
        {"transB": 1},
    ),
    Case(
        "GatherBlockQuantized",
        [bytes_of(9, 16), tokens(2, 3).astype(np.int64), reals(9, 2)],
        2 * 2 * 3 * 32,
        {"bits": 4, "block_size": 16, "gather_axis": 0, "quantize_axis": 1},
        fed=(1,),
    ),
    # Convolutions and pooling.
    Case(
        "FusedConv",
        [reals(1, 3, 8, 8), reals(4, 3, 3, 3), reals(4), reals(1, 4, 6, 6)],
        2 * 144 * 27 + 2 * 144,
        {"activation": "Relu"},
        fed=(0, 3),
    ),
    Case("FusedConv", [reals(1, 4, 8, 8), reals(4, 2, 3, 3)], 2 * 256 * 18, {"group": 2, "pads": [1, 1, 1, 1]}),
    Case(
        "QLinearConv",
        [bytes_of(1, 8, 8, 3), SCALE, ZERO, bytes_of(4, 3, 3, 3), SCALE, ZERO, SCALE, ZERO],
        2 * 36 * 4 * 27,
        {"channels_last": 1},
    ),
    Case("NhwcMaxPool", [bytes_of(1, 8, 8, 3)], 48 * 4, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case(
        "QLinearAveragePool",
        [bytes_of(1, 3, 8, 8), SCALE, ZERO, SCALE, ZERO],
        48 * 4,
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    Case("QLinearGlobalAveragePool", [bytes_of(1, 3, 8, 8), SCALE, ZERO, SCALE, ZERO], 192),
    Case("QLinearGlobalAveragePool", [bytes_of(1, 8, 8, 3), SCALE, ZERO, SCALE, ZERO], 192, {"channels_last": 1}),
    # Quantised element-wise operators.
    Case("QuantizeLinear", [reals(2, 4), SCALE, np.array(0, np.int8)], 16),
    Case("DequantizeLinear", [bytes_of(2, 4), SCALE, ZERO], 16),
    Case("QLinearAdd", [bytes_of(2, 1, 4), SCALE, ZERO, bytes_of(3, 1), SCALE, ZERO, SCALE, ZERO], 5 * 24),
    Case("QLinearMul", [bytes_of(2, 4), SCALE, ZERO, bytes_of(4), SCALE, ZERO, SCALE, ZERO], 5 * 8),
    Case(
        "QLinearConcat",
        [SCALE, ZERO, bytes_of(2, 4), SCALE, ZERO, bytes_of(2, 3), SCALE, ZERO],
        4 * 14,
        {"axis": 1},
        fed=(2, 5),
    ),
    Case("QLinearLeakyRelu", [bytes_of(2, 4), SCALE, ZERO, SCALE, ZERO], 5 * 8),
    Case("QLinearSigmoid", [bytes_of(2, 4), SCALE, ZERO, SCALE, ZERO], 5 * 8),
    Case(
        "QLinearSoftmax",
        [bytes_of(2, 4), SCALE, ZERO, np.array(1 / 256, np.float32), np.array(0, np.uint8)],
        72,
        {"opset": 13},
    ),
    Case(
        "QLinearWhere",
        [np.ones((2, 1), bool), bytes_of(4), SCALE, ZERO, bytes_of(2, 4), SCALE, ZERO, SCALE, ZERO],
        4 * 8,
    ),
    Case(
        "DynamicQuantizeLSTM",
        [reals(5, 2, 6), *LSTM_WEIGHTS, None, None, None, None, None, reals(1), bytes_of(1), reals(1), bytes_of(1)],
        5 * 2 * (2 * (96 + 64) + 4 * 4 * 4),
        {"hidden_size": 4},
        outputs=3,
    ),
    # Attention: queries of 5 tokens, a cache of 7.
    Case(
        "Attention", [reals(2, 5, 12), reals(12, 36), reals(36)], 2 * 2 * 5 * 12 * 36 + CORE * 25 * 21, {"num_heads": 3}
    ),
    Case(
        "Attention",
        [reals(2, 5, 12), reals(12, 36), reals(36), None, reals(2, 2, 3, 7, 4)],
        2 * 2 * 5 * 12 * 36 + CORE * 5 * 12 * 21,
        {"num_heads": 3, "unidirectional": 1},
        outputs=2,
        fed=(0, 4),
    ),
    Case(
        "QAttention",
        [bytes_of(2, 5, 12), bytes_of(12, 36), reals(36), SCALE, SCALE, None, ZERO, ZERO],
        2 * 2 * 5 * 12 * 36 + CORE * 25 * 21,
        {"num_heads": 3},
    ),
    Case("MultiHeadAttention", qkv(2, 5, 12), CORE * 25 * 21, {"num_heads": 3}, fed=(0, 1, 2)),
    Case(
        "MultiHeadAttention",
        [reals(2, 5, 12), reals(2, 3, 6, 4), reals(2, 3, 6, 4)],
        CORE * 30 * 21,
        {"num_heads": 3},
        fed=(0, 1, 2),
    ),
    Case(
        "MultiHeadAttention",
        [*qkv(2, 5, 12), None, None, None, reals(2, 3, 7, 4), reals(2, 3, 7, 4)],
        CORE * 5 * 12 * 21,
        {"num_heads": 3},
        outputs=3,
        fed=(0, 1, 2, 6, 7),
    ),
    *(
        Case(
            "GroupQueryAttention",
            [*query, *qkv(1, 1, past, 16, count=2), np.array([11], np.int32), np.array(12, np.int32), *tables],
            3 * length * max(12, past) * (64 + 5) + rotary,
            {"num_heads": 3, "kv_num_heads": 1, "do_rotary": int(bool(tables))},
            outputs=3,
            fed=(0, 3, 4, 5),
        )
        for length, past, query, tables, rotary in (
            (5, 7, [reals(1, 5, 80), None, None], qkv(20, 8, count=2), 3 * 5 * 4 * 16),
            (5, 7, [reals(1, 5, 48), reals(1, 5, 16), reals(1, 5, 16)], [], 0),
            (1, 20, [reals(1, 1, 80), None, None], [], 0),  # a cache that has room
        )
    ),
    Case("RotaryEmbedding", [reals(2, 5, 32), tokens(2, 5).astype(np.int64), reals(9, 8), reals(9, 8)], 3 * 320),
    Case(
        "RotaryEmbedding",
        [reals(2, 5, 32), tokens(2, 5).astype(np.int64), reals(9, 4), reals(9, 4)],
        3 * 320 // 2,
        {"num_heads": 2, "rotary_embedding_dim": 8},
    ),
    Case(
        "MoE",
        [reals(6, 8), reals(6, 4), reals(4, 16, 8), None, reals(4, 8, 16)],
        2 * 6 * 2 * (128 + 128),
        {"k": 2, "activation_type": "relu"},
    ),
    Case(
        "QMoE",
        [reals(6, 8), reals(6, 4), bytes_of(4, 16, 4), reals(4, 16), None, bytes_of(4, 8, 8), reals(4, 8)],
        2 * 6 * 2 * (128 + 128),
        {"k": 2, "activation_type": "relu", "expert_weight_bits": 4},
    ),
    Case("ScaledSiLU", [reals(2, 4), SCALE], 3 * 8),
    Case("GatedRMSNorm", [reals(2, 3, 8), reals(8), reals(2, 3, 8)], 8 * 48, fed=(0, 2)),
    Case("BranchwiseRMSNorm", [reals(2, 3, 8), reals(8)], 5 * 48),
    Case("Trilu", [reals(2, 4, 4)], 0),
    Case(
        "QEmbedLayerNormalization",
        [
            *(
                tokens(2, 3),
                tokens(2, 3),
                bytes_of(9, 8),
                bytes_of(5, 8),
                bytes_of(2, 8),
                bytes_of(8),
                bytes_of(8),
                None,
            ),
            *(SCALE,) * 5,
            *(ZERO,) * 5,
        ],
        (10 + 6) * 48,
        outputs=2,
        fed=(0, 1),
    ),
    # ONNX 23 to 28, which has its own inference.
    Case(
        "Attention",
        [reals(2, 3, 5, 4), reals(2, 3, 6, 4), reals(2, 3, 6, 8), None, reals(2, 3, 7, 4), reals(2, 3, 7, 8)],
        CORE * 5 * 13 * (8 + 16 + 5),
        outputs=3,
        fed=(0, 1, 2, 4, 5),
        domain="",
        opset=23,
    ),
    Case(
        "Attention",
        [*qkv(2, 5, 12), None, reals(2, 3, 7, 4), reals(2, 3, 7, 4)],
        CORE * 5 * 12 * 21,
        {"q_num_heads": 3, "kv_num_heads": 3, "is_causal": 1},
        outputs=3,
        fed=(0, 1, 2, 4, 5),
        domain="",
        opset=24,
    ),
    Case(
        "Attention",
        qkv(2, 3, 5, 4),
        CORE * 25 * 21,
        {"is_causal": 1, "left_window_size": 2, "right_window_size": 0},
        fed=(0, 1, 2),
        domain="",
        opset=25,
    ),
    Case("RotaryEmbedding", [reals(2, 3, 5, 16), reals(2, 5, 8), reals(2, 5, 8)], 3 * 480, domain="", opset=23),
    Case("RMSNormalization", [reals(2, 3, 8), reals(8)], 5 * 48, domain="", opset=23),
    Case("TensorScatter", [reals(2, 3, 9, 4), reals(2, 3, 2, 4), np.array([1, 2])], 0, fed=(0, 1), domain="", opset=24),
    Case("Swish", [reals(2, 4)], 2 * 8, domain="", opset=24),
    Case("CumProd", [reals(2, 4), np.array(1)], 8, domain="", opset=26),
    Case("BitCast", [reals(2, 4)], 0, {"to": 6}, domain="", opset=26),
    *(
        Case(
            "LinearAttention",
            [reals(2, 5, 12), reals(2, 5, 4), reals(2, 5, 8), reals(2, 1, 4, 8), *more],
            2 * 5 * 32 * (each + 3 * 2),
            {"q_num_heads": 3, "kv_num_heads": 1, "update_rule": rule},
            outputs=2,
            fed=(0, 1, 2, 3),
            domain=domain,
            opset=27,
        )
        for domain in ("", "com.microsoft")
        for rule, each, more in (
            ("linear", 2, []),
            ("gated", 3, [reals(2, 5, 1)]),
            ("delta", 4, [None, reals(2, 5, 1)]),
            ("gated_delta", 5, [reals(2, 5, 1), reals(2, 5, 1)]),
        )
    ),
    *(
        Case(
            "CausalConvWithState",
            [reals(2, 3, 5), reals(3, 1, 4), reals(3), reals(2, 3, 3)],
            30 * (8 + 2),
            {"activation": "silu"},
            outputs=2,
            fed=(0, 3),
            domain=domain,
            opset=27,
        )
        for domain in ("", "com.microsoft")
    ),
]


def build(case: Case, path: Path) -> dict[str, Array]:
    """Write a model of the node alone, and return its inputs."""
    names = ["" if array is None else f"in{index}" for index, array in enumerate(case.inputs)]
    arrays = {name: array for name, array in zip(names, case.inputs, strict=True) if array is not None}
    outputs = ["" if index in case.skipped else f"out{index}" for index in range(case.outputs)]
    node = helper.make_node(case.operator, names, outputs, domain=case.domain, **case.attributes)
    fed = {names[position]: arrays[names[position]] for position in case.fed}
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in fed.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name not in fed],
    )
    domains = {"": case.opset, "com.microsoft": 1, "ai.onnx.ml": 1}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return fed


@needs_onnxruntime(1, 32)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_types_are_those_of_the_results_and_flop_those_counted(case: Case, tmp_path: Path) -> None:
    check_types_and_flop(case, tmp_path / "m.onnx")


def check_types_and_flop(case: Case, path: Path) -> None:
    fed = build(case, path)
    results = BlockSession(path, optimise=False).run(fed)
    model = load_chain(path, max_blocks=1)
    assert {name: (array.dtype.name, array.shape) for name, array in results.items()} == {
        name: (model.shapes.specs[name].dtype, model.shapes.specs[name].shape) for name in results
    }
    assert model.uncounted == {}
    assert sum(block.flop for block in model.chain.blocks) == case.flop


def malformed(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield copies of a node with an attribute or an input left out or changed."""
    for index, item in enumerate(node.attribute):
        for change in (None, 0, "text"):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.attribute[index]
            if change is not None:
                copy.attribute.append(helper.make_attribute(item.name, change))
            yield copy
    for index, _ in enumerate(node.input):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = node.input[:index]
        yield copy


def test_malformed_nodes_are_never_a_traceback(tmp_path: Path) -> None:
    loaded, refused = load_malformed(CASES, tmp_path / "m.onnx")
    assert loaded > 100
    assert refused > 100


def load_malformed(cases: Sequence[Case], path: Path) -> tuple[int, int]:
    """Load malformed nodes of each operator; return how many were accepted and how many refused."""
    loaded, refused = 0, 0
    for case in {case.operator: case for case in cases}.values():
        build(case, path)
        model = onnx.load(path)
        for node in list(malformed(model.graph.node[0])):
            model.graph.node[0].CopyFrom(node)
            path.write_bytes(model.SerializeToString())
            try:
                load_chain(path, max_blocks=1)
                loaded += 1
            except ModelError:
                refused += 1
    return loaded, refused


def test_every_rule_has_a_case() -> None:
    assert set(SHAPES) - {case.operator for case in CASES} == set()
