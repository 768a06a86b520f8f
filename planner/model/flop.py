"""Floating-point operations of ONNX operators.

Convention: a multiply-add counts 2. An element-wise operation counts 1 for each output element, whatever the function.
A normalisation or softmax counts the operations that its definition needs for each element. Moving data counts 0. A
bias is the initial value of a sum and counts 0, so a convolution's FLOP is twice its published MACs. An operator
without a rule yields ``None``, so that the caller can report it to the user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from planner.model.classical import CLASSICAL_FLOP, CLASSICAL_MOVES
from planner.model.flop_attention import ATTENTION_RULES
from planner.model.lookup import MISFITS, Lookup, Rule, attribute, has_input, output_elements, shape_of

MOVES = CLASSICAL_MOVES | frozenset(
    """
    BitCast Cast CastLike Compress Concat ConcatFromSequence Constant ConstantOfShape DepthToSpace Dropout
    Expand EyeLike Flatten Gather GatherElements GatherND Identity NonZero OneHot Optional OptionalGetElement
    OptionalHasElement Pad Range Reshape ReverseSequence Scatter ScatterElements ScatterND SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Size Slice SpaceToDepth
    Split SplitToSequence Squeeze TensorScatter Tile Transpose Trilu Unique Unsqueeze
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
    "ScaledSiLU": 3,
    "SwiGLU": 3,
    "GatherBlockQuantized": 2,
    "QLinearAdd": 5,
    "QLinearMul": 5,
    "QLinearSigmoid": 5,
    "QLinearConcat": 4,
    "QLinearLeakyRelu": 5,
    "QLinearSoftmax": 9,
    "QLinearWhere": 4,
    "Softmax": 5,
    "LogSoftmax": 5,
    "Hardmax": 2,
    "LRN": 8,
    "Resize": 8,  # linear: the weighted sum of four neighbours
    "Upsample": 8,
    "GridSample": 8,
    "CumProd": 1,
    "CumSum": 1,
}
PER_INPUT = (
    {
        "LayerNormalization": 8,
        "SimplifiedLayerNormalization": 5,
        "SkipLayerNormalization": 9,
        "SkipSimplifiedLayerNormalization": 6,
        "BranchwiseRMSNorm": 5,
        "GatedRMSNorm": 8,
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
    operator = node.op_type
    try:
        if operator in RULES:
            return float(RULES[operator](node, lookup))
        if operator in PER_INPUT:
            return float(PER_INPUT[operator] * math.prod(shape_of(node.input[0], lookup)))
        each = 0 if operator in MOVES else 1 if operator in ELEMENTWISE else PER_OUTPUT.get(operator)
        return float(each * output_elements(node, lookup)) if each else each
    except MISFITS:  # shapes that the operator does not accept count as unknown
        return None


def _conv(node: onnx.NodeProto, lookup: Lookup, weight: int = 1) -> int:
    """Count a sum over the input channels of a group and the kernel for every output element."""
    kernel = shape_of(node.input[weight], lookup)
    return 2 * output_elements(node, lookup) * math.prod(kernel[1:])


def _qlinear_conv(node: onnx.NodeProto, lookup: Lookup) -> int:
    return 2 * output_elements(node, lookup) * math.prod(shape_of(node.input[3], lookup)[1:])


def _conv_transpose(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a product with the output channels of a group and the kernel for every input element."""
    kernel = shape_of(node.input[1], lookup)
    return 2 * math.prod(shape_of(node.input[0], lookup)) * math.prod(kernel[1:])


def _matmul(node: onnx.NodeProto, lookup: Lookup) -> int:
    return 2 * output_elements(node, lookup) * shape_of(node.input[0], lookup)[-1]


def _fused_matmul(node: onnx.NodeProto, lookup: Lookup) -> int:
    return (
        2 * output_elements(node, lookup) * shape_of(node.input[0], lookup)[-2 if attribute(node, "transA", 0) else -1]
    )


def _gemm(node: onnx.NodeProto, lookup: Lookup) -> int:
    inner = shape_of(node.input[0], lookup)[0 if attribute(node, "transA", 0) else 1]
    return 2 * output_elements(node, lookup) * inner


def _einsum(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a multiply-add for each combination of all indices."""
    terms = attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=False):
        shape = shape_of(name, lookup)
        letters = list(term.replace("...", ""))
        open_axes = len(shape) - len(letters)
        position = term.find("...")
        if position >= 0:
            letters[position:position] = [f"...{axis}" for axis in range(open_axes)]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return 2 * math.prod(sizes.values())


def _pool(node: onnx.NodeProto, lookup: Lookup) -> int:
    kernel: list[int] = attribute(node, "kernel_shape", [1])
    return output_elements(node, lookup) * math.prod(kernel)


def _recurrent(gates: int) -> Rule:
    def rule(node: onnx.NodeProto, lookup: Lookup) -> int:
        """Count the products of input and state with the gates' weights for every step and direction."""
        steps, batch, _ = shape_of(node.input[0], lookup)
        weights = math.prod(shape_of(node.input[1], lookup)) + math.prod(shape_of(node.input[2], lookup))
        hidden: int = attribute(node, "hidden_size", 1)
        directions = shape_of(node.input[1], lookup)[0]
        return steps * batch * (2 * weights + 4 * gates * hidden * directions)

    return rule


def _fused(rule: Rule, summand: int) -> Rule:
    """Return a rule for an operator with an activation and, as an input at position ``summand``, a tensor to add."""

    def fused(node: onnx.NodeProto, lookup: Lookup) -> int:
        extra = bool(attribute(node, "activation", b"")) + has_input(node, summand)
        return rule(node, lookup) + extra * output_elements(node, lookup)

    return fused


def _causal_convolution(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a sum over the kernel for every element, and the activation."""
    activation = attribute(node, "activation", b"none") not in (b"none", b"")
    return output_elements(node, lookup) * (2 * shape_of(node.input[1], lookup)[-1] + 2 * activation)


def _embedding(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the sum of two or three embeddings and its normalisation, and the dequantisation if there is one."""
    each = 8 + 1 + has_input(node, 4)
    if node.op_type.startswith("Q"):
        each += 2 * (2 + has_input(node, 4))
    return each * output_elements(node, lookup)


def _experts(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count the products with the two or three weights of as many experts as each token is sent to."""
    quantised = node.op_type == "QMoE"
    tokens = math.prod(shape_of(node.input[0], lookup)[:-1])
    packed: int = 8 // attribute(node, "expert_weight_bits", 4) if quantised else 1
    chosen: int = attribute(node, "k", 1)
    positions = [position for position in ((2, 5, 8) if quantised else (2, 4, 6)) if has_input(node, position)]
    weights = sum(math.prod(shape_of(node.input[position], lookup)[1:]) for position in positions)
    return 2 * tokens * chosen * weights * packed


RULES: Mapping[str, Rule] = {
    **ATTENTION_RULES,
    **CLASSICAL_FLOP,
    "AveragePool": _pool,
    "CausalConvWithState": _causal_convolution,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "DynamicQuantizeLSTM": _recurrent(4),
    "DynamicQuantizeMatMul": _matmul,
    "Einsum": _einsum,
    "EmbedLayerNormalization": _embedding,
    "FusedConv": _fused(_conv, summand=3),
    "FusedGemm": _fused(_gemm, summand=3),
    "FusedMatMul": _fused_matmul,
    "Gemm": _gemm,
    "GRU": _recurrent(3),
    "LpPool": _pool,
    "LSTM": _recurrent(4),
    "MatMul": _matmul,
    "MatMulBnb4": _matmul,
    "MatMulInteger": _matmul,
    "MatMulInteger16": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MatMulNBits": _matmul,
    "MaxPool": _pool,
    "MoE": _experts,
    "NhwcMaxPool": _pool,
    "QEmbedLayerNormalization": _embedding,
    "QGemm": _gemm,
    "QLinearAveragePool": _pool,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _matmul,
    "QMoE": _experts,
    "RNN": _recurrent(1),
    "TransposeMatMul": _fused_matmul,
}
