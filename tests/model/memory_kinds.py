"""Models of one kind of operator each, from ``x`` to ``y``, whose tensors take about a MiB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.model.chained import BOOL, FLOAT, INT64, floats, value

IMAGE: Final = (1, 32, 96, 96)
MATRIX: Final = (512, 512)
SEQUENCE: Final = (64, 16, 256)
DOUBLE: Final = TensorProto.DOUBLE
ONE, TWO, AXIS_1 = np.float32(1), np.float32(2), np.array([1])
SCALES: Final = {"scales": np.array([1, 1, 2, 2], np.float32)}
FACTORS: Final = {name: np.ones(32, np.float32) for name in ("g", "b", "m", "v")}
GRID: Final = np.random.default_rng(0).uniform(-1, 1, (1, 192, 96, 2)).astype(np.float32)
NORM: Final = ["g", "b", "m", "v"]


@dataclass(frozen=True)
class Kind:
    """Nodes, the shape of the input and the output, weights, and the type of both."""

    nodes: Sequence[NodeProto]
    shape: Sequence[int]
    out: Sequence[int]
    weights: Mapping[str, NDArray[Any] | np.generic] = field(default_factory=dict)
    element: int = FLOAT
    opset: int = 21
    domain: str = ""
    result: int | None = None

    def model(self) -> bytes:
        """Return the model."""
        tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.weights.items()]
        output = value("y", self.out, self.element if self.result is None else self.result)
        graph = helper.make_graph(self.nodes, "kind", [value("x", self.shape, self.element)], [output], tensors)
        opsets = [helper.make_opsetid("", self.opset)] + ([helper.make_opsetid(self.domain, 1)] if self.domain else [])
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())

    def inputs(self) -> dict[str, NDArray[Any]]:
        """Return random inputs."""
        return {"x": floats(*self.shape).astype(helper.tensor_dtype_to_np_dtype(self.element))}


def node(operator: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """Return a node; names are separated by spaces, and ``-`` is an absent input."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, output.split(), **attributes)


def unary(operator: str, **attributes: Any) -> list[NodeProto]:
    """Return an operator between two sines, so that neither its input nor its output belongs to the caller."""
    return [node("Sin", "x", "a"), node(operator, "a", "b", **attributes), node("Sin", "b", "y")]


def of_three(operator: str) -> list[NodeProto]:
    return [node("Sin", "x", "a"), node("Cos", "x", "b"), node(operator, "a b x", "y")]


def rounded(source: str, target: str) -> list[NodeProto]:
    """Return a quantisation to 8 bits and back."""
    quantised = f"{target}/quantised"
    return [
        node("QuantizeLinear", f"{source} step zero", quantised),
        node("DequantizeLinear", f"{quantised} step zero", target),
    ]


def quantised_weight(*shape: int) -> dict[str, NDArray[Any] | np.generic]:
    numbers = np.random.default_rng(0).integers(-99, 99, shape).astype(np.int8)
    return {
        "q": numbers,
        "scale": np.float32(0.01),
        "none": np.int8(0),
        "step": np.float32(0.05),
        "zero": np.uint8(128),
    }


WEIGHT: Final = node("DequantizeLinear", "q scale none", "w")
PADS: Final = [1, 1, 1, 1]
THEN: Final = helper.make_graph(
    [node("Sin", "s", "then/a"), node("Cos", "then/a", "then/b")], "then", [], [value("then/b", MATRIX)]
)
ELSE: Final = helper.make_graph([node("Neg", "s", "else/a")], "else", [], [value("else/a", MATRIX)])
BODY: Final = helper.make_graph(
    [node("Identity", "go", "on"), node("Sin", "v", "u"), node("Cos", "u", "o")],
    "body",
    [value("i", [], INT64), value("go", [], BOOL), value("v", MATRIX)],
    [value("on", [], BOOL), value("o", MATRIX)],
)

