from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from planner.errors import RuntimeSessionError
from planner.runtime.providers import Provider, find_provider
from planner.runtime.session import BlockSession
from tests.runtime.small_model import SHAPE, blocks

X = np.arange(4, dtype=np.float32).reshape(SHAPE)
WEIGHT = (np.arange(16, dtype=np.float32) / 16).reshape(4, 4)
BOUND_CPU = Provider("bound", ("CPUExecutionProvider",), device="cpu")


@pytest.mark.parametrize("provider", ["cpu", BOUND_CPU], ids=["host", "io-binding"])
@pytest.mark.parametrize("options", [{}, {"optimise": False}, {"threads": 2}], ids=str)
def test_run_ignores_unneeded_tensors(provider: str | Provider, options: dict[str, Any]) -> None:
    session = BlockSession(blocks()[2], provider=provider, **options)
    tensors: dict[str, NDArray[Any]] = {"b": X, "x": 2 * X, "unrelated": np.zeros(3)}
    made = session.run(tensors)
    assert list(made) == ["y"]
    np.testing.assert_allclose(made["y"], X @ WEIGHT + 2 * X, rtol=1e-5)


def test_inputs_and_outputs_are_known_without_onnx() -> None:
    session = BlockSession(blocks()[2])
    assert session.input_names == ("b", "x")
    assert session.output_names == ("y",)
    assert session.inputs[0].dtype == "float32"
    assert session.inputs[0].shape == SHAPE


def test_model_from_file(tmp_path: Path) -> None:
    path = tmp_path / "block.onnx"
    path.write_bytes(blocks()[1])
    np.testing.assert_allclose(BlockSession(path).run({"a": X})["b"], np.tanh(X), rtol=1e-5)


@pytest.mark.parametrize("provider", ["cpu", BOUND_CPU], ids=["host", "io-binding"])
def test_layout_of_an_input_does_not_matter(provider: str | Provider) -> None:
    session = BlockSession(blocks()[1], provider=provider)
    wide = np.arange(8, dtype=np.float32).reshape(1, 8)
    np.testing.assert_allclose(session.run({"a": wide[:, ::2]})["b"], np.tanh(wide[:, ::2]), rtol=1e-5)


def test_all_faults_of_the_inputs_at_once() -> None:
    session = BlockSession(blocks()[2])
    with pytest.raises(RuntimeSessionError) as caught:
        session.run({"b": X.astype(np.float64)})
    assert [fault.what for fault in caught.value.faults] == ["input b: wrong dtype", "input x: input is missing"]
    assert "float64" in str(caught.value)
    assert "missing" in str(caught.value)


def test_wrong_shape_is_named() -> None:
    with pytest.raises(RuntimeSessionError, match=r"input a: wrong shape; found \[1, 5\]; expected \[1, 4\]"):
        BlockSession(blocks()[1]).run({"a": np.zeros((1, 5), np.float32)})


def test_an_open_rank_takes_any_shape_and_a_wrong_one_is_explained_by_onnxruntime_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "open rank",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = BlockSession(model.SerializeToString())
    np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-5)
    with pytest.raises(RuntimeSessionError, match="fails to run the block"):
        session.run({"x": np.zeros((1, 5), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_not_a_model() -> None:
    with pytest.raises(RuntimeSessionError, match="rejects the model"):
        BlockSession(b"nonsense")
    with pytest.raises(RuntimeSessionError, match=r"^block 3: onnxruntime rejects"):
        BlockSession(b"nonsense", name="block 3")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeSessionError, match=r"absent\.onnx"):
        BlockSession(tmp_path / "absent.onnx")


def test_threads_must_be_positive() -> None:
    with pytest.raises(RuntimeSessionError, match="threads"):
        BlockSession(blocks()[0], threads=0)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_falls_back_is_rejected() -> None:
    # onnxruntime accepts this list but does not start its first entry, as with missing CUDA libraries.
    absent = Provider("cuda", ("CUDAExecutionProvider", "CPUExecutionProvider"), device="cuda")
    with pytest.raises(RuntimeSessionError, match=r"CUDAExecutionProvider"):
        BlockSession(blocks()[0], provider=absent)


def test_only_offered_providers_are_found() -> None:
    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert find_provider("tensorrt", offered).execution_providers[0] == "TensorrtExecutionProvider"
    assert find_provider("cuda", offered).device == "cuda"
    assert find_provider("cpu", offered).device is None
    assert find_provider("tensorrt-fp16", offered).for_session[0][1]["trt_fp16_enable"] == "1"
    assert find_provider("tensorrt-fp16", offered).for_session[-1] == ("CPUExecutionProvider", {})
    with pytest.raises(RuntimeSessionError, match=r"does not offer.*'tensorrt'; expected cuda \| cpu|cpu \| cuda"):
        find_provider("tensorrt", offered[1:])
    with pytest.raises(RuntimeSessionError, match="unknown provider"):
        find_provider("gpu", offered)


@pytest.mark.slow
def test_runtime_needs_no_onnx() -> None:
    code = "import sys, planner.runtime.runner, planner.runtime.inputs; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_without_onnxruntime_the_message_names_the_package_to_install(tmp_path: Path) -> None:
    # The import really fails: a module of that name that raises shadows the installed package.
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from planner.runtime.session import BlockSession\n"
        "from planner.errors import RuntimeSessionError\n"
        "try: BlockSession(b'')\n"
        "except RuntimeSessionError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert '[cpu]"`, or the wheel' in done.stdout
