"""Types of the outputs of operators for which ONNX has no shape inference: onnxruntime's own, and classical models.

Many of onnxruntime's are fused or quantised variants of a standard operator and take their shapes from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import TensorProto, TypeProto, checker, defs, helper, shape_inference

from planner.model.attention import attention_shape
from planner.model.classical import CLASSICAL, CLASSICAL_SHAPES
from planner.model.lookup import MISFITS, UnknownShapeError
from planner.model.operands import Dims, Operands, Outputs, Rule

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})  # a few are registered as if they were ONNX's own
STANDARD_OPSET = 21


def contributed_outputs(
    node: onnx.NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto]
) -> dict[str, TypeProto]:
    """Return the types of a node's outputs, as far as they are known, for the operators that have a rule.

    Parameters
    ----------
    node
        The node.
    types, values
        Types and values known so far, by tensor name.
    """
    rules = CLASSICAL_SHAPES if node.domain == CLASSICAL else SHAPES if node.domain in DOMAINS else {}
    rule = rules.get(node.op_type)
    if rule is None:
        return {}
    try:
        outputs = rule(Operands(node, types, values))
    except (*MISFITS, shape_inference.InferenceError, checker.ValidationError):
        return {}
    return {
        name: helper.make_tensor_type_proto(*output)
        for name, output in zip(node.output, outputs, strict=False)
        if name and output is not None and min(output[1], default=0) >= 0
    }


def _same(*positions: int) -> Rule:
    """Return a rule for outputs of the same type as these inputs."""
    return lambda operands: [(operands.element(position), operands.dims(position)) for position in positions]


def _retyped(element: int | None = None, *, like: int = 0, default: int = TensorProto.UINT8) -> Rule:
    """Return a rule for an output with the shape of the first input and the element type of input ``like``."""

    def rule(operands: Operands) -> Outputs:
        found = element or (operands.element(like) if operands.has(like) else default)
        return [(found, operands.dims(0))]

    return rule


def _standard(
    operator: str,
    *positions: int,
    element: int = 0,
    default: int = TensorProto.FLOAT,
    fixed: int | None = None,
    channels_last: bool = False,
) -> Rule:
    """Return a rule for the shapes of a standard operator on the inputs at these positions.

    Parameters
    ----------
    operator
        The standard operator.
    positions
        Inputs that correspond to its inputs.
    element, default, fixed
        Input whose element type the outputs have, the element type if that input is absent, or the only possible one.
    channels_last
        Whether the channels are always the last axis, as with an attribute of this name.
    """

    def rule(operands: Operands) -> Outputs:
        last = bool(operands.attribute("channels_last", int(channels_last)))
        shapes = [operands.dims(position) for position in positions]
        if last:
            shapes[0] = _channels_second(shapes[0])
        found = fixed or (operands.element(element) if operands.has(element) else default)
        dims = _infer(operator, shapes, operands.node.attribute)
        return [(found, _channels_last(shape) if last else shape) for shape in dims]

    return rule


def _infer(operator: str, shapes: Sequence[Dims], attributes: Iterable[onnx.AttributeProto]) -> list[Dims]:
    """Return the shapes of a standard operator's outputs."""
    schema = defs.get_schema(operator, STANDARD_OPSET)
    names = [f"in{index}" for index in range(len(shapes))]
    outputs = [f"out{index}" for index in range(min(schema.max_output, 3))]
    node = helper.make_node(operator, names, outputs)
    node.attribute.extend(item for item in attributes if item.name in schema.attributes)
    kinds = {
        name: helper.make_tensor_type_proto(TensorProto.FLOAT, shape) for name, shape in zip(names, shapes, strict=True)
    }
    found = shape_inference.infer_node_outputs(
        schema, node, kinds, opset_imports=[helper.make_opsetid("", STANDARD_OPSET)]
    )
    return [tuple(dim.dim_value for dim in found[name].tensor_type.shape.dim) for name in outputs if name in found]


def _channels_second(dims: Dims) -> Dims:
    return dims[0], dims[-1], *dims[1:-1]


