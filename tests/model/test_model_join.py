"""Blocks joined to one model are the same model as the same part of the whole, extracted at once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto

from planner.errors import ModelError
from planner.model.join import join_blocks
from planner.model.load import ChainModel, load_chain
from planner.runtime.difference import compare
from planner.runtime.session import BlockSession
from tests.model.chained import crossing, floats, inputs_of, reference, save, value
from tests.model.decoder_models import export
from tests.model.test_model_random_graphs import WIDTH, graphs


def joined(model: ChainModel, first: int, last: int) -> bytes:
    """Return the model of some blocks, joined; the exits are those behind the last block."""
    outputs = {tensor.name for tensor in model.chain.cuts[last + 1].tensors}
    outputs |= {leave.name for leave in model.chain.exits if leave.cut == last + 1}
    return b"".join(join_blocks([model.block_model(index) for index in range(first, last + 1)], outputs))


@given(drawn=graphs(), data=st.data())
def test_any_run_of_blocks_of_any_graph_is_joined(
    drawn: tuple[list[NodeProto], list[str], list[str]], data: st.DataObject
) -> None:
    nodes, inputs, outputs = drawn
    weights = {"w0": floats(WIDTH, WIDTH), "w1": floats(WIDTH, WIDTH, seed=1)}
    ends = [value(name, [WIDTH, WIDTH]) for name in inputs], [value(name, None) for name in outputs]
    with TemporaryDirectory() as folder:
        model = load_chain(save(Path(folder) / "m.onnx", nodes, *ends, weights), max_blocks=None)
    first = data.draw(st.integers(0, len(model.chain) - 1))
    last = data.draw(st.integers(first, len(model.chain) - 1))
    alive = crossing(model, inputs_of(model))
    found = BlockSession(joined(model, first, last), optimise=False)
    onward = [tensor.name for tensor in model.chain.cuts[last + 1].tensors if tensor.name not in alive[first]]
    assert set(onward) <= set(found.output_names)
    assert set(found.input_names) == set(model.stage_inputs(first, last))
    made = found.run(alive[first])
    assert compare(made, {name: alive[last + 1][name] for name in onward}).bit_equal


@pytest.mark.parametrize("name", ["resnet56-exits", "mobilenetv2-96", "gpt2-small", "resnet56-int8"])
def test_a_joined_model_has_the_nodes_and_weights_of_the_extracted_one(name: str) -> None:
    model = load_chain(reference(name))
    for first, last in ((0, len(model.chain) - 1), (1, 3)):
        graph = onnx.load_model_from_string(joined(model, first, last)).graph
        onnx.checker.check_model(joined(model, first, last))
        expected = onnx.load_model_from_string(model.stage_model(first, last)).graph
        assert sorted(node.SerializeToString() for node in graph.node) == sorted(
            node.SerializeToString() for node in expected.node
        )
        assert sorted(each.SerializeToString() for each in graph.initializer) == sorted(
            each.SerializeToString() for each in expected.initializer
        )
        assert {each.name for each in graph.input} == {each.name for each in expected.input}


def test_blocks_with_state_are_not_joined() -> None:
    model = export("llama-fp32", 2)
    with pytest.raises(ModelError, match="blocks that keep state are not joined"):
        joined(model, 0, 1)


@given(data=st.binary(min_size=1, max_size=40))
def test_what_is_no_model_is_refused_or_joined_to_none(data: bytes) -> None:
    try:
        pieces = join_blocks([data, data], ["x"])
    except ModelError:
        return
    assert sum(map(len, pieces)) <= 2 * len(data) + 16
