"""Small random graphs with skips, several inputs and outputs, shared weights and shape arithmetic, cut everywhere."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from planner.model.extract import extract_subgraph
from planner.model.load import ChainModel, load_chain
from tests.model.chained import assert_cuts_match_tensors, check_split, floats, save, value

WIDTH = 4
UNARY = ("Relu", "Tanh", "Neg", "Sigmoid", "MatMul", "Reshape", "Softmax")
BINARY = ("Add", "Mul", "Sub", "MatMulPair")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[NodeProto], list[str], list[str]]:
    """Draw nodes over (4, 4) tensors, names of inputs and names of outputs."""
    inputs = ["x0", "x1"][: draw(st.integers(1, 2))]
    tensors = list(inputs)
    nodes: list[NodeProto] = []
    for index in range(draw(st.integers(2, 10))):
        operator = draw(st.sampled_from(UNARY + BINARY))
        out, left = f"t{index}", draw(st.sampled_from(tensors))
        if operator in BINARY:
            right = draw(st.sampled_from(tensors))
            nodes.append(helper.make_node(operator.removesuffix("Pair"), [left, right], [out]))
        elif operator == "MatMul":
            nodes.append(helper.make_node("MatMul", [left, draw(st.sampled_from(["w0", "w1"]))], [out]))
        elif operator == "Reshape":
            like = draw(st.sampled_from(tensors))
            nodes += [
                helper.make_node("Shape", [like], [f"s{index}"]),
                helper.make_node("Reshape", [left, f"s{index}"], [out]),
            ]
        else:
            nodes.append(helper.make_node(operator, [left], [out]))
        tensors.append(out)
    made = tensors[len(inputs) :]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    return draw(st.permutations(nodes)), inputs, outputs


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graph=graphs(), dynamic=st.booleans(), max_blocks=st.integers(1, 4))
def test_any_graph_can_be_cut_anywhere(
    *, graph: tuple[list[NodeProto], list[str], list[str]], dynamic: bool, max_blocks: int
) -> None:
    nodes, inputs, outputs = graph
    shape: list[int | str | None] = ["n", WIDTH] if dynamic else [WIDTH, WIDTH]
    weights = {"w0": floats(WIDTH, WIDTH), "w1": floats(WIDTH, WIDTH, seed=1)}
    with TemporaryDirectory() as folder:
        path = save(
            Path(folder) / "m.onnx",
            nodes,
            [value(name, shape) for name in inputs],
            [value(name, None) for name in outputs],
            weights,
        )
        shapes = {name: [WIDTH, WIDTH] for name in inputs} if dynamic else {}
        finest = load_chain(path, max_blocks=None, shape=shapes)
        coarse = load_chain(path, max_blocks=max_blocks, shape=shapes)
        _check_all(finest, coarse, max_blocks, set(outputs))


def _check_all(finest: ChainModel, coarse: ChainModel, max_blocks: int, outputs: set[str]) -> None:
    assert_cuts_match_tensors(finest)
    assert check_split(finest, range(1, len(finest.chain))).bit_equal
    assert check_split(coarse, range(1, len(coarse.chain))).bit_equal
    for cut in range(1, len(finest.chain)):
        assert check_split(finest, [cut]).bit_equal
    _check_bookkeeping(
        finest.line.alive, [extract_subgraph(finest.line, cut, cut + 1).inputs for cut in range(len(finest.line))]
    )
    results = {spec.name for spec in finest.chain.cuts[-1].tensors} | {exit_.name for exit_ in finest.chain.exits}
    assert results == outputs
    assert len(coarse.chain) <= max(max_blocks, len(coarse.chain.exits) + 1)
    assert np.isclose(sum(block.flop for block in finest.chain.blocks), sum(b.flop for b in coarse.chain.blocks))


def _check_bookkeeping(alive: list[tuple[str, ...]], inputs: list[tuple[str, ...]]) -> None:
    """Assert that every tensor that a block uses crosses the cut before it."""
    for crossing, used in zip(alive, inputs, strict=False):
        assert set(used) <= set(crossing)
        assert len(set(crossing)) == len(crossing)
