"""Models with weights that are quantised in blocks: as onnxruntime-genai exports them, and with DequantizeLinear."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from planner.model.load import ChainModel, load_chain
from planner.runtime.tolerance import TOLERANCE
from tests.model.chained import assert_cuts_match_tensors, check_split, floats, needs_onnxruntime, value

LLAMA = Path(__file__).parent / "exports" / "llama-int4" / "model.onnx"
LAYERS, HIDDEN, MLP, HEADS, GROUPS, WIDTH, VOCABULARY = 4, 64, 128, 4, 2, 16, 256
LINEAR = HIDDEN * (HEADS + 2 * GROUPS) * WIDTH + HIDDEN * HIDDEN + 3 * HIDDEN * MLP
PAST = 8


@cache
def llama(tokens: int) -> ChainModel:
    shape = {"input_ids": [1, tokens], "attention_mask": [1, PAST + tokens]}
    caches = [f"past_key_values.{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    return load_chain(LLAMA, shape=shape | {name: [1, GROUPS, PAST, WIDTH] for name in caches}, state={})


def llama_inputs(tokens: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    caches = {spec.name: spec.shape for spec in llama(tokens).chain.cuts[0].tensors if spec.dtype == "float32"}
    return {
        "input_ids": rng.integers(0, VOCABULARY, (1, tokens)),
        "attention_mask": np.ones((1, PAST + tokens), np.int64),
        **{name: rng.standard_normal(shape, np.float32) for name, shape in caches.items()},
    }


@pytest.mark.parametrize("tokens", [1, 5])
def test_an_exported_language_model_is_several_blocks(tokens: int) -> None:
    model = llama(tokens)
    assert model.uncounted == {}
    assert len(model.chain) == 8
    norms = 2 * LAYERS + 1
    attention = HEADS * (PAST + tokens) * (2 * WIDTH + 5 + 2 * WIDTH) + 3 * (HEADS + GROUPS) * WIDTH
    per_token = (
        2 * (LAYERS * LINEAR + HIDDEN * VOCABULARY)
        + LAYERS * (attention + 3 * MLP)  # sigmoid and two products
        + (5 * norms + norms - 1) * HIDDEN  # all but the first also add
    )
    mask = PAST + tokens + 1  # sum and difference
    assert sum(block.flop for block in model.chain.blocks) == tokens * per_token + mask
    weights = LAYERS * LINEAR + 2 * VOCABULARY * HIDDEN + norms * HIDDEN
    assert sum(block.parameters for block in model.chain.blocks) == weights
    assert model.chain.cuts[-1].tensors[1].shape == (1, GROUPS, PAST + tokens, WIDTH)


@needs_onnxruntime(1, 23)
@pytest.mark.parametrize("tokens", [1, 5])
def test_the_blocks_of_an_exported_language_model_chained(tokens: int) -> None:
    model, inputs = llama(tokens), llama_inputs(tokens)
    assert_cuts_match_tensors(model, inputs)
    assert check_split(model, range(1, len(model.chain)), inputs=inputs).bit_equal


def quantised(path: Path, name: str, *, size: int = 256, layers: int = 6, block: int = 32) -> Path:
    """Write a chain of layers with weights that are dequantised in blocks, each followed by a Relu."""
    low, high = {"INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-127, 127)}[name]
    nodes, weights = [], []
    rng = np.random.default_rng(0)
    for layer in range(layers):
        numbers = rng.integers(low, high, (size, size), endpoint=True)
        scales = np.abs(floats(size // block, size, seed=layer)) / high / np.sqrt(size)
        data_type = TensorProto.DataType.Value(name)
        weights.append(helper.make_tensor(f"q{layer}", data_type, numbers.shape, numbers.ravel().tolist()))
        weights.append(numpy_helper.from_array(scales.astype(np.float32), f"scale{layer}"))
        names = [f"q{layer}", f"scale{layer}"]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"w{layer}"], axis=0, block_size=block))
        nodes.append(helper.make_node("MatMul", [f"r{layer - 1}" if layer else "x", f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
    outputs = [value(f"r{layers - 1}", [1, size])]
    graph = helper.make_graph(nodes, "quantised", [value("x", [1, size])], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("name", "bits"), [("INT4", 4), ("UINT4", 4), ("INT8", 8)])
def test_blocks_of_quantised_layers_compute_what_the_whole_model_does(tmp_path: Path, name: str, bits: int) -> None:
    model = load_chain(quantised(tmp_path / "m.onnx", name))
    cuts = range(1, len(model.chain))
    assert check_split(model, cuts).bit_equal
    # Rounding of activations to int8 in some of the layers would give errors of a per cent.
    assert check_split(model, cuts, optimise=True).max_rel_error <= TOLERANCE
    assert sum(block.parameters for block in model.chain.blocks) == 6 * 256 * 256
    assert sum(block.weight_bytes for block in model.chain.blocks) == 6 * (256 * 256 * bits // 8 + 8 * 256 * 4)
    # The weights of one layer in float32, its input and its output: onnxruntime does not fuse all layers.
    needed_bytes = 4 * (256 * 256 + 2 * 256) + 2**20 // 32  # the arena's table
    assert 0 <= max(block.activation_bytes for block in model.chain.blocks) - needed_bytes <= 4096
