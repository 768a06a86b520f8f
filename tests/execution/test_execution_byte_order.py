"""An array means its values: byte order and memory layout change nothing, on whichever way it comes in."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from planner.errors import ExecuteError
from planner.execution.session.samples import find_samples, fitting
from planner.execution.wire.frames import Frame, decode, encode
from planner.execution.wire.messages import Start
from planner.model.chain import TensorSpec
from planner.model.load import load_chain
from planner.profiling.operating_points import load_samples
from planner.runtime.inputs import load_arrays
from planner.runtime.providers import Provider
from planner.runtime.session import BlockSession
from tests.model.chained import save, value

Arrays = Mapping[str, NDArray[Any]]

ORDERS: Final[tuple[Literal["<"], Literal[">"]]] = ("<", ">")

DTYPES: Final = (
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{k}{b}" for k in ("int", "uint") for b in (8, 16, 32, 64)),
)

LAYOUTS: Final[Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "plain": lambda array: array,
    "fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: array[:, ::-1].copy()[:, ::-1],
    "broadcast": lambda array: np.broadcast_to(array[:, :1], array.shape),
    "unaligned": lambda array: np.frombuffer(b"." + array.tobytes(), array.dtype, offset=1).reshape(array.shape),
    "empty": lambda array: array[:, :0],
    "scalar": lambda array: array[0, 1],
}


def given() -> dict[str, NDArray[Any]]:
    """Return an array of every dtype in both byte orders and every layout; all may be written to but some."""
    arrays = {}
    for dtype in DTYPES:
        values = np.random.default_rng(0).integers(0, 100, (1, 6)).astype(dtype)
        for order in ORDERS:
            ordered = values.astype(values.dtype.newbyteorder(order))
            for layout, laid_out in LAYOUTS.items():
                array = np.asarray(laid_out(ordered))
                if layout == "strided" and array.flags.owndata:
                    array.flags.writeable = False
                arrays[f"{dtype}{'_little' if order == '<' else '_big'}_{layout}"] = array
    return arrays


GIVEN: Final = given()
EXPECTED: Final = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in GIVEN.items()}
SPECS: Final = [TensorSpec(name, array.dtype.name, array.shape) for name, array in GIVEN.items()]


def identity(names: list[str]) -> onnx.ModelProto:
    """Return a model that returns its inputs."""
    kinds = [helper.np_dtype_to_tensor_dtype(EXPECTED[name].dtype) for name in names]
    shapes = [EXPECTED[name].shape for name in names]
    described = list(zip(names, kinds, shapes, strict=True))
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "identity",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in described],
        [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in described],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save_arrays(file: Path, arrays: Any) -> None:
    np.savez(file, **arrays)


def submitted(_folder: Path) -> Arrays:
    return fitting(SPECS, GIVEN, "camera")


def sent(_folder: Path) -> Arrays:
    return decode(*encode(Frame(Start(run="r", at_unix_s=1.0), GIVEN))).tensors


def in_a_folder(folder: Path) -> Arrays:
    save_arrays(folder / "one.npz", GIVEN)
    (sample,) = find_samples(str(folder), SPECS)
    return sample.read()


def in_a_file(folder: Path) -> Arrays:
    save_arrays(folder / "all.npz", {name: array[None] for name, array in GIVEN.items()})
    (sample,) = find_samples(str(folder / "all.npz"), SPECS)
    return sample.read()


def of_a_command(folder: Path) -> Arrays:
    with (folder / "all").open("wb") as file:
        for array in GIVEN.values():
            np.save(file, array)
    code = f"import sys; sys.stdout.buffer.write(open({str(folder / 'all')!r}, 'rb').read())"
    (sample,) = find_samples(shlex.join([sys.executable, "-c", code]), SPECS)
    return sample.read()


def one_at_a_time(folder: Path) -> Arrays:
    found: dict[str, NDArray[Any]] = {}
    for spec in SPECS:
        (folder / spec.name).mkdir()
        np.save(folder / spec.name / "one.npy", GIVEN[spec.name])
        (sample,) = find_samples(str(folder / spec.name), [spec])
        found |= sample.read()
    return found


def as_inputs(folder: Path) -> Arrays:
    save_arrays(folder / "inputs.npz", GIVEN)
    return load_arrays(folder / "inputs.npz", GIVEN)


def run_by(provider: str | Provider) -> Callable[[Path], Arrays]:
    def run(_folder: Path) -> Arrays:
        outputs = BlockSession(identity(list(GIVEN)).SerializeToString(), provider=provider).run(GIVEN)
        return {name.removesuffix("_out"): array for name, array in outputs.items()}

    return run


@pytest.mark.parametrize(
    "way",
    [
        submitted, sent, in_a_folder, in_a_file, of_a_command, one_at_a_time, as_inputs,
        pytest.param(run_by("cpu"), id="session"),
        pytest.param(run_by(Provider("bound", ("CPUExecutionProvider",), device="cpu")), id="io-binding"),
    ],
)  # fmt: skip
def test_every_way_in_keeps_the_values(way: Callable[[Path], Arrays], tmp_path: Path) -> None:
    found = way(tmp_path)
    assert found.keys() == GIVEN.keys()
    wrong = [
        name
        for name, right in EXPECTED.items()
        if (found[name].dtype, found[name].shape) != (right.dtype, right.shape)
        or not found[name].dtype.isnative
        or found[name].tobytes() != right.tobytes()
    ]
    assert not wrong


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint16"])
def test_labelled_samples_and_their_labels_keep_their_values(dtype: str, tmp_path: Path) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Abs", ["x"], ["y"])]
    file = save(tmp_path / "m.onnx", nodes, [value("x", [1, 5], element)], [value("y", [1, 5], element)])
    chain = load_chain(file).chain
    values, labels = np.arange(15).reshape(3, 5).astype(dtype), np.array([1, 0, 4])
    for order in ORDERS:
        arrays = {"x": values, "label": labels}
        swapped = {name: array.astype(array.dtype.newbyteorder(order)) for name, array in arrays.items()}
        save_arrays(tmp_path / "samples.npz", swapped)
        samples = load_samples(tmp_path / "samples.npz", chain)
        np.testing.assert_array_equal(samples.inputs["x"], values[:, None], strict=True)
        np.testing.assert_array_equal(samples.labels, labels)
        assert samples.inputs["x"].dtype.isnative


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, ">c8"),
        np.zeros(2, "S4"),
        np.array(["a", "b"]),
        np.zeros(2, [("re", ">f4"), ("im", ">f4")]),
        np.zeros(2, "V4"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, ml_dtypes.bfloat16),
        np.zeros(2, ml_dtypes.float8_e4m3fn),
        np.zeros(2, object),
    ],
    ids=lambda array: str(array.dtype),
)
def test_a_dtype_that_no_model_takes_is_refused_with_its_name(array: NDArray[Any]) -> None:
    for dtype in ("float32", "float16"):
        with pytest.raises(ExecuteError, match=r"camera, input x: wrong dtype; found '.+'; expected float"):
            fitting([TensorSpec("x", dtype, (2,))], {"x": array}, "camera")
