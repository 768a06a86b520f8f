"""Architectures of the reference models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from planner.model.network import ModelBuilder

# Scale of the last normalisation in a residual branch. It keeps random activations bounded as depth grows.
BRANCH_GAMMA = 0.25

# Expansion, output channels, repeats, stride of the first repeat: Sandler et al., 2018, table 2.
MOBILENETV2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenetv2(path: Path, *, size: int, classes: int = 1000) -> Path:
    """Build MobileNetV2 of width 1.0 (Sandler et al., 2018, doi:10.1109/CVPR.2018.00474)."""
    net = ModelBuilder("mobilenetv2")

    def conv_norm(x: str, name: str, channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> str:
        return net.batch_norm(net.conv(x, name, channels, kernel, stride=stride, groups=groups), f"{name}.bn")

    def clip(x: str, name: str, channels: int) -> str:
        return net.follow(net.node("Clip", [x, zero, six], name), channels)

    zero, six = (net.constant(f"clip.{value}", np.array(value, np.float32)) for value in (0, 6))
    x = net.input("input", (1, 3, size, size))
    x = clip(conv_norm(x, "stem", 32, 3, stride=2), "stem.clip", 32)
    channels, index = 32, 0
    for expansion, out, repeats, first_stride in MOBILENETV2_STAGES:
        for repeat in range(repeats):
            name, stride, shortcut = f"block{index}", first_stride if repeat == 0 else 1, x
            wide = channels * expansion
            if expansion > 1:
                x = clip(conv_norm(x, f"{name}.expand", wide, 1), f"{name}.expand.clip", wide)
            x = clip(conv_norm(x, f"{name}.depth", wide, 3, stride=stride, groups=wide), f"{name}.depth.clip", wide)
            residual = stride == 1 and channels == out
            x = net.conv(x, f"{name}.project", out, 1)
            x = net.batch_norm(x, f"{name}.project.bn", gamma=BRANCH_GAMMA if residual else 1.0)
            x = net.add(x, shortcut, f"{name}.add") if residual else x
            channels, index = out, index + 1
    x = clip(conv_norm(x, "head", 1280, 1), "head.clip", 1280)
    net.output("output", net.classify(x, "classifier", classes), (1, classes))
    return net.save(path)


def resnet50(path: Path, *, classes: int = 1000) -> Path:
    """Build ResNet-50 with the stride in the 3×3 convolutions (He et al., 2016, doi:10.1109/CVPR.2016.90)."""
    net = ModelBuilder("resnet50")

    def conv_norm(x: str, name: str, channels: int, kernel: int, *, stride: int = 1, gamma: float = 1.0) -> str:
        return net.batch_norm(net.conv(x, name, channels, kernel, stride=stride), f"{name}.bn", gamma=gamma)

    x = net.input("input", (1, 3, 224, 224))
    x = net.relu(conv_norm(x, "stem", 64, 7, stride=2), "stem.relu")
    pooled = net.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net.follow(pooled, 64)
    for stage, (width, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for repeat in range(repeats):
            name, stride, shortcut = f"stage{stage}.{repeat}", 2 if stage > 0 and repeat == 0 else 1, x
            x = net.relu(conv_norm(x, f"{name}.conv1", width, 1), f"{name}.relu1")
            x = net.relu(conv_norm(x, f"{name}.conv2", width, 3, stride=stride), f"{name}.relu2")
            x = conv_norm(x, f"{name}.conv3", 4 * width, 1, gamma=BRANCH_GAMMA)
            if repeat == 0:
                shortcut = conv_norm(shortcut, f"{name}.shortcut", 4 * width, 1, stride=stride)
            x = net.relu(net.add(x, shortcut, f"{name}.add"), f"{name}.relu3")
    net.output("output", net.classify(x, "classifier", classes), (1, classes))
    return net.save(path)


def resnet56(path: Path, *, exits: bool, classes: int = 10) -> Path:
    """Build ResNet-56 for 32×32 images (He et al., 2016, section 4.2, shortcuts of option A).

    Parameters
    ----------
    path
        File to write.
    exits
        Whether a classifier follows each of the three stages (outputs ``exit1``, ``exit2``, ``output``).
    classes
        Number of classes.
    """
    net = ModelBuilder("resnet56")
    x = net.input("input", (1, 3, 32, 32))
    x = net.relu(net.batch_norm(net.conv(x, "stem", 16, 3), "stem.bn"), "stem.relu")
    pads = {width: net.constant(f"pads{width}", np.array([0, width // 4, 0, 0] * 2, np.int64)) for width in (32, 64)}
    steps = net.constant("steps", np.array([2, 2], np.int64))
    starts, axes = (
        net.constant(key, np.array(value, np.int64)) for key, value in (("starts", [0, 0]), ("axes", [2, 3]))
    )
    ends = net.constant("ends", np.array([2**31 - 1] * 2, np.int64))
    for stage, width in enumerate((16, 32, 64)):
        for repeat in range(9):
            name, stride, shortcut = f"stage{stage}.{repeat}", 2 if stage > 0 and repeat == 0 else 1, x
            x = net.relu(
                net.batch_norm(net.conv(x, f"{name}.conv1", width, 3, stride=stride), f"{name}.bn1"), f"{name}.relu1"
            )
            x = net.batch_norm(net.conv(x, f"{name}.conv2", width, 3), f"{name}.bn2", gamma=BRANCH_GAMMA)
            if stride == 2:  # keep every second pixel, pad new channels with zeros
                shortcut = net.node("Slice", [shortcut, starts, ends, axes, steps], f"{name}.slice")
                shortcut = net.node("Pad", [shortcut, pads[width]], f"{name}.pad")
            x = net.relu(net.add(x, shortcut, f"{name}.add"), f"{name}.relu2")
        if exits and stage < 2:
            net.output(f"exit{stage + 1}", net.classify(x, f"exit{stage + 1}", classes), (1, classes))
    net.output("output", net.classify(x, "classifier", classes), (1, classes))
    return net.save(path)


def gpt2(
    path: Path,
    *,
    layers: int,
    width: int,
    heads: int,
    vocabulary: int,
    tokens: int,
    context: int = 1024,
    batch: str | None = None,
) -> Path:
    """Build GPT-2 without a cache (Radford et al., 2019), from token ids to the logits of every position.

    The embedding matrix is used at the input and, transposed, for the logits. The causal mask is a constant. ``batch``
    names the first axis, which then is open; by default it has one sample.
    """
    samples: int | str = batch or 1
    kept, found = (0, -1) if batch else (1, 1)  # what a reshape makes of the first axis
    net = ModelBuilder("gpt2", opset=20)
    std = 0.02

    def linear(x: str, name: str, columns: int, rows: int, scale: float = std) -> str:
        product = net.node("MatMul", [x, net.weight(f"{name}.weight", (rows, columns), scale)], f"{name}.matmul")
        return net.node("Add", [product, net.weight(f"{name}.bias", (columns,), std)], f"{name}.add")

    def norm(x: str, name: str) -> str:
        gamma, beta = (net.constant(f"{name}.{key}", np.full(width, v, np.float32)) for key, v in (("g", 1), ("b", 0)))
        return net.node("LayerNormalization", [x, gamma, beta], name, axis=-1)

    ids = net.input("input_ids", (samples, tokens), TensorProto.INT64)
    words = net.weight("wte", (vocabulary, width), std)
    positions = net.node(
        "Gather", [net.weight("wpe", (context, width), std), net.constant("places", np.arange(tokens))], "wpe.x"
    )
    x = net.node("Add", [net.node("Gather", [words, ids], "wte.x"), positions], "embedding")
    causal = net.constant("causal", np.tril(np.ones((1, 1, tokens, tokens), np.bool_)))
    hidden = net.constant("hidden", np.array(-np.inf, np.float32))
    scale = net.constant("scale", np.array((width // heads) ** -0.5, np.float32))
    split = net.constant("split", np.array([kept, tokens, heads, width // heads]))
    merge = net.constant("merge", np.array([kept, tokens, width]))
    for layer in range(layers):
        name = f"h{layer}"
        qkv = linear(norm(x, f"{name}.ln1"), f"{name}.qkv", 3 * width, width)
        parts = net.split(qkv, f"{name}.split", 3)
        permutations = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        q, k, v = (
            net.node("Transpose", [net.node("Reshape", [part, split], f"{name}.{key}4")], f"{name}.{key}", perm=perm)
            for part, (key, perm) in zip(parts, permutations.items(), strict=True)
        )
        scores = net.node("Mul", [net.node("MatMul", [q, k], f"{name}.qk"), scale], f"{name}.scores")
        masked = net.node("Where", [causal, scores, hidden], f"{name}.masked")
        mixed = net.node("MatMul", [net.node("Softmax", [masked], f"{name}.softmax", axis=-1), v], f"{name}.mixed")
        mixed = net.node("Transpose", [mixed], f"{name}.turned", perm=[0, 2, 1, 3])
        merged = net.node("Reshape", [mixed, merge], f"{name}.merged")
        x = net.node("Add", [x, linear(merged, f"{name}.out", width, width, std / (2 * layers) ** 0.5)], f"{name}.mid")
        wide = linear(norm(x, f"{name}.ln2"), f"{name}.up", 4 * width, width)
        wide = net.node("Gelu", [wide], f"{name}.gelu", approximate="tanh")
        x = net.node(
            "Add", [x, linear(wide, f"{name}.down", width, 4 * width, std / (2 * layers) ** 0.5)], f"{name}.end"
        )
    flat = net.node(
        "Reshape", [norm(x, "ln_f"), net.constant("rows", np.array([-1 if batch else tokens, width]))], "flat"
    )
    logits = net.node("Gemm", [flat, words], "logits.rows", transB=1)
    logits = net.node(
        "Reshape", [logits, net.constant("shape", np.array([found, tokens, vocabulary]))], "logits.shaped"
    )
    net.output("logits", logits, (samples, tokens, vocabulary))
    return net.save(path)
