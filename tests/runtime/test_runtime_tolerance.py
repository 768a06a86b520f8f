"""A split model is held against what graph optimisation and the provider do to the whole model."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf, isinf, nan
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.model.load import ChainModel, load_chain
from planner.runtime.check import SplitCheck, StageModel, check_split
from planner.runtime.difference import compare, tensor_errors
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import (
    PROVIDERS,
    UNKNOWN_PRECISION,
    Provider,
    find_provider,
    import_onnxruntime,
)
from planner.runtime.session import BlockSession
from planner.runtime.tolerance import (
    HALF_TOLERANCE,
    LARGEST,
    MARGIN,
    TOLERANCE,
    Tolerance,
    known_tolerance,
    measure_tolerance,
)
from tests.model.chained import floats, inputs_of, save, value

WIDTH = 64
LAYERS = 3


def quantised(path: Path) -> Path:
    """Write int8 layers with QuantizeLinear and DequantizeLinear: x + sigmoid(x w), rounded to steps of uint8."""
    nodes = list[onnx.NodeProto]()
    weights: dict[str, np.ndarray] = {}

    def rounded(name: str, scale: float) -> str:
        """Append the rounding of a tensor to 256 steps around 0."""
        weights.update({f"{name}_scale": np.array(scale, np.float32), f"{name}_zero": np.array(128, np.uint8)})
        step = [f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *step], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *step], [f"{name}_d"]))
        return f"{name}_d"

    last = rounded("x", 0.03)
    for layer in range(LAYERS):
        weight = floats(WIDTH, WIDTH, seed=layer) / 8
        weights[f"w{layer}"] = np.round(weight * 127 / np.abs(weight).max()).astype(np.int8)
        weights[f"s{layer}"] = np.array(np.abs(weight).max() / 127, np.float32)
        nodes.append(helper.make_node("DequantizeLinear", [f"w{layer}", f"s{layer}"], [f"v{layer}"]))
        nodes.append(helper.make_node("MatMul", [last, f"v{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Sigmoid", [rounded(f"m{layer}", 0.037)], [f"g{layer}"]))
        nodes.append(helper.make_node("Add", [last, rounded(f"g{layer}", 1 / 256)], [f"y{layer}"]))
        last = rounded(f"y{layer}", 0.03 + 0.007 * layer)
    return save(path, nodes, [value("x", [8, WIDTH])], [value(last, [8, WIDTH])], weights)


def block_quantised(path: Path) -> Path:
    """Write layers with int4 weights in blocks of 32, which onnxruntime computes with int8 activations where it may."""
    nodes, weights, last = [], list[onnx.TensorProto](), "x"
    rng = np.random.default_rng(0)
    for layer in range(3):
        values = rng.integers(-8, 8, (WIDTH, WIDTH))
        weights.append(helper.make_tensor(f"w{layer}", TensorProto.INT4, [WIDTH, WIDTH], values))
        weights.append(numpy_helper.from_array(np.full((WIDTH // 32, WIDTH), 0.03, np.float32), f"s{layer}"))
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{layer}", f"s{layer}"], [f"d{layer}"], axis=0, block_size=32),
            helper.make_node("MatMul", [last, f"d{layer}"], [f"m{layer}"]),
            helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]),
        ]
        last = f"r{layer}"
    graph = helper.make_graph(nodes, "int4", [value("x", [1, WIDTH])], [value(last, [1, WIDTH])], weights)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )
    return path


def checked(model: ChainModel, cuts: list[int], seed: int = 0) -> SplitCheck:
    stages = [StageModel(a, b - 1, model.stage_model(a, b - 1)) for a, b in pairwise([0, *cuts, len(model.chain)])]
    return check_split(model.chain, model.model_bytes(), stages, inputs_of(model, seed))


def test_a_quantised_model_passes_wherever_it_is_cut(tmp_path: Path) -> None:
    model = load_chain(quantised(tmp_path / "m.onnx"), max_blocks=None)
    found = [checked(model, [cut], seed=cut) for cut in range(1, len(model.chain))]
    assert [split.passed for split in found] == [True] * len(found)
    assert all(split.plain.bit_equal for split in found)
    assert any(split.optimised.max_rel_error > TOLERANCE for split in found)  # or the limit of other models would do
    assert checked(model, list(range(1, len(model.chain)))).passed


def test_weights_quantised_in_blocks_are_multiplied_in_float32_wherever_the_model_is_cut(tmp_path: Path) -> None:
    model = load_chain(block_quantised(tmp_path / "m.onnx"), max_blocks=None)
    for cut in range(1, len(model.chain)):
        assert checked(model, [cut]).optimised.max_rel_error < 1e-5


def test_a_wrong_stage_does_not_pass_because_the_model_is_quantised(tmp_path: Path) -> None:
    model = load_chain(quantised(tmp_path / "m.onnx"), max_blocks=None)
    last = len(model.chain) - 1
    wrong = onnx.load_model_from_string(model.stage_model(1, last))
    weight = next(tensor for tensor in wrong.graph.initializer if tensor.data_type == TensorProto.INT8 and tensor.dims)
    values = numpy_helper.to_array(weight).copy()
    values[:, 0] = -values[:, 0]
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    stages = [StageModel(0, 0, model.stage_model(0, 0)), StageModel(1, last, wrong.SerializeToString())]
    found = check_split(model.chain, model.path, stages, inputs_of(model))
    assert not found.plain.bit_equal
    assert not found.passed


def test_what_a_provider_does_to_the_whole_model_sets_its_limit(tmp_path: Path) -> None:
    """Any provider is measured alike; here one with device tensors whose device is the CPU."""
    path = quantised(tmp_path / "m.onnx")
    bound = Provider("bound", ("CPUExecutionProvider",), device="cpu", precision="bfloat16", exact="cpu")
    specs = load_chain(path).chain.cuts[0].tensors
    reference = BlockSession(path, optimise=False)
    inputs = [random_inputs(specs, np.random.default_rng(seed)) for seed in range(6)]
    runs = [(one, reference.run(one)) for one in inputs]
    found = measure_tolerance(path, bound, runs, TOLERANCE)
    optimised = BlockSession(path)
    assert found.whole_error == max(compare(optimised.run(one), right).max_rel_error for one, right in runs)
    assert found.whole_error is not None
    assert found.whole_error > TOLERANCE
    assert found.limit == MARGIN * found.whole_error
    assert found.exact_time_ratio is not None
    told = str(found)
    assert told.startswith(
        f"bound: bfloat16 and graph optimisation alone change the whole model's outputs by {found.whole_error:.1e}"
    )
    assert "`--provider cpu` computes in float32 and takes " in told
    plain = measure_tolerance(path, find_provider("cpu"), runs, TOLERANCE)
    assert plain.whole_error == found.whole_error
    assert "--provider" not in str(plain)


def test_no_measurement_allows_more_than_rounding() -> None:
    assert Tolerance("gpu", "TF32", TOLERANCE, 3.6e-4).limit == pytest.approx(7.2e-4)
    assert Tolerance("gpu", "TF32", TOLERANCE, 1e-7).limit == TOLERANCE
    assert Tolerance("gpu", "TF32", TOLERANCE, 0.5).limit == LARGEST
    assert Tolerance("gpu", "TF32", TOLERANCE, inf).limit == LARGEST
    assert known_tolerance(PROVIDERS["cuda"], TOLERANCE).limit == HALF_TOLERANCE
    assert known_tolerance(PROVIDERS["cuda-fp32"], TOLERANCE).limit == TOLERANCE
    assert known_tolerance(PROVIDERS["cuda"], TOLERANCE, 3.6e-4).limit == pytest.approx(7.2e-4)
    assert "--provider cuda-fp32" in str(known_tolerance(PROVIDERS["cuda"], TOLERANCE))


def test_every_provider_of_reduced_precision_names_an_exact_one_of_its_device() -> None:
    for provider in PROVIDERS.values():
        if provider.precision == UNKNOWN_PRECISION:
            assert provider.exact is None
            continue
        assert (provider.exact is None) == (provider.precision == "float32")
        if provider.exact is not None:
            assert PROVIDERS[provider.exact].exact is None
            assert PROVIDERS[provider.exact].device == provider.device


@pytest.mark.parametrize(
    ("actual", "expected", "absolute", "relative"),
    [
        ([1.0, nan, inf], [1.0, nan, inf], 0.0, 0.0),
        ([1.0, nan, 3.0], [1.0, 2.0, 4.0], inf, inf),
        ([1.0, 2.0, 4.0], [1.0, 2.0, nan], inf, inf),
        ([1.0, -inf, 4.0], [1.0, inf, 4.0], inf, inf),
        ([1.0, 2.0, 4.5], [1.0, -inf, 4.0], inf, inf),
        ([1.0, -inf, 4.5], [1.0, -inf, 4.0], 0.5, 0.125),
        ([0.5, 0.0], [0.0, 0.0], 0.5, 0.5),
        ([1.0], [1.0, 1.0], inf, inf),
        ([], [], 0.0, 0.0),
    ],
)
def test_errors_of_tensors_that_are_not_finite(
    actual: list[float], expected: list[float], absolute: float, relative: float
) -> None:
    right = np.array(expected, np.float32)
    assert tensor_errors(np.array(actual, np.float32), right) == (absolute, relative)
    assert tensor_errors(None, right) == (inf, inf)
    shown = compare({"y": np.array(actual, np.float32)}, {"y": right}).to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False))["max_rel_error"] == (None if isinf(relative) else relative)


GPU = "CUDAExecutionProvider"


@pytest.mark.skipif(
    GPU not in import_onnxruntime().get_available_providers(), reason=f"this onnxruntime does not offer {GPU}"
)
def test_tf32_is_measured_on_a_gpu_and_full_precision_differs_less(tmp_path: Path) -> None:
    nodes, weights, last = [], {}, "x"
    for layer in range(8):
        weights[f"w{layer}"] = floats(256, 256, seed=layer) / 16
        nodes += [helper.make_node("MatMul", [last, f"w{layer}"], [f"y{layer}"])]
        last = f"y{layer}"
    path = save(tmp_path / "m.onnx", nodes, [value("x", [256, 256])], [value(last, [256, 256])], weights)
    inputs = {"x": floats(256, 256, seed=99)}
    runs = [(inputs, BlockSession(path, optimise=False).run(inputs))]
    reduced, exact = (measure_tolerance(path, find_provider(name), runs, TOLERANCE) for name in ("cuda", "cuda-fp32"))
    assert exact.whole_error is not None
    assert reduced.whole_error is not None
    assert exact.whole_error < 1e-5
    assert TOLERANCE / 2 < reduced.whole_error < HALF_TOLERANCE
    assert "TF32" in str(reduced)
    assert reduced.exact_time_ratio is not None
