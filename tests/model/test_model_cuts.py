"""At every cut of real models, the two halves chained produce the outputs of the whole model."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import planner
from planner.model.load import ChainModel, load_chain
from planner.runtime.session import BlockSession
from planner.runtime.tolerance import TOLERANCE
from tests.model.chained import Arrays, assert_cuts_match_tensors, check_split, inputs_of, reference

QUICK = ("mobilenetv2-96", "resnet56-exits", "gpt2-small")
# onnxruntime computes quantised operators in integers only if it sees them whole: a cut inside one may shift a value by
# one quantisation step. Block borders lie between such operators.
INT8 = ("resnet56-int8",)
LONG = 40
STEPS = (3, pytest.param(1, marks=pytest.mark.nightly))
PACKAGED = {
    "magika": ("magika", "models/standard_v3_3/model.onnx", {"bytes": [1, 2048]}),
    "text-detector": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 64, 64]}),
    "text-recogniser": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 96]}),
    "text-direction": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": [1, 3, 48, 192]}),
}


def assert_all_cuts(model: ChainModel, inputs: Arrays, *, optimise: bool, step: int = 1) -> None:
    """Assert that a prefix of the chain followed by the rest produces the outputs of the whole model.

    Of long chains, which repeat themselves, with a cut after each ``step`` blocks.
    """
    expected = BlockSession(model.model_bytes(), optimise=optimise).run(inputs)
    for cut in range(1, len(model.chain), step if len(model.chain) > LONG else 1):
        made = _run(model, 0, cut - 1, inputs, optimise=optimise)
        crossing = {spec.name: made[spec.name] for spec in model.chain.cuts[cut].tensors}
        made |= _run(model, cut, len(model.chain) - 1, crossing, optimise=optimise)
        for name, right in expected.items():
            if optimise:
                assert np.abs(made[name] - right).max() <= TOLERANCE * np.abs(right).max(), (cut, name)
            else:
                assert made[name].tobytes() == right.tobytes(), (cut, name)


def _run(model: ChainModel, first: int, last: int, crossing: Arrays, *, optimise: bool) -> dict[str, NDArray[Any]]:
    return dict(crossing) | BlockSession(model.stage_model(first, last), optimise=optimise).run(crossing)


def packaged(name: str, max_blocks: int | None = None) -> ChainModel:
    package, file, shape = PACKAGED[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package}, which contains this model, is not installed")
    return load_chain(Path(spec.origin).parent / file, max_blocks=max_blocks, shape=shape)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.nightly) for name in INT8)])
def test_every_cut_is_bit_equal_without_optimisation(name: str, step: int) -> None:
    model = load_chain(reference(name), max_blocks=None)
    assert_all_cuts(model, inputs_of(model), optimise=False, step=step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", QUICK)
def test_every_cut_is_within_tolerance_with_optimisation(name: str, step: int) -> None:
    model = load_chain(reference(name), max_blocks=None)
    assert_all_cuts(model, inputs_of(model), optimise=True, step=step)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("max_blocks", [2, 8, 16])
def test_chosen_blocks_chained_with_optimisation(name: str, max_blocks: int) -> None:
    model = load_chain(reference(name), max_blocks=max_blocks)
    assert check_split(model, range(1, len(model.chain)), optimise=True).max_rel_error <= TOLERANCE


@pytest.mark.parametrize("max_blocks", [2, 8, 16])
def test_chosen_blocks_of_a_quantised_model_are_as_far_off_as_it_is_from_itself(
    max_blocks: int, tmp_path: Path
) -> None:
    """How an optimised int8 model rounds hangs on the processor's kernels."""
    (name,) = INT8
    model = load_chain(reference(name), max_blocks=max_blocks)
    check = planner.split(model, cuts=range(1, len(model.chain)), folder=tmp_path).to_dict()["check"]
    assert check["passed"]
    assert check["plain"]["bit_equal"]


@pytest.mark.parametrize("name", QUICK + INT8)
def test_random_splits_are_bit_equal(name: str) -> None:
    model = load_chain(reference(name), max_blocks=None)
    rng = np.random.default_rng(7)
    for _ in range(5):
        cuts = sorted(rng.choice(np.arange(1, len(model.chain)), 4, replace=False).tolist())
        assert check_split(model, cuts).bit_equal, cuts


@pytest.mark.parametrize("name", QUICK + INT8)
def test_cuts_describe_the_tensors_that_onnxruntime_passes(name: str) -> None:
    assert_cuts_match_tensors(load_chain(reference(name), max_blocks=None))


@pytest.mark.nightly
@pytest.mark.parametrize("name", PACKAGED)
def test_every_cut_of_models_from_packages_is_bit_equal(name: str) -> None:
    model = packaged(name)
    assert_all_cuts(model, inputs_of(model), optimise=False)
    assert_cuts_match_tensors(model)


@pytest.mark.parametrize("name", PACKAGED)
def test_random_splits_of_models_from_packages_are_bit_equal(name: str) -> None:
    model = packaged(name)
    rng = np.random.default_rng(7)
    for _ in range(5):
        cuts = sorted(rng.choice(np.arange(1, len(model.chain)), 4, replace=False).tolist())
        assert check_split(model, cuts).bit_equal, cuts


@pytest.mark.parametrize("name", PACKAGED)
def test_blocks_of_models_from_packages_with_optimisation(name: str) -> None:
    finest = packaged(name)
    shape = {spec.name: spec.shape for spec in finest.chain.cuts[0].tensors}
    model = load_chain(finest.path, shape=shape)
    # On random pixels the detector's sigmoid is about 1e-6, and onnxruntime's approximation is accurate to 1e-7.
    comparison = check_split(model, range(1, len(model.chain)), optimise=True)
    assert comparison.max_rel_error <= TOLERANCE or comparison.max_abs_error <= 1e-6


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["resnet50", "gpt2", "mobilenetv2", "mobilenetv2-int8"])
def test_large_models_at_many_cuts(name: str) -> None:
    model = load_chain(reference(name), max_blocks=16)
    assert check_split(model, range(1, len(model.chain))).bit_equal
    for cut in range(1, len(model.chain)):
        assert check_split(model, [cut], optimise=True).max_rel_error <= TOLERANCE


def test_prefixes_and_rests_share_no_work() -> None:
    model = load_chain(reference("gpt2-small"), max_blocks=None)
    work = [tuple(node.index for node in model.line.order[a:b]) for a, b in pairwise(model.borders)]
    assert sorted(index for block in work for index in block) == sorted(node.index for node in model.line.order)
