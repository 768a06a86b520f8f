"""Decoders with state: they take a prompt or one token, and the keys and values of all tokens before.

Inputs are ``input_ids``, ``position_ids``, ``attention_mask`` and, for each layer, ``past_key_values.N.key`` and
``.value``; outputs are ``logits`` and ``present.N.key`` and ``.value``, as exporters name them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from onnx import TensorProto

from planner.errors import ModelError
from planner.files import StrPath
from planner.model.network import ModelBuilder

STEP: Final[str] = "sequence_length"
PAST: Final[str] = "past_sequence_length"
TOTAL: Final[str] = "total_sequence_length"
BRANCH: Final = 0.02
"""Scale of weights, as in GPT-2."""

QUANTISED_BLOCK: Final = 32
"""Rows of a weight that share a scale in int4."""


@dataclass(frozen=True)
class Decoder:
    """A decoder that can be built.

    Parameters
    ----------
    summary
        Description in one line.
    parameters
        Number of weights.
    build
        Function that writes the model to a path.
    """

    summary: str
    parameters: int
    build: Callable[[Path], Path]


class _Builder(ModelBuilder):
    """A builder with the inputs and outputs that decoders have in common."""

    def __init__(self, name: str, *, opset: int, key_heads: int, head_width: int) -> None:
        super().__init__(name, opset=opset)
        self._cache_shape = (1, key_heads, head_width)
        self.ids = self.input("input_ids", (1, STEP), TensorProto.INT64)
        self.places = self.input("position_ids", (1, STEP), TensorProto.INT64)
        self.mask = self.input("attention_mask", (1, TOTAL), TensorProto.INT64)
        self.one = self.constant("one", np.array(1, np.int64))

    def visible(self) -> str:
        """Return a mask, true where a token may look at another: [1, 1, tokens, all tokens]."""
        counted = self.node("CumSum", [self.mask, self.one], "seen")
        keys = self.node("Unsqueeze", [self.node("Sub", [counted, self.one], "key_places"), self.axes(1, 2)], "keys")
        queries = self.node("Unsqueeze", [self.places, self.axes(1, 3)], "queries")
        return self.node("LessOrEqual", [keys, queries], "visible")

    def axes(self, *axes: int) -> str:
        """Return a constant with the numbers of axes."""
        return self.constant(f"axes{''.join(map(str, axes))}", np.array(axes, np.int64))

    def cache(self, layer: int, kind: str) -> str:
        """Add the keys or values before a run as an input."""
        _, heads, width = self._cache_shape
        return self.input(f"past_key_values.{layer}.{kind}", (1, heads, PAST, width))

    def cached(self, layer: int, kind: str, tensor: str) -> None:
        """Add the keys or values after a run as an output."""
        _, heads, width = self._cache_shape
        self.output(f"present.{layer}.{kind}", tensor, (1, heads, TOTAL, width))

    def grown(self, layer: int, kind: str, tensor: str) -> str:
        """Add a cache to which a run appends ``tensor``; return the whole."""
        grown = self.node("Concat", [self.cache(layer, kind), tensor], f"h{layer}.{kind}.all", axis=2)
        self.cached(layer, kind, grown)
        return grown


def gpt2_with_cache(path: Path, *, layers: int, width: int, heads: int, vocabulary: int, context: int = 1024) -> Path:
    """Build GPT-2 with the keys and values of earlier tokens as state; its weights are those of ``gpt2``.

    (Radford et al., 2019)
    """
    head_width = width // heads
    net = _Builder("gpt2", opset=20, key_heads=heads, head_width=head_width)

    def linear(x: str, name: str, columns: int, rows: int, scale: float = BRANCH) -> str:
        product = net.node("MatMul", [x, net.weight(f"{name}.weight", (rows, columns), scale)], f"{name}.matmul")
        return net.node("Add", [product, net.weight(f"{name}.bias", (columns,), BRANCH)], f"{name}.add")

    def norm(x: str, name: str) -> str:
        gamma, beta = (net.constant(f"{name}.{key}", np.full(width, v, np.float32)) for key, v in (("g", 1), ("b", 0)))
        return net.node("LayerNormalization", [x, gamma, beta], name, axis=-1)

    words = net.weight("wte", (vocabulary, width), BRANCH)
    positions = net.node("Gather", [net.weight("wpe", (context, width), BRANCH), net.places], "wpe.x")
    x = net.node("Add", [net.node("Gather", [words, net.ids], "wte.x"), positions], "embedding")
    visible = net.visible()
    hidden = net.constant("hidden", np.array(-np.inf, np.float32))
    scale = net.constant("scale", np.array(head_width**-0.5, np.float32))
    split = net.constant("split", np.array([1, -1, heads, head_width]))
    merge = net.constant("merge", np.array([1, -1, width]))
    for layer in range(layers):
        name = f"h{layer}"
        parts = net.split(linear(norm(x, f"{name}.ln1"), f"{name}.qkv", 3 * width, width), f"{name}.split", 3)
        q, k, v = (
            net.node(
                "Transpose", [net.node("Reshape", [part, split], f"{name}.{key}4")], f"{name}.{key}", perm=[0, 2, 1, 3]
            )
            for part, key in zip(parts, "qkv", strict=True)
        )
        keys, values = net.grown(layer, "key", k), net.grown(layer, "value", v)
        turned = net.node("Transpose", [keys], f"{name}.kt", perm=[0, 1, 3, 2])
        scores = net.node("Mul", [net.node("MatMul", [q, turned], f"{name}.qk"), scale], f"{name}.scores")
        masked = net.node("Where", [visible, scores, hidden], f"{name}.masked")
        weights = net.node("Softmax", [masked], f"{name}.softmax", axis=-1)
        mixed = net.node("MatMul", [weights, values], f"{name}.mixed")
        mixed = net.node("Transpose", [mixed], f"{name}.turned", perm=[0, 2, 1, 3])
        merged = net.node("Reshape", [mixed, merge], f"{name}.merged")
        deep = BRANCH / (2 * layers) ** 0.5
        x = net.node("Add", [x, linear(merged, f"{name}.out", width, width, deep)], f"{name}.mid")
        wide = linear(norm(x, f"{name}.ln2"), f"{name}.up", 4 * width, width)
        wide = net.node("Gelu", [wide], f"{name}.gelu", approximate="tanh")
        x = net.node("Add", [x, linear(wide, f"{name}.down", width, 4 * width, deep)], f"{name}.end")
    logits = net.node("MatMul", [norm(x, "ln_f"), net.node("Transpose", [words], "wte.t", perm=[1, 0])], "logits.x")
    net.output("logits", logits, (1, STEP, vocabulary))
    return net.save(path)


def llama(
    path: Path,
    *,
    layers: int,
    width: int,
    heads: int,
    key_heads: int,
    hidden: int,
    vocabulary: int,
    context: int = 2048,
    int4: bool = False,
    cache: bool = True,
) -> Path:
    """Build a decoder with RMSNorm, rotary positions, grouped queries and gated layers (Touvron et al., 2023).

    It uses ONNX's own operators of opset 23 for these.

    Parameters
    ----------
    int4
        Whether the weights of its products are 4-bit numbers in blocks of 32 (``com.microsoft::MatMulNBits``).
    cache
        Whether it has state. Without, it takes all tokens in each run; its weights are the same.
    """
    head_width = width // heads
    net = _Builder("llama", opset=23, key_heads=key_heads, head_width=head_width)

    def linear(x: str, name: str, columns: int, rows: int, scale: float = BRANCH) -> str:
        weight = net.drawn((rows, columns), scale)
        if int4:
            return net.product_4bit(x, name, weight, QUANTISED_BLOCK)
        return net.node("MatMul", [x, net.constant(f"{name}.weight", weight)], name)

    def norm(x: str, name: str) -> str:
        return net.node(
            "RMSNormalization", [x, net.constant(f"{name}.g", np.ones(width, np.float32))], name, epsilon=1e-5
        )

    def rotated(x: str, name: str, count: int) -> str:
        return net.node("RotaryEmbedding", [x, cosines, sines, net.places], name, num_heads=count)

    angles = np.outer(np.arange(context), 10000.0 ** (-np.arange(0, head_width, 2) / head_width))
    cosines = net.constant("cosines", np.cos(angles).astype(np.float32))
    sines = net.constant("sines", np.sin(angles).astype(np.float32))
    x = net.node("Gather", [net.weight("embedding.weight", (vocabulary, width), 1.0), net.ids], "embedding")
    visible = net.visible()
    deep = BRANCH / (2 * layers) ** 0.5
    for layer in range(layers):
        name, before = f"layer{layer}", norm(x, f"layer{layer}.norm1")
        q = rotated(linear(before, f"{name}.q", width, width), f"{name}.q.turned", heads)
        k = rotated(linear(before, f"{name}.k", key_heads * head_width, width), f"{name}.k.turned", key_heads)
        v = linear(before, f"{name}.v", key_heads * head_width, width)
        past = [net.cache(layer, "key"), net.cache(layer, "value")] if cache else []
        mixed, *present = net.nodes(
            "Attention",
            [q, k, v, visible, *past],
            [f"{name}.attention", *([f"{name}.key.all", f"{name}.value.all"] if cache else [])],
            q_num_heads=heads,
            kv_num_heads=key_heads,
        )
        for kind, tensor in zip(("key", "value"), present, strict=False):
            net.cached(layer, kind, tensor)
        x = net.node("Add", [x, linear(mixed, f"{name}.out", width, width, deep)], f"{name}.mid")
        before = norm(x, f"{name}.norm2")
        gate = linear(before, f"{name}.gate", hidden, width)
        gate = net.node("Mul", [gate, net.node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.swish")
        gated = net.node("Mul", [gate, linear(before, f"{name}.up", hidden, width)], f"{name}.gated")
        x = net.node("Add", [x, linear(gated, f"{name}.down", width, hidden, deep)], f"{name}.end")
    net.output("logits", linear(norm(x, "norm"), "logits.x", vocabulary, width), (1, STEP, vocabulary))
    return net.save(path)


DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        "gpt2-cache": Decoder(
            "gpt2 with its keys and values as state, any number of tokens",
            124_439_808,
            partial(gpt2_with_cache, layers=12, width=768, heads=12, vocabulary=50257),
        ),
        "gpt2-small-cache": Decoder(
            "gpt2-small with its keys and values as state, for quick trials",
            854_144,
            partial(gpt2_with_cache, layers=3, width=128, heads=4, vocabulary=1000),
        ),
        "llama-small": Decoder(
            "Llama of 4 layers, width 256, 8 heads on 4 key-value heads (Touvron et al., 2023), with state",
            3_463_424,
            partial(llama, layers=4, width=256, heads=8, key_heads=4, hidden=704, vocabulary=1000),
        ),
        "llama-small-int4": Decoder(
            "llama-small with the weights of its products in 4 bits",
            3_463_424,
            partial(llama, layers=4, width=256, heads=8, key_heads=4, hidden=704, vocabulary=1000, int4=True),
        ),
    }
)
"""Decoders with random weights, for studies of cost, memory and speed."""


def build_decoder(name: str, path: StrPath) -> Path:
    """Write the decoder ``name`` to ``path``; the bytes are reproducible.

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if name not in DECODERS:
        raise ModelError("unknown decoder", value=name, expected=f"one of {', '.join(DECODERS)}")
    return DECODERS[name].build(Path(path))