KINDS: Final[dict[str, Kind]] = {
    "activations": Kind([*unary("Relu")[:2], node("Sigmoid", "b", "c"), node("Sin", "c", "y")], IMAGE, IMAGE),
    "arithmetic": Kind(
        [
            node("Sin", "x", "a"),
            node("Add", "a one", "b"),
            node("Clip", "b one two", "c"),
            node("Mul", "a c", "d"),
            node("Sub", "d a", "y"),
        ],
        IMAGE,
        IMAGE,
        {"one": ONE, "two": TWO},
    ),
    "views": Kind([*unary("Reshape")[:1], node("Reshape", "a shape", "b"), node("Sin", "b", "y")], MATRIX, (256, 1024),
                  {"shape": np.array([256, 1024])}),
    "a view as output": Kind([node("Sin", "x", "a"), node("Reshape", "a shape", "y")], MATRIX, (256, 1024),
                             {"shape": np.array([256, 1024])}),
    "convolutions": Kind([node("Conv", "x k", "a"), node("Relu", "a", "b"), node("Conv", "b l", "y")], IMAGE,
                         (1, 32, 92, 92), {"k": floats(64, 32, 3, 3), "l": floats(32, 64, 3, 3)}),
    "24 channels": Kind([node("Conv", "x k", "a"), node("Relu", "a", "y")], (1, 24, 96, 96), (1, 24, 94, 94),
                        {"k": floats(24, 24, 3, 3)}),
    "one dimension": Kind([node("Conv", "x k", "y")], (1, 64, 8192), (1, 64, 8190), {"k": floats(64, 64, 3)}),
    "three dimensions": Kind([node("Conv", "x k", "y")], (1, 8, 32, 32, 32), (1, 16, 30, 30, 30),
                             {"k": floats(16, 8, 3, 3, 3)}),
    "depthwise": Kind([node("Conv", "x k", "a", group=32), node("Clip", "a one two", "y")], IMAGE, (1, 32, 94, 94),
                      {"k": floats(32, 1, 3, 3), "one": ONE, "two": TWO}),
    "grouped": Kind([node("Conv", "x k", "y", group=4)], IMAGE, (1, 32, 94, 94), {"k": floats(32, 8, 3, 3)}),
    "computed weights": Kind(
        [node("ReduceMean", "x", "m", keepdims=1), node("Mul", "k m", "n"), node("Conv", "x n", "y")],
        (1, 256, 10, 10), (1, 256, 8, 8), {"k": floats(256, 256, 3, 3)},
    ),
    "residual": Kind(
        [
            node("Conv", "x k", "a", pads=PADS),
            node("Relu", "a", "b"),
            node("Conv", "b k", "c", pads=PADS),
            node("Add", "x c", "d"),
            node("Relu", "d", "y"),
        ],
        IMAGE, IMAGE, {"k": floats(32, 32, 3, 3)},
    ),
    "normalised": Kind([node("Conv", "x k", "a", pads=PADS), node("BatchNormalization", "a g b m v", "y")], IMAGE,
                       IMAGE, {"k": floats(32, 32, 3, 3), **FACTORS}),
    "group normalisation": Kind([node("GroupNormalization", "x g b", "y", num_groups=4)], IMAGE, IMAGE,
                                {"g": FACTORS["g"], "b": FACTORS["b"]}),
    "LRN": Kind([node("LRN", "x", "y", size=5)], IMAGE, IMAGE),
    "transposed convolution": Kind([node("ConvTranspose", "x k", "y", strides=[2, 2])], (1, 32, 48, 48),
                                   (1, 16, 96, 96), {"k": floats(32, 16, 2, 2)}),
    "pooling": Kind([node("Conv", "x k", "a"), node("MaxPool", "a", "y", kernel_shape=[2, 2], strides=[2, 2])], IMAGE,
                    (1, 32, 47, 47), {"k": floats(32, 32, 3, 3)}),
    "concatenation": Kind([node("Sin", "x", "a"), node("Cos", "x", "b"), node("Concat", "a b x", "c", axis=1),
                           node("Sin", "c", "y")], IMAGE, (1, 96, 96, 96)),
    "split": Kind([node("Split", "x", "a b", axis=1, num_outputs=2), node("Add", "a b", "y")], IMAGE, (1, 16, 96, 96)),
    "choice": Kind([node("Greater", "x one", "c"), node("Where", "c x one", "y")], MATRIX, MATRIX, {"one": ONE}),
    "softmax": Kind(unary("Softmax", axis=-1), MATRIX, MATRIX),
    "softmax over channels": Kind(unary("Softmax", axis=1), IMAGE, IMAGE),
    "mean over channels": Kind([node("ReduceMean", "x axes", "y", keepdims=0)], IMAGE, (1, 96, 96), {"axes": AXIS_1}),
    "transposition": Kind([node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Sin", "a", "y")], IMAGE,
                          (1, 96, 96, 32)),
    "product": Kind([node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Relu", "c", "y")], MATRIX, MATRIX,
                    {"w": floats(*MATRIX), "b": floats(512)}),
    "product of doubles": Kind([node("MatMul", "x w", "y")], MATRIX, MATRIX, {"w": floats(*MATRIX).astype(float)},
                               DOUBLE),
    "product with itself": Kind([node("Transpose", "x", "t"), node("MatMul", "x t", "y")], MATRIX, MATRIX),
    "Einstein sum": Kind([node("Einsum", "x w", "y", equation="bhd,de->hbe")], SEQUENCE, (16, 64, 256),
                         {"w": floats(256, 256)}),
    "LSTM": Kind([node("LSTM", "x w r", "y", hidden_size=128, direction="bidirectional")], SEQUENCE, (64, 2, 16, 128),
                 {"w": floats(2, 512, 256), "r": floats(2, 512, 128)}),
    "GRU": Kind([node("GRU", "x w r", "y", hidden_size=128)], SEQUENCE, (64, 1, 16, 128),
                {"w": floats(1, 384, 256), "r": floats(1, 384, 128)}),
    "RNN": Kind([node("RNN", "x w r", "y", hidden_size=128)], SEQUENCE, (64, 1, 16, 128),
                {"w": floats(1, 128, 256), "r": floats(1, 128, 128)}),
    "resize": Kind([node("Resize", "x - scales", "y", mode="linear")], (1, 32, 48, 48), IMAGE, SCALES),
    "cubic resize": Kind([node("Resize", "x - scales", "y", mode="cubic")], (1, 32, 48, 48), IMAGE, SCALES),
    "large cubic resize": Kind([node("Resize", "x - scales", "y", mode="cubic")], (1, 3, 256, 256),
                               (1, 3, 512, 512), SCALES),
    "sampled by a grid": Kind([node("GridSample", "x grid", "y")], IMAGE, (1, 32, 192, 96), {"grid": GRID}),
    "conversion": Kind([node("Cast", "x", "a", to=DOUBLE), node("Sin", "a", "b"), node("Cast", "b", "y", to=FLOAT)],
                       MATRIX, MATRIX),
    "lookup": Kind([node("Gather", "x i", "y", axis=1)], MATRIX, (512, 1024), {"i": np.arange(1024) % 512}),
    "padding": Kind([node("Pad", "x p", "y", mode="reflect")], IMAGE, (1, 32, 100, 100),
                    {"p": np.array([0, 0, 2, 2, 0, 0, 2, 2])}),
    "HardSwish": Kind([node("HardSwish", "x", "y")], MATRIX, MATRIX),
    "Mish": Kind([node("Mish", "x", "y")], MATRIX, MATRIX),
    "maximum of three": Kind(of_three("Max"), MATRIX, MATRIX),
    "sum of three": Kind(of_three("Sum"), MATRIX, MATRIX),
    "scatter": Kind([node("ScatterElements", "x i x", "y")], MATRIX, MATRIX,
                    {"i": np.tile(np.arange(512)[:, None], (1, 512))}),
    "attention": Kind([node("Attention", "x x x", "y", q_num_heads=8, kv_num_heads=8)], (1, 256, 512), (1, 256, 512),
                      opset=23),
    "causal attention of two samples": Kind(
        [node("Attention", "x x x", "y", q_num_heads=8, kv_num_heads=8, is_causal=1)], (2, 256, 512), (2, 256, 512),
        opset=23,
    ),
    "attention of onnxruntime": Kind(
        [node("MultiHeadAttention", "x x x", "y", num_heads=8, domain="com.microsoft")], (1, 384, 512), (1, 384, 512),
        domain="com.microsoft",
    ),
    "branch": Kind(
        [
            node("Sin", "x", "s"),
            node("ReduceMax", "x", "m", keepdims=0),
            node("Less", "m much", "c"),
            node("If", "c", "y", then_branch=THEN, else_branch=ELSE),
        ],
        MATRIX, MATRIX, {"much": np.float32(100)},
    ),
    "loop": Kind([node("Sin", "x", "s"), node("Loop", "three - s", "y", body=BODY)], MATRIX, MATRIX,
                 {"three": np.array(3)}),
    "quantised convolutions": Kind(
        [
            *rounded("x", "a"),
            WEIGHT,
            node("Conv", "a w", "b", pads=PADS),
            *rounded("b", "c"),
            node("Conv", "c w", "d", pads=PADS),
            node("Relu", "d", "e"),
            *rounded("e", "y"),
        ],
        IMAGE, IMAGE, quantised_weight(32, 32, 3, 3),
    ),
    "quantised image": Kind([*rounded("x", "a"), WEIGHT, node("Conv", "a w", "b", pads=PADS), *rounded("b", "y")],
                            (1, 3, 256, 256), (1, 16, 256, 256), quantised_weight(16, 3, 3, 3)),
    "quantised depthwise": Kind(
        [*rounded("x", "a"), WEIGHT, node("Conv", "a w", "b", group=32, pads=PADS), *rounded("b", "y")],
        IMAGE, IMAGE, quantised_weight(32, 1, 3, 3),
    ),
    **{
        f"quantised depthwise, {channels} channels, {size}": Kind(
            [
                *rounded("x", "a"),
                WEIGHT,
                node("Conv", "a w", "b", group=channels, pads=[size // 2] * 4),
                *rounded("b", "y"),
            ],
            (1, channels, 96, 96), (1, channels, 96, 96), quantised_weight(channels, 1, size, size),
        )
        for channels, size in ((24, 3), (40, 5), (96, 3))
    },
    "product by weights of 8 bits": Kind([WEIGHT, node("MatMul", "x w", "y")], (64, 1024), (64, 1024),
                                         quantised_weight(1024, 1024)),
    "product by weights of 8 bits, between sines": Kind(
        [node("Sin", "x", "a"), WEIGHT, node("MatMul", "a w", "b"), node("Sin", "b", "y")], MATRIX, MATRIX,
        quantised_weight(*MATRIX),
    ),
    "product by weights of 8 bits, with a bias": Kind(
        [WEIGHT, node("MatMul", "x w", "a"), node("Add", "a bias", "b"), node("Relu", "b", "y")], MATRIX, MATRIX,
        {**quantised_weight(*MATRIX), "bias": floats(512)},
    ),
    "Gemm by weights of 8 bits": Kind([WEIGHT, node("Gemm", "x w", "y")], MATRIX, MATRIX, quantised_weight(*MATRIX)),
    "quantised product": Kind([*rounded("x", "a"), WEIGHT, node("MatMul", "a w", "b"), *rounded("b", "y")], MATRIX,
                              MATRIX, quantised_weight(*MATRIX)),
    "quantised sum": Kind(
        [*rounded("x", "a"), node("Sin", "x", "s"), *rounded("s", "t"), node("Add", "a t", "b"), *rounded("b", "y")],
        IMAGE, IMAGE, {name: quantised_weight(1)[name] for name in ("step", "zero")},
    ),
    "weights quantised alone": Kind([WEIGHT, node("Conv", "x w", "y")], IMAGE, (1, 256, 94, 94),
                                    quantised_weight(256, 32, 3, 3)),
}  # fmt: skip
