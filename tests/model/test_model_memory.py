"""Memory that is said for each block of every model, against what onnxruntime takes: weights and peaks of runs."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.heap import only_new_garbage
from planner.model.load import ChainModel, load_chain
from planner.model.reference import REFERENCE
from planner.runtime.inputs import random_inputs
from planner.runtime.memory import measure_memory
from planner.runtime.quantise import QUANTISED
from planner.runtime.session import BlockSession
from tests.model.chained import inputs_of, needs_onnxruntime, reference
from tests.model.indexed import WRITERS
from tests.model.loaded_models import VARIABLE, LoadedModel
from tests.model.memory_kinds import KINDS
from tests.model.test_model_cuts import PACKAGED, packaged
from tests.model.test_model_quantised import llama, llama_inputs

MIB: Final = 2**20
ROOT: Final = Path(__file__).parents[2]
TRAINED: Final = ROOT / "models/resnet56-exits-fashion.onnx"
QUICK: Final = (
    "mobilenetv2-96",
    "resnet56-int8",
    "mobilenetv2-int8",
    "gpt2-small",
    "trained",
    "llama-int4",
)
LARGE: Final = ("mobilenetv2", "resnet56", "resnet56-exits", "resnet50", "gpt2")
"""For ``make nightly``; the trained model has the blocks of resnet56-exits, and other weights."""
ACCURACY_BYTES: Final = 3 * MIB // 10
"""Accuracy of a measurement."""
TRIES: Final = 3
AT_A_TIME: Final = 20
NODE_BYTES: Final = 8 * 1024
"""Memory that a session takes for each node, beside weights: 3 KiB, 5 if it has a weight, 12 for a convolution, which
``python -m benchmarks memory`` measures. Models have fewer convolutions than other nodes."""


class Memory(NamedTuple):
    """Memory of a block that is said and measured, in bytes."""

    weights_said: int
    weights: int
    peak_said: int
    peak: int
    nodes: int
    transposed: int
    """Weights that are transposed at first, in pages that in some processes were resident before."""


def transposed_bytes(data: bytes) -> int:
    """Return the size of the 8-bit weights of a block model that ``Gemm`` transposes."""
    graph = onnx.load_from_string(data).graph
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    quantised = {
        node.output[0]: sizes.get(node.input[0], 0) for node in graph.node if node.op_type == "DequantizeLinear"
    }
    products = [node for node in graph.node if node.op_type == "Gemm"]
    transposed = [node for node in products if any(item.name == "transB" and item.i for item in node.attribute)]
    return sum(quantised.get(node.input[1], 0) for node in transposed)


Found = dict[str, dict[str, Memory]]
"""Memory of blocks, by model and block."""


def measured(model: ChainModel | LoadedModel, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Memory]:
    """Return the memory of each block; what is too much is measured again, since other parts of a process can add."""
    crossing = dict(inputs)
    found: dict[str, Memory] = {}
    with only_new_garbage():
        for index, (block, cut) in enumerate(zip(model.chain.blocks, model.chain.cuts[:-1], strict=True)):
            data, passing = model.block_model(index), [tensor.name for tensor in cut.tensors]
            held, peak = sys.maxsize, sys.maxsize
            for _ in range(TRIES):
                memory = measure_memory(data, crossing, passing=passing)
                if memory is None:
                    return {}
                held, peak = min(held, memory.held_bytes), min(peak, memory.peak_bytes)
                if peak - ACCURACY_BYTES <= block.activation_bytes and held - ACCURACY_BYTES <= block.weight_bytes:
                    break
            said = (block.weight_bytes, held, block.activation_bytes, peak)
            found[block.name] = Memory(*said, block.nodes, transposed_bytes(data))
            crossing |= BlockSession(data).run(crossing)
    return found


def load(name: str, folder: Path) -> ChainModel:
    """Return a model of the tests by name."""
    if name in WRITERS:
        write, shape = WRITERS[name]
        return load_chain(write(folder / "model.onnx"), shape=shape)
    if name in PACKAGED:
        return packaged(name, max_blocks=8)
    if name == "text-detector, large":
        return load_chain(packaged("text-detector").path, shape={"x": [1, 3, 640, 640]})
    if name == "llama-int4":
        return llama(4)
    return load_chain(TRAINED if name == "trained" else reference(name))


def memory_of_models(names: Iterable[str], folder: Path) -> Found:
    """Return the memory of the blocks of each model."""
    found: Found = {}
    for name in names:
        model = load(name, folder)
        inputs = llama_inputs(4) if name == "llama-int4" else inputs_of(model)
        found[name] = measured(model, inputs)
    return found


def memory_of_kinds(names: Iterable[str], folder: Path) -> Found:
    """Return the memory of models of one block."""
    found: Found = {}
    for name in names:
        (folder / "kind.onnx").write_bytes(KINDS[name].model())
        found[name] = measured(load_chain(folder / "kind.onnx", max_blocks=1), KINDS[name].inputs())
    return found


def memory_of_loaded(names: Iterable[str], folder: Path) -> Found:
    """Return the memory of the blocks of models that other tests loaded; none of those that onnxruntime refuses."""
    found: Found = {}
    for name in names:
        model: LoadedModel = pickle.loads((folder / name).read_bytes())  # noqa: S301
        with contextlib.suppress(RuntimeSessionError):
            found[name] = measured(model, random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0)))
    return found


def measure(function: Callable[[Iterable[str], Path], Found], names: Iterable[str], folder: Path) -> Found:
    """Measure in a process of its own: what threads of other tests allocate meanwhile would count, too."""
    if sys.platform != "linux":
        pytest.skip("only Linux lets a process reset its high-water mark")
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        found = executor.submit(function, list(names), folder).result()
    if not any(found.values()):
        pytest.skip("this system does not let a process reset its high-water mark")
    assert set(found) == set(names)
    assert all(found.values())
    return found


def wrong_peaks(found: Found, most: float) -> dict[str, tuple[float, float]]:
    """Return what is said and measured, in MiB, of blocks that need more than is said, or far less."""
    return {
        f"{name}, {block}": (memory.peak_said / MIB, memory.peak / MIB)
        for name, blocks in found.items()
        for block, memory in blocks.items()
        if not memory.peak - ACCURACY_BYTES <= memory.peak_said <= most * memory.peak + ACCURACY_BYTES
    }


@pytest.mark.slow
@needs_onnxruntime(1, 32)
def test_the_peak_of_each_kind_of_operator_is_not_more_than_is_said(tmp_path: Path) -> None:
    found = measure(memory_of_kinds, KINDS, tmp_path)
    assert min(memory.peak for blocks in found.values() for memory in blocks.values()) > MIB
    assert wrong_peaks(found, 1.6) == {}


def check_models(names: Iterable[str], folder: Path) -> None:
    found = measure(memory_of_models, names, folder)
    assert wrong_peaks(found, 2.0) == {}
    # The largest peak of a model decides whether it fits into memory.
    largest = {name: {"": max(blocks.values(), key=lambda memory: memory.peak_said)} for name, blocks in found.items()}
    assert wrong_peaks(largest, 1.6) == {}
    if wrong := wrong_weights(found):  # on a busy machine some memory of a first run is counted before it
        again = {name.partition(", ")[0] for name in wrong}
        wrong = wrong_weights(measure(memory_of_models, again, folder))
    assert wrong == {}


def wrong_weights(found: Found) -> dict[str, Memory]:
    """Return the blocks whose weights take more or less memory than is said."""
    return {
        f"{name}, {block}": memory
        for name, blocks in found.items()
        for block, memory in blocks.items()
        if not -ACCURACY_BYTES - memory.transposed
        <= memory.weights - memory.weights_said
        <= ACCURACY_BYTES + NODE_BYTES * memory.nodes
    }


@pytest.mark.alone
@pytest.mark.slow
@needs_onnxruntime(1, 32)
def test_the_blocks_of_models_take_the_memory_that_is_said(tmp_path: Path) -> None:
    installed = [name for name, (package, *_) in PACKAGED.items() if find_spec(package)]
    check_models([*QUICK, *WRITERS, *installed], tmp_path)


@pytest.mark.nightly
@needs_onnxruntime(1, 32)
def test_the_blocks_of_large_models_take_the_memory_that_is_said(tmp_path: Path) -> None:
    assert {*QUICK, *LARGE} >= {*REFERENCE, *QUANTISED}
    check_models([*LARGE, *(["text-detector, large"] if find_spec("rapidocr_onnxruntime") else [])], tmp_path)


@pytest.mark.nightly
@needs_onnxruntime(1, 32)
def test_the_blocks_of_all_models_of_other_tests_take_the_memory_that_is_said(tmp_path: Path) -> None:
    arguments = [
        "-q",
        "-p",
        "tests.model.loaded_models",
        "-p",
        "no:cacheprovider",
        "-k",
        "not malformed and not flipped",
    ]
    tests = [f"tests/{part}" for part in ("model", "profiling", "runtime")]
    command = [sys.executable, "-m", "pytest", *arguments, "-m", "not nightly and not slow", *tests]
    folder = tmp_path / "loaded"
    folder.mkdir()
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, VARIABLE: str(folder)})
    names = [path.name for path in folder.iterdir()]
    found = measure_apart(names, folder, AT_A_TIME)
    assert sum(map(len, found.values())) > 1000
    doubtful = {name.partition(", ")[0] for name in (*wrong_peaks(found, 2.0), *wrong_weights(found))}
    again = measure_apart(doubtful, folder, 1)
    assert wrong_peaks(again, 2.0) == {}
    assert wrong_weights(again) == {}


def measure_apart(names: Iterable[str], folder: Path, count: int) -> Found:
    """Measure so many models in a process each: gaps in the heap of one that has measured others can count as peaks."""
    left, found = sorted(names), Found()
    while left:
        with ProcessPoolExecutor(1, get_context("spawn")) as executor:
            found |= executor.submit(memory_of_loaded, left[:count], folder).result()
        del left[:count]
    return found
