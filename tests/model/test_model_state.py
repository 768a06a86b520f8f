"""State stays with the block that uses it, and block models take any number of tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.errors import ModelError
from planner.model.chain import SEQUENCE
from planner.model.decoders import llama
from planner.model.load import ChainModel, load_chain
from planner.runtime.check import PROMPT, STEPS, StageModel, sequence_inputs
from planner.runtime.check import check_split as check_whole_split
from planner.runtime.session import BlockSession
from tests.model.chained import FOLDER, check_split, floats, inputs_of, needs_onnxruntime, reference, value
from tests.model.decoder_models import EXPECTED, STEP, continued, decoder, export, loaded

OWN = ("gpt2-small-cache", "llama-small", "llama-small-int4")


def own(name: str, blocks: int | None = 8, **options: Any) -> ChainModel:
    return load_chain(decoder(name), axes=STEP, max_blocks=blocks, **options)


@needs_onnxruntime(1, 23)
@pytest.mark.parametrize("blocks", [1, 2, 5, None])
@pytest.mark.parametrize("name", EXPECTED)
def test_exports_give_the_tokens_of_their_own_library(name: str, blocks: int | None) -> None:
    model = export(name, blocks)
    for number, case in enumerate(EXPECTED[name]):
        assert continued(model, case["prompt"], len(case["tokens"]), number)[0] == case["tokens"]


@needs_onnxruntime(1, 23)
@pytest.mark.parametrize("name", OWN)
def test_a_decoder_with_a_cache_equals_its_twin_without(name: str) -> None:
    prompt = [5, 17, 99, 3]
    tokens, logits = continued(own(name, 5), prompt, 10)
    known = [*prompt, *tokens]
    if name.startswith("gpt2"):
        ids = np.zeros((1, 32), np.int64)
        ids[0, : len(known)] = known
        right = BlockSession(reference("gpt2-small")).run({"input_ids": ids})["logits"]
    else:
        sizes = {"layers": 4, "width": 256, "heads": 8, "key_heads": 4, "hidden": 704, "vocabulary": 1000}
        twin = llama(Path(FOLDER.name) / f"{name}-twin.onnx", int4=name.endswith("int4"), cache=False, **sizes)
        right = BlockSession(twin).run(
            {
                "input_ids": np.array([known]),
                "position_ids": np.arange(len(known))[None],
                "attention_mask": np.ones((1, len(known)), np.int64),
            }
        )["logits"]
    for step, found in enumerate(logits):
        np.testing.assert_allclose(found, right[0, len(prompt) - 1 + step], atol=2e-6)


@pytest.mark.parametrize("name", OWN)
def test_state_crosses_no_cut(name: str) -> None:
    model = own(name)
    chain = model.chain
    crossing = {spec.name for cut in chain.cuts for spec in cut.tensors}
    assert not any("past" in tensor or "present" in tensor for tensor in crossing)
    with_state = [block for block, _ in model.state.items()]
    for index, cut in enumerate(chain.cuts):
        assert (SEQUENCE in cut.tensors) == (index <= max(with_state))
    layers, heads, width = (3, 4, 32) if name.startswith("gpt2") else (4, 4, 32)
    per_layer = 2 * heads * (STEP["past_sequence_length"] + 1) * width * 4
    assert sum(block.state_bytes for block in chain.blocks) == layers * per_layer
    without = own(name, state={}).chain
    assert sum(block.state_bytes for block in without.blocks) == 0
    assert without.chain_sha256 != chain.chain_sha256
    assert max(cut.bytes for cut in without.cuts[1:-1]) > per_layer > max(cut.bytes for cut in chain.cuts[1:-1])


@pytest.mark.parametrize("name", OWN)
def test_a_split_is_held_against_the_whole(name: str) -> None:
    model = own(name, 4)
    assert check_split(model, [1, 2, 3]).bit_equal


def _stages(model: ChainModel, cuts: Sequence[int]) -> list[StageModel]:
    borders = [0, *cuts, len(model.chain)]
    return [StageModel(first, end - 1, model.stage_model(first, end - 1)) for first, end in pairwise(borders)]


@pytest.mark.parametrize("name", OWN)
def test_a_split_is_held_against_the_whole_over_a_prompt_and_steps(name: str) -> None:
    model = own(name, 4)
    first, *steps = sequence_inputs(model.chain)
    assert first["input_ids"].shape == (1, PROMPT)
    assert [step["attention_mask"].shape[1] for step in steps] == [PROMPT + step + 1 for step in range(STEPS)]
    found = check_whole_split(model.chain, model.model_bytes(), _stages(model, [1, 3]), inputs_of(model))
    assert found.runs == 2 + STEPS
    assert found.plain.bit_equal
    assert found.passed


@pytest.mark.parametrize("layer", range(3))
def test_a_stage_that_keeps_a_wrong_state_does_not_pass(layer: int, tmp_path: Path) -> None:
    path = recurrent(tmp_path / "m.onnx", layers=3)
    state = {f"h{layer}": f"h{layer}_out" for layer in range(3)}
    model = load_chain(path, max_blocks=None, state=state)
    stages = _stages(model, range(1, len(model.chain)))
    right = check_whole_split(model.chain, model.model_bytes(), stages, inputs_of(model))
    assert right.passed
    assert right.runs == 2 + STEPS
    wrong = []
    for stage in stages:
        assert isinstance(stage.model, bytes)
        block = onnx.load_from_string(stage.model)
        for node in block.graph.node:
            if list(node.output) == [f"h{layer}_out"]:
                node.op_type = "Sub"
        wrong.append(dataclasses.replace(stage, model=block.SerializeToString()))
    found = check_whole_split(model.chain, model.model_bytes(), wrong, inputs_of(model))
    assert not found.passed
    assert found.plain.max_rel_error > 0.1


def test_the_length_of_the_prompt_and_of_the_state_vary() -> None:
    model = own("gpt2-small-cache", 3)
    ids, places, mask, sequence = model.chain.cuts[0].tensors
    assert (ids.varies, places.varies, mask.varies, sequence.varies) == ((1,), (1,), (1,), ())
    assert all(pair.before.varies == (2,) for pairs in model.state.values() for pair in pairs)
    block = onnx.load_from_string(model.block_model(1))
    open_axes = {
        tensor.name: [
            axis for axis, dim in enumerate(tensor.type.tensor_type.shape.dim) if not dim.HasField("dim_value")
        ]
        for tensor in block.graph.input
    }
    assert set(map(tuple, open_axes.values())) == {(1,), (2,)}


def test_lengths_given_as_shapes_vary_likewise() -> None:
    caches = {f"past_key_values.{layer}.{kind}": [1, 4, 8, 32] for layer in range(3) for kind in ("key", "value")}
    shape = {"input_ids": [1, 1], "position_ids": [1, 1], "attention_mask": [1, 9], **caches}
    by_shape = load_chain(decoder("gpt2-small-cache"), shape=shape, max_blocks=8)
    assert by_shape.chain == load_chain(decoder("gpt2-small-cache"), axes=STEP, max_blocks=8).chain


def recurrent(path: Path, *, layers: int, shared: bool = False, prefix: str = "h") -> Path:
    """Write layers with a state each of fixed size, or with one state that all of them use."""
    size = 16
    nodes, weights, inputs, outputs = [], [], [value("x", [1, size])], []
    x = "x"
    for layer in range(layers):
        before = prefix if shared else f"{prefix}{layer}"
        weights.append(numpy_helper.from_array(floats(size, size, seed=layer) / 4, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [x, f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Add", [f"m{layer}", before], [f"a{layer}"]),
            helper.make_node("Tanh", [f"a{layer}"], [f"t{layer}"]),
        ]
        x = f"t{layer}"
        if not shared:
            nodes.append(helper.make_node("Mul", [x, f"m{layer}"], [f"{before}_out"]))
    if shared:
        nodes.append(helper.make_node("Neg", [x], [f"{prefix}_out"]))
    names = [prefix] if shared else [f"{prefix}{layer}" for layer in range(layers)]
    inputs += [value(name, [1, size]) for name in names]
    nodes.append(helper.make_node("Exp", [x], ["y"]))
    outputs = [value("y", [1, size]), *(value(f"{name}_out", [1, size]) for name in names)]
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_state_of_a_fixed_size_by_its_given_names(tmp_path: Path) -> None:
    path = recurrent(tmp_path / "m.onnx", layers=3)
    plain = load_chain(path, max_blocks=None)
    assert plain.state == {}
    model = load_chain(path, max_blocks=None, state={f"h{layer}": f"h{layer}_out" for layer in range(3)})
    assert {pair.after for pairs in model.state.values() for pair in pairs} == {"h0_out", "h1_out", "h2_out"}
    whole, runner = BlockSession(path), loaded(model)
    rng, state = np.random.default_rng(0), {f"h{layer}": np.zeros((1, 16), np.float32) for layer in range(3)}
    for runs in range(4):
        x = rng.standard_normal((1, 16), np.float32)
        right = whole.run({"x": x, **state})
        found = runner.run_segment(0, len(model.chain) - 1, {"x": x, SEQUENCE.name: np.array([3, runs])})
        np.testing.assert_allclose(found["y"], right["y"], rtol=1e-6)
        state = {name: right[f"{name}_out"] for name in state}


def test_a_state_that_several_layers_use_is_not_torn(tmp_path: Path) -> None:
    model = load_chain(recurrent(tmp_path / "m.onnx", layers=3, shared=True, prefix="state"), max_blocks=None)
    (pairs,) = model.state.values()
    assert [pair.after for pair in pairs] == ["state_out"]
    places = model.line.state_places["state"]
    assert not set(model.borders) & set(range(places.start + 1, places.stop))
    assert len(places) > 1


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"nothing": "h0_out"}, "the state names an unknown input; found 'nothing'"),
        ({"h0": "nothing"}, "the state names an unknown output; found 'nothing'"),
        ({"h0": "h1_out", "h1": "h1_out"}, "two inputs have the same state; found 'h1_out'"),
        ({"x": "wide"}, "the state 'x' does not fit 'wide'; found 'float32 [1, 16] and float32 [2, 32]'"),
        ({"whole": "y"}, "the state 'whole' does not fit 'y'; found 'int64 [1, 16] and float32 [1, 16]'"),
    ],
)
def test_a_state_that_cannot_be(state: dict[str, str], message: str, tmp_path: Path) -> None:
    model = onnx.load(recurrent(tmp_path / "m.onnx", layers=2))
    graph = model.graph
    graph.node.append(helper.make_node("Concat", ["y", "y"], ["pair"], axis=1))
    graph.node.append(helper.make_node("Concat", ["pair", "pair"], ["wide"], axis=0))
    graph.node.append(helper.make_node("Cast", ["whole"], ["cast"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Add", ["cast", "y"], ["more"]))
    graph.input.append(helper.make_tensor_value_info("whole", TensorProto.INT64, [1, 16]))
    graph.output.extend([value("wide", [2, 32]), value("more", [1, 16])])
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        load_chain(tmp_path / "m.onnx", state=state)
    assert message in str(caught.value)
    if state == {"x": "wide"}:
        assert "one axis may grow" in str(caught.value)


def grown_positions(path: Path) -> Path:
    """Write layers of attention-like sums that number tokens by the length of the first layer's state."""
    size = 8
    nodes = [
        helper.make_node("Shape", ["past.0.key"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["past_length"]),
    ]
    weights = [numpy_helper.from_array(np.array(1), "one"), numpy_helper.from_array(np.array([1], np.int64), "axis")]
    x = "x"
    for layer in range(3):
        weights.append(numpy_helper.from_array(floats(size, size, seed=layer) / 4, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [x, f"w{layer}"], [f"k{layer}"]),
            helper.make_node("Concat", [f"past.{layer}.key", f"k{layer}"], [f"present.{layer}.key"], axis=1),
            helper.make_node("ReduceMean", [f"present.{layer}.key", "axis"], [f"mean{layer}"], keepdims=1),
            helper.make_node("Cast", ["past_length"], [f"length{layer}"], to=TensorProto.FLOAT),
            helper.make_node("Add", [f"mean{layer}", f"length{layer}"], [f"s{layer}"]),
            helper.make_node("Mul", [f"s{layer}", x], [f"y{layer}"]),
        ]
        x = f"y{layer}"
    states = [f"past.{layer}.key" for layer in range(3)]
    inputs = [value("x", [1, "step", size]), *(value(name, [1, "past", size]) for name in states)]
    outputs = [value(x, [1, "step", size])]
    outputs += [value(f"present.{layer}.key", [1, "past + step", size]) for layer in range(3)]
    graph = helper.make_graph(nodes, "positions", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("blocks", [1, 2, None])
def test_the_length_of_a_state_crosses_where_later_blocks_use_it(blocks: int | None, tmp_path: Path) -> None:
    path = grown_positions(tmp_path / "m.onnx")
    model = load_chain(path, axes={"step": 1, "past": 4}, max_blocks=blocks)
    assert len(model.state) == min(len(model.chain), 3)
    whole, runner = BlockSession(path), loaded(model)
    rng, state = np.random.default_rng(0), {f"past.{layer}.key": np.zeros((1, 0, 8), np.float32) for layer in range(3)}
    for runs, length in enumerate((5, 1, 2, 1)):
        x = rng.standard_normal((1, length, 8), np.float32)
        right = whole.run({"x": x, **state})
        found = runner.run_segment(0, len(model.chain) - 1, {"x": x, SEQUENCE.name: np.array([0, runs])})
        np.testing.assert_allclose(found["y2"], right["y2"], rtol=1e-5, atol=1e-6)
        state = {name: right[name.replace("past", "present")] for name in state}
