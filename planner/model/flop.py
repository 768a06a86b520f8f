"""Floating-point operations of ONNX operators.

Convention: a multiply-add counts 2. An element-wise operation counts 1 for each output element, whatever the function.
A normalisation or softmax counts the operations that its definition needs for each element. Moving data counts 0. A
bias is the initial value of a sum and counts 0, so a convolution's FLOP is twice its published MACs. An operator
without a rule yields ``None``, so that the caller can report it to the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from planner.model.chain import TensorSpec

Lookup = Callable[[str], TensorSpec | None]

MOVES = frozenset(
    """
    Cast CastLike Compress Concat ConcatFromSequence Constant ConstantOfShape DepthToSpace Dropout Expand EyeLike
    Flatten Gather GatherElements GatherND Identity NonZero OneHot Optional OptionalGetElement OptionalHasElement
    Pad Range Reshape ReverseSequence ScatterElements ScatterND SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence
    Squeeze Tile Transpose Trilu Unique Unsqueeze
    """.split()  # noqa: SIM905 - a list of names reads best as prose
)
ELEMENTWISE = frozenset(
    """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu
    Clip Cos Cosh Div Elu Equal Erf Exp Floor Greater GreaterOrEqual HardSigmoid IsInf IsNaN LeakyRelu Less
    LessOrEqual Log Max Mean Min Mod Mul Neg Not Or PRelu Pow QuickGelu Reciprocal Relu Round Selu Shrink Sigmoid
    Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Tan Tanh ThresholdedRelu Where Xor
    """.split()  # noqa: SIM905 - a list of names reads best as prose
)
ONNX_ONLY = frozenset({"Attention"})  # onnxruntime has a different operator with this name
# Operations per element of the output.
PER_OUTPUT = {
    "BatchNormalization": 2,  # statistics and scale are folded into one multiply-add
    "DequantizeLinear": 2,
    "QuantizeLinear": 2,
    "HardSwish": 3,
    "Swish": 2,
    "Mish": 3,
    "Gelu": 5,
    "FastGelu": 5,
    "BiasGelu": 6,
    "QLinearAdd": 5,
    "QLinearMul": 5,
    "QLinearSigmoid": 5,
    "QLinearLeakyRelu": 5,
    "Softmax": 5,
    "LogSoftmax": 5,
    "Hardmax": 2,
    "LRN": 8,
    "Resize": 8,  # linear: the weighted sum of four neighbours
    "Upsample": 8,
    "GridSample": 8,
    "CumSum": 1,
}
PER_INPUT = (
    {
        "LayerNormalization": 8,
        "SimplifiedLayerNormalization": 5,
        "SkipLayerNormalization": 9,
        "RMSNormalization": 5,
        "GroupNormalization": 8,
        "InstanceNormalization": 8,
        "LpNormalization": 3,
        "MeanVarianceNormalization": 8,
        "DynamicQuantizeLinear": 4,
        "GlobalAveragePool": 1,
        "GlobalMaxPool": 1,
        "QLinearGlobalAveragePool": 1,
        "ArgMax": 1,
        "ArgMin": 1,
        "TopK": 1,
        "NonMaxSuppression": 1,
    }
    | dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceL1", "ReduceLogSum"), 1)
    | dict.fromkeys(("ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), 2)
)


def node_flop(node: onnx.NodeProto, lookup: Lookup) -> float | None:
    """Return the number of operations of a node.

    Parameters
    ----------
    node
        The node. Bodies of control flow are not counted; the caller adds them.
    lookup
        Returns a tensor's shape, or None if it is unknown.

    Returns
    -------
    float or None
        FLOP, or None if the operator has no rule or a shape that the rule needs is unknown.
    """
    if node.op_type in ONNX_ONLY and node.domain not in ("", "ai.onnx"):
        return None
    operator = node.op_type
    try:
        if operator in RULES:
            return float(RULES[operator](node, lookup))
        if operator in PER_INPUT:
            return float(PER_INPUT[operator] * math.prod(_shape(node.input[0], lookup)))
        each = 0 if operator in MOVES else 1 if operator in ELEMENTWISE else PER_OUTPUT.get(operator)
        return float(each * _output(node, lookup)) if each else each
    except (_UnknownShapeError, IndexError, ValueError):  # shapes that the operator does not accept count as unknown
        return None


class _UnknownShapeError(Exception):
    """A rule needs the shape of a tensor whose shape is unknown."""


def _shape(name: str, lookup: Lookup) -> tuple[int, ...]:
    spec = lookup(name)
    if spec is None:
        raise _UnknownShapeError
    return spec.shape


def _output(node: onnx.NodeProto, lookup: Lookup) -> int:
    return math.prod(_shape(node.output[0], lookup))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _conv(node: onnx.NodeProto, lookup: Lookup, weight: int = 1) -> int:
    """Count a sum over the input channels of a group and the kernel for every output element."""
    kernel = _shape(node.input[weight], lookup)
    return 2 * _output(node, lookup) * math.prod(kernel[1:])


def _qlinear_conv(node: onnx.NodeProto, lookup: Lookup) -> int:
    return 2 * _output(node, lookup) * math.prod(_shape(node.input[3], lookup)[1:])


def _conv_transpose(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a product with the output channels of a group and the kernel for every input element."""
    kernel = _shape(node.input[1], lookup)
    return 2 * math.prod(_shape(node.input[0], lookup)) * math.prod(kernel[1:])


