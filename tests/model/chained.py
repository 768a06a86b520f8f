"""Shared helpers: block models chained on onnxruntime, models built from arrays, reference models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from planner.model.load import ChainModel
from planner.model.reference import REFERENCE, build_model
from planner.runtime.check import StageModel, run_stages
from planner.runtime.difference import OutputDifference, compare
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import onnxruntime_version
from planner.runtime.session import BlockSession

Arrays = Mapping[str, NDArray[Any]]
FOLDER = TemporaryDirectory(prefix="planner-test-models-")  # removed when the process ends
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@cache
def reference(name: str) -> Path:
    """Return the file of a reference model or an int8 variant."""
    from planner.runtime.quantise import build_quantised

    path = Path(FOLDER.name) / f"{name}.onnx"
    return build_model(name, path) if name in REFERENCE else build_quantised(name, path)


def onnxruntime_before(*version: int) -> bool:
    """Return whether the installed onnxruntime is older than a version."""
    return tuple(int(part) for part in onnxruntime_version().split(".")[: len(version)]) < version


def needs_onnxruntime(*version: int) -> pytest.MarkDecorator:
    """Return a mark for a test of what earlier versions of onnxruntime do not load, or hold otherwise."""
    needed = ".".join(map(str, version))
    return pytest.mark.skipif(onnxruntime_before(*version), reason=f"onnxruntime {needed} or later")


def inputs_of(model: ChainModel, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return random inputs for the whole model."""
    return random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(seed))


def check_split(
    model: ChainModel, cuts: Sequence[int], *, optimise: bool = False, inputs: Arrays | None = None
) -> OutputDifference:
    """Return the difference between the stages split at ``cuts`` and the whole model without graph optimisation."""
    borders = [0, *cuts, len(model.chain)]
    stages = [StageModel(first, end - 1, model.stage_model(first, end - 1)) for first, end in pairwise(borders)]
    given = inputs or inputs_of(model)
    expected = BlockSession(model.model_bytes(), optimise=False, show_state=True).run(given)
    (found,) = run_stages(model.chain, stages, [given], optimise=optimise)
    return compare(found, expected)


def crossing(model: ChainModel, inputs: Arrays) -> list[dict[str, NDArray[Any]]]:
    """Return the tensors that actually cross each cut, from one block model to the next."""
    alive = dict(inputs)
    all_alive = [alive]
    for index, cut in enumerate(model.chain.cuts[1:]):
        session = BlockSession(model.block_model(index), optimise=False)
        assert session.input_names == model.block_inputs(index)
        assert session.output_names == model.block_outputs(index)
        made = alive | session.run(alive)
        alive = {spec.name: made[spec.name] for spec in cut.tensors}
        all_alive.append(alive)
    return all_alive


def assert_cuts_match_tensors(model: ChainModel, inputs: Arrays | None = None) -> None:
    """Assert that names, types, shapes and bytes of every cut are those of the tensors that onnxruntime passes."""
    for cut, alive in zip(model.chain.cuts, crossing(model, inputs or inputs_of(model)), strict=True):
        assert [(spec.name, spec.dtype, spec.shape) for spec in cut.tensors] == [
            (name, array.dtype.name, array.shape) for name, array in alive.items()
        ]
        assert cut.bytes == sum(array.nbytes for array in alive.values())


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Arrays | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> Path:
    """Write a model built from nodes and named arrays, and return its path."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path


def value(name: str, shape: Sequence[int | str | None] | None, element: int = FLOAT) -> ValueInfoProto:
    """Return the description of an input or output."""
    return helper.make_tensor_value_info(name, element, shape)


def floats(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a random weight."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
