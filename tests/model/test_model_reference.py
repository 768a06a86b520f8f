"""Reference models have the published numbers of parameters and multiply-accumulates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.model.extract import extract_subgraph
from planner.model.load import ChainModel, load_chain
from planner.model.reference import REFERENCE, build_model
from planner.runtime.quantise import QUANTISED
from planner.runtime.session import BlockSession
from tests.model.chained import inputs_of, reference

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
LARGE = frozenset({"gpt2"})
# As published: torchvision's tables for the first two, the papers for the others.
PUBLISHED = {
    "mobilenetv2": (3_504_872, 300.8e6),
    "resnet50": (25_557_032, 4.09e9),
    "resnet56": (853_018, 125.5e6),
    "gpt2": (124_439_808, 7.98e9),
}


def counts(model: ChainModel) -> tuple[int, int]:
    """Return the numbers of parameters and of multiply-accumulates in convolutions and matrix products."""
    whole = extract_subgraph(model.line, 0, len(model.line))
    macs = sum(model.costs.flop[node.index] for node in whole.nodes if node.proto.op_type in PRODUCTS) / 2
    return model.costs.parameters(whole), int(macs)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name in LARGE else name for name in REFERENCE]
)
def test_counts(name: str) -> None:
    model = load_chain(reference(name))
    assert counts(model) == (REFERENCE[name].parameters, REFERENCE[name].macs)
    assert model.uncounted == {}
    assert model.chain.cuts[0].tensors[0].shape == REFERENCE[name].input_shape


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_stated_counts_are_the_published_ones(name: str) -> None:
    parameters, macs = PUBLISHED[name]
    assert REFERENCE[name].parameters == parameters
    assert REFERENCE[name].macs == pytest.approx(macs, rel=2e-3)


@pytest.mark.parametrize("name", ["mobilenetv2-96", "resnet56-exits", "gpt2-small"])
def test_outputs_are_of_moderate_size(name: str) -> None:
    model = load_chain(reference(name), max_blocks=1)
    for output in BlockSession(model.model_bytes()).run(inputs_of(model)).values():
        assert np.isfinite(output).all()
        assert 0.1 < output.std() < 10


def test_reference_models_are_reproducible(tmp_path: Path) -> None:
    again = build_model("gpt2-small", tmp_path / "again.onnx")
    assert again.read_bytes() == reference("gpt2-small").read_bytes()


def test_tied_embeddings_count_in_both_blocks_and_lie_in_the_file_once() -> None:
    model = load_chain(reference("gpt2-small"))
    embedding = 1000 * 128
    assert sum(block.parameters for block in model.chain.blocks) == REFERENCE["gpt2-small"].parameters + embedding


def test_an_int8_variant_has_the_work_of_its_original_and_a_quarter_of_its_bytes() -> None:
    model = load_chain(reference("resnet56-int8"))
    original = load_chain(reference(QUANTISED["resnet56-int8"]))
    normalisation_scales = 16 * 19 + 32 * 18 + 64 * 18  # folded into the convolutions; the shifts become biases
    parameters, macs = counts(model)
    assert macs == counts(original)[1]
    assert parameters == counts(original)[0] - normalisation_scales
    weight_bytes = sum(block.weight_bytes for block in model.chain.blocks)
    assert weight_bytes < 0.3 * sum(block.weight_bytes for block in original.chain.blocks)


def test_int8_blocks_hand_over_int8_tensors() -> None:
    model = load_chain(reference("resnet56-int8"))
    assert {spec.dtype for cut in model.chain.cuts[1:-1] for spec in cut.tensors} == {"uint8"}