def _matmul(node: onnx.NodeProto, lookup: Lookup) -> int:
    return 2 * _output(node, lookup) * _shape(node.input[0], lookup)[-1]


def _fused_matmul(node: onnx.NodeProto, lookup: Lookup) -> int:
    return 2 * _output(node, lookup) * _shape(node.input[0], lookup)[-2 if _attribute(node, "transA", 0) else -1]


def _gemm(node: onnx.NodeProto, lookup: Lookup) -> int:
    inner = _shape(node.input[0], lookup)[0 if _attribute(node, "transA", 0) else 1]
    return 2 * _output(node, lookup) * inner


def _einsum(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a multiply-add for each combination of all indices."""
    terms = _attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=False):
        shape = _shape(name, lookup)
        letters = list(term.replace("...", ""))
        open_axes = len(shape) - len(letters)
        position = term.find("...")
        if position >= 0:
            letters[position:position] = [f"...{axis}" for axis in range(open_axes)]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return 2 * math.prod(sizes.values())


def _pool(node: onnx.NodeProto, lookup: Lookup) -> int:
    kernel: list[int] = _attribute(node, "kernel_shape", [1])
    return _output(node, lookup) * math.prod(kernel)


def _recurrent(gates: int) -> Rule:
    def rule(node: onnx.NodeProto, lookup: Lookup) -> int:
        """Count the products of input and state with the gates' weights for every step and direction."""
        steps, batch, _ = _shape(node.input[0], lookup)
        weights = math.prod(_shape(node.input[1], lookup)) + math.prod(_shape(node.input[2], lookup))
        hidden: int = _attribute(node, "hidden_size", 1)
        directions = _shape(node.input[1], lookup)[0]
        return steps * batch * (2 * weights + 4 * gates * hidden * directions)

    return rule


def _attention(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count both products and the softmax of ``Attention`` (opset 23), with or without a separate axis for heads."""
    query, key, value = (_shape(node.input[index], lookup) for index in range(3))
    heads: int = query[1] if len(query) == 4 else _attribute(node, "q_num_heads", 1)
    batch, length, past = query[0], query[-2], key[-2]
    width = query[-1] if len(query) == 4 else query[-1] // heads
    kv_heads: int = key[1] if len(key) == 4 else _attribute(node, "kv_num_heads", heads)
    value_width = value[-1] if len(value) == 4 else value[-1] // kv_heads
    return batch * heads * length * past * (2 * width + 2 * value_width + 5)


Rule = Callable[[onnx.NodeProto, Lookup], int]
RULES: Mapping[str, Rule] = {
    "Attention": _attention,
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "FusedConv": _conv,
    "FusedMatMul": _fused_matmul,
    "Gemm": _gemm,
    "GRU": _recurrent(3),
    "LpPool": _pool,
    "LSTM": _recurrent(4),
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MaxPool": _pool,
    "QLinearAveragePool": _pool,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent(1),
}
