"""Small models that a device probe runs: each repeats one kind of operator, in shapes that occur in real models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto

from planner.model.network import ModelBuilder

Build = Callable[[Path], Path]
Layer = Callable[[ModelBuilder, str, str], str]
"""Adds an operator to a tensor under a name, and returns the tensor that it makes."""

OPSET: Final = 20
CLASSES: Final = 128
"""Rows of the tables from which ``Gather`` takes its values."""

# Channels, size of the image, kernel, stride. Layers come in twos, so that changes of the memory layout count less.
CONVOLUTIONS: Final = (
    (16, 16, 32, 3, 1),
    (32, 32, 16, 3, 1),
    (64, 64, 8, 3, 1),
    (64, 64, 56, 3, 1),
    (64, 192, 28, 3, 1),
    (96, 24, 80, 3, 1),
    (128, 128, 28, 3, 1),
    (128, 32, 28, 3, 1),
    (256, 256, 14, 3, 1),
    (160, 320, 7, 3, 1),
    (512, 512, 7, 3, 1),
    (128, 256, 28, 3, 2),
    (32, 64, 28, 5, 1),
    (24, 24, 40, 9, 1),
)
POINTWISE: Final = (
    (16, 96, 112, 1),
    (24, 144, 56, 1),
    (64, 16, 24, 1),
    (64, 256, 56, 1),
    (144, 32, 28, 1),
    (256, 512, 28, 2),
    (480, 96, 14, 1),
    (1024, 256, 14, 1),
    (96, 576, 14, 1),
    (960, 160, 7, 1),
    (512, 2048, 7, 1),
    (64, 24, 3, 1),
    (480, 120, 1, 1),
)
FIRST: Final = ((32, 3, 2), (64, 7, 2), (64, 3, 1), (96, 11, 4))
DEPTHWISE: Final = ((32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (384, 14, 3, 1), (960, 7, 3, 1), (240, 40, 5, 1))
GROUPED: Final = ((128, 28, 1, 4), (256, 14, 1, 4), (256, 27, 5, 2), (128, 28, 3, 32), (384, 13, 3, 2))
# Rows, columns of the input, columns of the output.
PRODUCTS: Final = (
    (16, 64, 256),
    (32, 128, 512),
    (64, 64, 64),
    (64, 768, 768),
    (64, 768, 3072),
    (64, 768, 6144),
    (160, 120, 480),
    (197, 384, 1536),
    (512, 512, 512),
)
VECTORS: Final = ((64, 256), (256, 256), (1280, 1000), (2048, 1000), (4096, 2048))
# Heads, rows, inner size, columns.
ACTIVATION_PRODUCTS: Final = ((4, 16, 16, 16), (4, 32, 32, 32), (12, 64, 64, 64), (8, 160, 15, 160), (12, 256, 64, 256))
TRANSPOSED: Final = ((24, 80), (64, 28))
QUANTISED: Final = ((16, 64, 256), (64, 512, 512))
RECURRENT: Final = ((16, 64), (64, 128))
SIZES: Final = ((16, 64), (64, 768), (256, 4096), (96, 112, 112))
MAPS: Final = ((16, 16), (64, 56), (256, 28), (1024, 7))


def probe_models() -> Iterator[tuple[str, Build]]:
    """Yield the name of each model, and the function that writes it."""
    yield from _convolution_models()
    yield from _grouped_models()
    yield from _product_models()
    yield from _layer_models()


def _convolution_models() -> Iterator[tuple[str, Build]]:
    for inner, outer, size, kernel, stride in CONVOLUTIONS:
        name = f"convolution {inner}-{outer} {size} {kernel}x{kernel}/{stride}"
        yield name, partial(_convolutions, (inner, size), ((outer, kernel, stride, 1), (inner, kernel, 1, 1)))
    for inner, outer, size, stride in POINTWISE:
        name = f"pointwise convolution {inner}-{outer} {size}/{stride}"
        yield name, partial(_convolutions, (inner, size), ((outer, 1, stride, 1), (inner, 1, 1, 1)))
    for outer, kernel, stride in FIRST:
        name = f"first convolution {outer} {kernel}x{kernel}/{stride}"
        yield name, partial(_convolutions, (3, 224), ((outer, kernel, stride, 1),))


def _grouped_models() -> Iterator[tuple[str, Build]]:
    for channels, size, kernel, stride in DEPTHWISE:
        layers = ((channels, kernel, stride, channels), (channels, kernel, 1, channels))
        name = f"depthwise convolution {channels} {size} {kernel}x{kernel}/{stride}"
        yield name, partial(_convolutions, (channels, size), layers)
    for channels, size, kernel, groups in GROUPED:
        name = f"grouped convolution {channels} {size} {kernel}x{kernel} in {groups}"
        yield name, partial(_convolutions, (channels, size), ((channels, kernel, 1, groups),) * 2)
    for channels, size in TRANSPOSED:
        yield f"transposed convolution {channels} {size}", partial(_transposed, channels, size)


def _product_models() -> Iterator[tuple[str, Build]]:
    for rows, inner, outer in PRODUCTS:
        yield f"matrix product {rows}x{inner}x{outer}", partial(_products, rows, (inner, outer, inner))
    for inner, outer in VECTORS:
        yield f"vector product {inner}x{outer}", partial(_products, 1, (inner, outer, inner))
    for heads, rows, inner, columns in ACTIVATION_PRODUCTS:
        name = f"activation product {heads} {rows}x{inner}x{columns}"
        yield name, partial(_activation_products, (heads, rows, inner, columns))
    for rows, inner, outer in QUANTISED:
        yield f"quantised product {rows}x{inner}x{outer}", partial(_quantised, rows, inner, outer)
    for steps, size in RECURRENT:
        yield f"recurrent {steps} {size}", partial(_recurrent, steps, size)


def _layer_models() -> Iterator[tuple[str, Build]]:
    for shape, (name, layer) in itertools.product(SIZES, _ELEMENT_LAYERS.items()):
        yield f"{name} {'x'.join(map(str, shape))}", partial(_repeated, shape, layer)
    for (channels, size), (name, layer) in itertools.product(MAPS, _MAP_LAYERS.items()):
        yield f"{name} {channels} {size}", partial(_repeated, (1, channels, size, size), layer)
    for rows in (64, 1024):
        yield f"gather {rows}", partial(_gather, rows)
    yield "launches", partial(_repeated, (1, 16), _chain("Neg", 30))


def _convolutions(start: tuple[int, int], layers: tuple[tuple[int, int, int, int], ...], path: Path) -> Path:
    """Write convolutions; each layer has channels, kernel, stride and groups, and the start channels and size."""
    channels, size = start
    build = ModelBuilder("convolutions", opset=OPSET)
    x = build.input("x", (1, channels, size, size))
    for index, (outer, kernel, stride, groups) in enumerate(layers):
        x = build.relu(build.conv(x, f"conv{index}", outer, kernel, stride=stride, groups=groups), f"relu{index}")
        channels, size = outer, (size + kernel // 2 * 2 - kernel) // stride + 1
    build.output("y", x, (1, channels, size, size))
    return build.save(path)


def _products(rows: int, sizes: tuple[int, ...], path: Path) -> Path:
    build = ModelBuilder("products", opset=OPSET)
    x = build.input("x", (rows, sizes[0]))
    for index, (inner, outer) in enumerate(itertools.pairwise(sizes)):
        weight = build.weight(f"w{index}", (inner, outer), inner**-0.5)
        x = build.node("Gemm", [x, weight, build.weight(f"b{index}", (outer,), 0.01)], f"product{index}")
    build.output("y", x, (rows, sizes[-1]))
    return build.save(path)


def _activation_products(sizes: tuple[int, int, int, int], path: Path) -> Path:
    heads, rows, inner, columns = sizes
    build = ModelBuilder("activation products", opset=OPSET)
    x = build.input("x", (1, heads, rows, inner))
    other = build.input("other", (1, heads, inner, columns))
    for index in range(3):
        x = build.node("MatMul", [x, other], f"out{index}")
        if index < 2:
            back = build.node("Transpose", [other], f"back{index}", perm=[0, 1, 3, 2])
            x = build.node("MatMul", [x, back], f"in{index}")
    build.output("y", x, (1, heads, rows, columns))
    return build.save(path)


def _repeated(shape: tuple[int, ...], layer: Layer, path: Path) -> Path:
    """Write a layer that is applied once and keeps the rank, with outputs of any size."""
    build = ModelBuilder("layer", opset=OPSET)
    x = layer(build, build.input("x", shape), "layer")
    build.output("y", x, tuple(f"size{axis}" for axis in range(len(shape))))
    return build.save(path)


def _chain(operator: str, count: int, *, operand: bool = False, **attributes: object) -> Layer:
    def layer(build: ModelBuilder, x: str, name: str) -> str:
        first = x
        for index in range(count):
            x = build.node(operator, [x, first] if operand else [x], f"{name}{index}", **attributes)
        return x

    return layer


def _hard_swish(build: ModelBuilder, x: str, name: str) -> str:
    """Add a hard swish as exporters write it without the operator."""
    three, six = (build.constant(f"{name}.{value}", np.asarray(np.float32(value))) for value in (3, 6))
    low = build.constant(f"{name}.0", np.asarray(np.float32(0)))
    clipped = build.node("Clip", [build.node("Add", [x, three], f"{name}.add"), low, six], f"{name}.clip")
    return build.node("Div", [build.node("Mul", [x, clipped], f"{name}.mul"), six], f"{name}.div")


def _normalise(build: ModelBuilder, x: str, name: str, size: int) -> str:
    scale = build.constant(f"{name}.scale", np.ones(size, np.float32))
    for index in range(4):
        x = build.node("LayerNormalization", [x, scale, scale], f"{name}{index}")
    return x


def _layer_norm(build: ModelBuilder, x: str, name: str) -> str:
    shape = build.shape(x)
    return _normalise(build, x, name, shape[-1])


def _concat(build: ModelBuilder, x: str, name: str) -> str:
    return build.node("Concat", [x, x, x], name, axis=0)


def _scaled(build: ModelBuilder, x: str, name: str) -> str:
    """Multiply and add vectors of the last axis, as a normalisation that a runtime does not fuse."""
    shape = build.shape(x)
    for operator in ("Mul", "Add", "Mul"):
        x = build.node(operator, [x, build.weight(f"{name}.{operator}{x}", shape[-1:], 1.0)], f"{name}.{operator}.{x}")
    return x


def _swap(build: ModelBuilder, x: str, name: str) -> str:
    rank = len(build.shape(x))
    return build.node("Transpose", [x], name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _upsample(build: ModelBuilder, x: str, name: str) -> str:
    scales = build.constant(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
    return build.node(
        "Resize",
        [x, "", scales],
        name,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _gather(rows: int, path: Path) -> Path:
    build = ModelBuilder("gather", opset=OPSET)
    index = build.input("index", (1, rows), TensorProto.INT64)
    table = build.weight("table", (CLASSES, 256), 1.0)
    build.output("y", build.node("Gather", [table, index], "rows"), (1, rows, 256))
    return build.save(path)


def _recurrent(steps: int, size: int, path: Path) -> Path:
    build = ModelBuilder("recurrent", opset=OPSET)
    x = build.input("x", (steps, 1, size))
    weights = [build.weight(f"w{index}", (1, 4 * size, size), size**-0.5) for index in range(2)]
    y = build.node("LSTM", [x, *weights], "lstm", hidden_size=size)
    build.output("y", y, (steps, 1, 1, size))
    return build.save(path)


def _quantised(rows: int, inner: int, outer: int, path: Path) -> Path:
    build = ModelBuilder("quantised", opset=OPSET)
    x = build.input("x", (rows, inner))
    integers = np.random.default_rng(0).integers(-127, 127, (inner, outer)).astype(np.int8)
    scale, zero = build.constant("scale", np.asarray(np.float32(0.01))), build.constant("zero", np.asarray(np.int8(0)))
    weight = build.node("DequantizeLinear", [build.constant("w", integers), scale, zero], "weight")
    step, middle = (
        build.constant("step", np.asarray(np.float32(0.03))),
        build.constant("middle", np.asarray(np.uint8(128))),
    )

    def rounded(tensor: str, name: str) -> str:
        codes = build.node("QuantizeLinear", [tensor, step, middle], f"{name}.codes")
        return build.node("DequantizeLinear", [codes, step, middle], name)

    product = build.node("MatMul", [rounded(x, "rounded"), weight], "product")
    build.output("y", rounded(product, "result"), (rows, outer))
    return build.save(path)


def _transposed(channels: int, size: int, path: Path) -> Path:
    build = ModelBuilder("transposed", opset=OPSET)
    x = build.input("x", (1, channels, size, size))
    weight = build.weight("w", (channels, channels, 2, 2), channels**-0.5)
    y = build.node("ConvTranspose", [x, weight], "transposed", kernel_shape=[2, 2], strides=[2, 2])
    build.output("y", y, (1, channels, 2 * size, 2 * size))
    return build.save(path)


_ELEMENT_LAYERS: Final[dict[str, Layer]] = {
    "add": _chain("Add", 4, operand=True),
    "relu": _chain("Relu", 2),
    "scale": _scaled,
    "erf": _chain("Erf", 2),
    "gelu": _chain("Gelu", 2),
    "sigmoid": _chain("Sigmoid", 2),
    "softmax": _chain("Softmax", 2, axis=-1),
    "layer normalisation": _layer_norm,
    "concat": _concat,
    "transpose": _swap,
}
_MAP_LAYERS: Final[dict[str, Layer]] = {
    "max pooling": _chain("MaxPool", 2, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]),
    "average pooling": _chain("AveragePool", 1, kernel_shape=[2, 2], strides=[2, 2]),
    "local normalisation": _chain("LRN", 1, size=5),
    "global pooling": _chain("GlobalAveragePool", 1),
    "mean": _chain("ReduceMean", 1),
    "hard swish": _hard_swish,
    "upsampling": _upsample,
}