def _channels_last(dims: Dims) -> Dims:
    return dims[0], *dims[2:], dims[1]


def _transposed(dims: Dims, *, matrix: bool, batch: bool) -> Dims:
    if batch:
        dims = (*dims[1:-1], dims[0], dims[-1])
    return (*dims[:-2], dims[-1], dims[-2]) if matrix else dims


def _fused_matmul(operands: Operands) -> Outputs:
    left, right = (
        _transposed(
            operands.dims(position),
            matrix=bool(operands.attribute(f"trans{side}", 0)),
            batch=bool(operands.attribute(f"transBatch{side}", 0)),
        )
        for position, side in enumerate("AB")
    )
    return [(operands.element(0), shape) for shape in _infer("MatMul", [left, right], ())]


def _packed_matmul(operands: Operands) -> Outputs:
    """Return the output of a product with weights packed into blocks."""
    return [(operands.element(0), (*operands.dims(0)[:-1], operands.attribute("N", 0)))]


def _concat(operands: Operands) -> Outputs:
    shapes = [operands.dims(position) for position in range(2, len(operands.node.input), 3)]
    return [(operands.element(1), shape) for shape in _infer("Concat", shapes, operands.node.attribute)]


def _skip_normalisation(operands: Operands) -> Outputs:
    dims = operands.dims(0)
    same, statistic = (operands.element(0), dims), (int(TensorProto.FLOAT), (*dims[:-1], 1))
    return [same, statistic, statistic, same]


def _simplified_normalisation(operands: Operands) -> Outputs:
    dims, axis = operands.dims(0), operands.attribute("axis", -1)
    kept = axis % len(dims)
    statistic = (*dims[:kept], *(1 for _ in dims[kept:]))
    return [(operands.element(1), dims), (int(TensorProto.FLOAT), statistic)]


def _embedding(operands: Operands) -> Outputs:
    batch, length = operands.dims(0)
    quantised = operands.node.op_type.startswith("Q")
    element = operands.element(8 if quantised else 5)
    result = (element, (batch, length, operands.dims(2)[-1]))
    return [result, (int(TensorProto.INT32), (batch,)), result]


def _gather_block_quantized(operands: Operands) -> Outputs:
    data, axis = operands.dims(0), operands.attribute("gather_axis", 0)
    packed = 8 // operands.attribute("bits", 4) if operands.element(0) == TensorProto.UINT8 else 1
    data = (*data[:-1], data[-1] * packed)
    return [(operands.element(2), (*data[:axis], *operands.dims(1), *data[axis + 1 :]))]


