"""A model with an input and an output of every dtype, its plan, and requests by the protocol's usual clients."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.utils import np_to_triton_dtype

from planner.model.load import load_chain
from planner.plan.store import save_plan
from planner.profiling.store import save_profile
from planner.project import reference_to
from planner.scenario.load import load_instance
from planner.solvers import solve
from tests.instances import make_profile

DTYPES = ["bool", "float16", "float32", "float64"] + [f"{k}int{n}" for k in ("", "u") for n in (8, 16, 32, 64)]
SHAPE = (1, 2, 3)

SCENARIO = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  own: {{path: own.onnx}}
workers:
  a: {{device_class: reference, memory: 1 GiB}}
sources:
  {source}: {{worker: a, models: [own], rate: 1 /s, priority: 1}}
"""


def every_model() -> onnx.ModelProto:
    """Return a model whose outputs ``y_DTYPE`` are its inputs ``x_DTYPE``, unchanged."""
    kinds = {dtype: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in DTYPES}
    others = [dtype for dtype in DTYPES if dtype != "float32"]
    nodes = [helper.make_node("Identity", [f"x_{dtype}"], [f"y_{dtype}"], name=dtype) for dtype in others]
    inputs = [helper.make_tensor_value_info(f"x_{dtype}", kind, SHAPE) for dtype, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"y_{dtype}", kind, SHAPE) for dtype, kind in kinds.items()]
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    nodes.append(helper.make_node("MatMul", ["x_float32", "w"], ["y_float32"], name="mul"))
    graph = helper.make_graph(nodes, "every", inputs, outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_every(folder: Path) -> Path:
    """Write all files of the model with every dtype; return the path of the plan."""
    return write_plan(folder, every_model(), "all-types")


def tiny_model() -> onnx.ModelProto:
    """Return a model with one input of four numbers, ``y = 2 x``."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="mul")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y"))
    weight = onnx.numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph([node], "tiny", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_plan(folder: Path, model: onnx.ModelProto, source: str) -> Path:
    """Write a model, its profile, a scenario with one worker and one source, and the plan; return the plan's path."""
    onnx.save(model, folder / "own.onnx")
    chain = load_chain(folder / "own.onnx").chain
    profile = make_profile("own", block_s=[0.001] * len(chain), cut_bytes=[cut.bytes for cut in chain.cuts])
    profile = profile.model_copy(update={"chain_sha256": chain.chain_sha256})
    save_profile(profile, folder / "profiles" / "reference" / "own.json")
    scenario, plan = folder / "scenario.yaml", folder / "plan.json"
    scenario.write_text(SCENARIO.format(source=source))
    solution = solve(load_instance(scenario))
    assert solution.plan is not None
    save_plan(solution.plan.model_copy(update={"scenario": reference_to(scenario, plan)}), plan)
    return plan


def values(dtype: str, seed: int = 0) -> NDArray[Any]:
    """Return values of a dtype, with its smallest and its largest."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.array([True, False, True, True, False, False]).reshape(SHAPE)
    if kind.kind == "f":
        drawn = np.random.default_rng(seed).standard_normal(SHAPE).astype(kind)
        drawn.flat[:2] = np.finfo(kind).min, np.finfo(kind).max
        return drawn
    limits = np.iinfo(kind)
    return np.array([limits.min, limits.max, 0, 1, 2, 3], kind).reshape(SHAPE)


def tensor(library: types.ModuleType, name: str, array: NDArray[Any], **options: Any) -> Any:
    """Return an input of a client's library."""
    made = library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, **options)
    return made
