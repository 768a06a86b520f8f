"""Sort a block's operators by kind, and add up their work.

A runtime's time for a model is close to the sum of the times of its kernels: operators, with those that are fused into
the operator before them. This is the decomposition of nn-Meter (Zhang et al., 2021, doi:10.1145/3458864.3467882).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from planner.model.flop import ELEMENTWISE, MOVES, PER_INPUT
from planner.model.lookup import MISFITS, Lookup, attribute, shape_of
from planner.model.work import TERMS, KernelWork, Work

FREE: Final = frozenset(
    {"Constant", "ConstantOfShape", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze"}
    | {"DequantizeLinear", "QuantizeLinear", "Unsqueeze"}
)
"""Operators that take no time: views, constants, and the annotations of quantised operators."""

CONVOLUTIONS: Final = frozenset({"Conv", "ConvInteger", "FusedConv", "QLinearConv"})
PRODUCTS: Final = frozenset({"FusedGemm", "FusedMatMul", "Gemm", "MatMul", "TransposeMatMul"})
QUANTISED: Final = frozenset(
    """
    ConvInteger DynamicQuantizeMatMul MatMulBnb4 MatMulInteger MatMulInteger16 MatMulIntegerToFloat MatMulNBits QGemm
    QLinearConv QLinearMatMul
    """.split()  # noqa: SIM905 - a list of names reads best as prose
)
_KINDS: Final = (
    dict.fromkeys(MOVES, "move")
    | dict.fromkeys(("AveragePool", "LpPool", "MaxPool", "NhwcMaxPool", "QLinearAveragePool"), "pooling")
    | dict.fromkeys(("BiasGelu", "Erf", "FastGelu", "Gelu"), "error_function")
    | dict.fromkeys(("Cos", "Elu", "Exp", "HardSwish", "Log", "Mish", "Pow", "QuickGelu", "Selu"), "function")
    | dict.fromkeys(("Sigmoid", "Sin", "Softplus", "Sqrt", "Swish", "Tanh"), "function")
    | dict.fromkeys(("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN"), "recurrent")
    | dict.fromkeys(("GridSample", "Resize", "Upsample"), "resize")
    | {
        "BatchNormalization": "elementwise",
        "ConvTranspose": "transposed_convolution",
        "LRN": "local_normalisation",
        "Transpose": "transpose",
    }
)
ACTIVATIONS: Final = frozenset({"BatchNormalization", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""What is fused into the product or convolution that produces its input."""
SUMS: Final = frozenset({"Add", "Sum"})

DEQUANTISED: Final = "dequantised"
"""Stands for the maker of a tensor that was quantised: a runtime computes what follows with integers."""

FEW_CHANNELS: Final = 8
FEW_ROWS: Final = 4


@dataclass(frozen=True)
class NodeFacts:
    """What is known about the nodes of a graph.

    Parameters
    ----------
    lookup
        Returns a tensor's shape, or None if it is unknown.
    size_bytes
        Returns a tensor's size in bytes; 0 if it is unknown.
    flop
        Returns the operations of a node.
    is_free
        Returns whether a tensor is constant, or cheaply made of the model's inputs.
    """

    lookup: Lookup
    size_bytes: Callable[[str], int]
    flop: Callable[[onnx.NodeProto], float]
    is_free: Callable[[str], bool]


def work_of(nodes: Sequence[onnx.NodeProto], facts: NodeFacts, border_bytes: float) -> Work:
    """Return the work by kind of a block.

    Parameters
    ----------
    nodes
        Its nodes, in execution order.
    facts
        What is known about them.
    border_bytes
        Size of its inputs and outputs.
    """
    totals: dict[str, list[float]] = {"border": [0.0, 0.0, float(border_bytes), 0.0]}
    kinds: dict[str, str] = {}  # of the operator that makes a tensor
    for node in nodes:
        if not node.output or facts.is_free(node.output[0]):
            continue
        kind = _kind(node, facts, kinds)
        kinds |= dict.fromkeys(node.output, kind)
        if node.op_type in FREE:
            continue
        inputs = dict.fromkeys(filter(None, node.input))
        weights = sum(facts.size_bytes(name) for name in inputs if facts.is_free(name))
        activations = sum(facts.size_bytes(name) for name in inputs if not facts.is_free(name))
        activations += sum(facts.size_bytes(name) for name in node.output if name)
        amounts = (float(kind != "fused"), facts.flop(node), float(activations), float(weights))
        totals[kind] = [total + amount for total, amount in zip(totals.get(kind, (0.0,) * 4), amounts, strict=True)]
    return {kind: KernelWork(**dict(zip(TERMS, amounts, strict=True))) for kind, amounts in sorted(totals.items())}


def _kind(node: onnx.NodeProto, facts: NodeFacts, kinds: Mapping[str, str]) -> str:
    operator = node.op_type
    maker = kinds.get(node.input[0], "") if node.input else ""
    if operator in FREE:
        return DEQUANTISED if operator == "DequantizeLinear" else maker
    if operator in QUANTISED or (operator in CONVOLUTIONS | PRODUCTS and maker == DEQUANTISED):
        return "quantised_product"
    try:
        if operator in CONVOLUTIONS:
            return _convolution(node, facts)
        if operator in PRODUCTS:
            return _product(node, facts)
    except MISFITS:
        return "elementwise"
    return "fused" if _is_fused(node, facts, kinds, maker) else _other(operator)


def _other(operator: str) -> str:
    if operator in _KINDS:
        return _KINDS[operator]
    if "Attention" in operator:
        return "attention"
    if "Softmax" in operator:
        return "softmax"
    if "Norm" in operator:
        return "normalisation"
    return "reduction" if operator in PER_INPUT else "elementwise"


def _convolution(node: onnx.NodeProto, facts: NodeFacts) -> str:
    _, channels, *kernel = shape_of(node.input[1], facts.lookup)
    if attribute(node, "group", 1) > 1:
        grouped = "grouped_pointwise_convolution" if math.prod(kernel) == 1 else "grouped_convolution"
        return "depthwise_convolution" if channels == 1 else grouped
    if channels < FEW_CHANNELS:
        return "first_convolution"
    return "pointwise_convolution" if math.prod(kernel) == 1 else "convolution"


def _product(node: onnx.NodeProto, facts: NodeFacts) -> str:
    if not any(facts.is_free(name) for name in node.input[:2]):
        return "activation_product"
    rows = math.prod(shape_of(node.output[0], facts.lookup)[:-1])
    return "vector_product" if rows < FEW_ROWS else "matrix_product"


def _is_fused(node: onnx.NodeProto, facts: NodeFacts, kinds: Mapping[str, str], maker: str) -> bool:
    """Return whether a runtime computes a node in the kernel of the convolution or product before it."""
    after_product = maker.endswith(("convolution", "product"))
    if node.op_type in ACTIVATIONS:
        return after_product or maker == "fused"
    if node.op_type not in SUMS or node.op_type not in ELEMENTWISE:
        return False
    makers = [kinds.get(name, "") for name in node.input]
    if any(facts.is_free(name) for name in node.input):
        return any(kind.endswith(("convolution", "product")) for kind in makers)
    return any(kind.endswith("convolution") or kind == "fused" for kind in makers)