def _self_attention(operands: Operands) -> Outputs:
    """Return the outputs of ``Attention`` and ``QAttention``, which project their input themselves."""
    quantised = operands.node.op_type == "QAttention"
    past = 8 if quantised else 4
    batch, length, _ = operands.dims(0)
    sizes = operands.attribute("qkv_hidden_sizes", None) or [operands.dims(1)[1] // 3] * 3
    heads = operands.attribute("num_heads", 1)
    total = length
    if operands.has(past):
        before = operands.dims(past)[3]
        total = before if operands.attribute("past_present_share_buffer", 0) else before + length
    element = operands.element(3 if quantised else 0)
    return [(element, (batch, length, sizes[2])), (element, (2, batch, heads, total, sizes[0] // heads))]


def _multi_head_attention(operands: Operands) -> Outputs:
    shape = attention_shape(operands.node, operands.dims)
    cache = (shape.batch, shape.key_heads, shape.keys)
    element = operands.element(0)
    return [
        (element, (shape.batch, shape.queries, shape.heads * shape.value_width)),
        (element, (*cache, shape.width)),
        (element, (*cache, shape.value_width)),
        (element, (shape.batch, shape.heads, shape.queries, shape.keys)),
    ]


def _grouped_attention(operands: Operands) -> Outputs:
    """Return the outputs of ``GroupQueryAttention``; a cache of fixed length is written in place."""
    shape = attention_shape(operands.node, operands.dims)
    output = (operands.element(0), (shape.batch, shape.queries, shape.heads * shape.width))
    try:
        total = operands.number(6)
    except UnknownShapeError:
        return [output]
    caches: list[tuple[int, Dims]] = []
    for position in (3, 4):
        if operands.has(position):
            batch, heads, before, width = operands.dims(position)
            caches.append((operands.element(position), (batch, heads, max(total, before), width)))
        else:
            caches.append((operands.element(0), (shape.batch, shape.key_heads, total, shape.width)))
    return [output, *caches]


def _linear_attention(operands: Operands) -> Outputs:
    """Return the output and the state of ``LinearAttention``."""
    batch, length, width = operands.dims(0)
    heads, groups = operands.attribute("q_num_heads", 1), operands.attribute("kv_num_heads", 1)
    value_width = operands.dims(2)[-1] // groups
    element = operands.element(0)
    state = (operands.element(3) if operands.has(3) else element, (batch, groups, width // heads, value_width))
    return [(element, (batch, length, heads * value_width)), state]


def _causal_convolution(operands: Operands) -> Outputs:
    batch, channels, _ = operands.dims(0)
    element, kept = operands.element(0), operands.dims(1)[-1] - 1
    return [(element, operands.dims(0)), (element, (batch, channels, kept))]


SHAPES: Mapping[str, Rule] = {
    "Attention": _self_attention,
    "BiasGelu": _same(0),
    "BranchwiseRMSNorm": _same(0),
    "CausalConvWithState": _causal_convolution,
    "DequantizeLinear": _retyped(like=1),
    "DynamicQuantizeLSTM": _standard("LSTM", 0, 1, 2),
    "DynamicQuantizeMatMul": _standard("MatMul", 0, 1, element=2),
    "EmbedLayerNormalization": _embedding,
    "FastGelu": _same(0),
    "FusedConv": _standard("Conv", 0, 1),
    "FusedGemm": _standard("Gemm", 0, 1),
    "FusedMatMul": _fused_matmul,
    "GatedRMSNorm": _same(0),
    "GatherBlockQuantized": _gather_block_quantized,
    "Gelu": _same(0),
    "GroupQueryAttention": _grouped_attention,
    "LinearAttention": _linear_attention,
    "MatMulBnb4": _packed_matmul,
    "MatMulInteger16": _standard("MatMul", 0, 1, fixed=TensorProto.INT32),
    "MatMulIntegerToFloat": _standard("MatMul", 0, 1, element=2),
    "MatMulNBits": _packed_matmul,
    "MoE": _same(0),
    "MultiHeadAttention": _multi_head_attention,
    "NhwcMaxPool": _standard("MaxPool", 0, channels_last=True),
    "QAttention": _self_attention,
    "QEmbedLayerNormalization": _embedding,
    "QGemm": _standard("Gemm", 0, 3, element=8),
    "QLinearAdd": _standard("Add", 0, 3),
    "QLinearAveragePool": _standard("AveragePool", 0),
    "QLinearConcat": _concat,
    "QLinearConv": _standard("Conv", 0, 3, element=7),
    "QLinearGlobalAveragePool": _standard("GlobalAveragePool", 0),
    "QLinearLeakyRelu": _same(0),
    "QLinearMul": _standard("Mul", 0, 3),
    "QLinearSigmoid": _same(0),
    "QLinearSoftmax": _same(0),
    "QLinearWhere": _standard("Max", 0, 1, 4, element=1),
    "QMoE": _same(0),
    "QuantizeLinear": _retyped(like=2),
    "QuickGelu": _same(0),
    "RotaryEmbedding": _same(0),
    "ScaledSiLU": _same(0),
    "SimplifiedLayerNormalization": _simplified_normalisation,
    "SkipLayerNormalization": _skip_normalisation,
    "SkipSimplifiedLayerNormalization": _skip_normalisation,
    "TransposeMatMul": _fused_matmul,
    "Trilu": _same(0),
}
