"""Runs that are recorded and replayed; here on the CPU provider, which takes the option and records nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.errors import RuntimeSessionError
from planner.runtime import graph_runs
from planner.runtime import session as sessions
from planner.runtime.providers import PROVIDERS, Provider, find_provider, import_onnxruntime, onnxruntime_version
from planner.runtime.runner import ChainRunner
from planner.runtime.session import BlockSession, download, upload
from tests.runtime.small_model import CUT_TENSORS, SHAPE, blocks

RECORDING = Provider("recording", ("CPUExecutionProvider",), device="cpu", graph_options={"enable_cuda_graph": "1"})
PLAIN = Provider("plain", ("CPUExecutionProvider",), device="cpu")
NEEDS_COPIES = pytest.mark.skipif(
    not graph_runs.copies_on_device(onnxruntime_version()), reason="onnxruntime 1.26 or later records runs"
)
GPU = "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    graph_runs._said.clear()
    yield
    graph_runs._said.clear()


def inputs(seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)}


def recorded(session: BlockSession) -> graph_runs.GraphRuns:
    assert session._graph is not None
    return session._graph


@NEEDS_COPIES
def test_inputs_and_outputs_are_bound_once_and_each_run_has_outputs_of_its_own() -> None:
    session, plain = BlockSession(blocks()[0], provider=RECORDING), BlockSession(blocks()[0])
    places = {name: place.data_ptr() for name, (_, place) in recorded(session)._inputs.items()}
    kept = [session.run_on_device(upload(inputs(seed), RECORDING)) for seed in range(5)]
    for seed, made in enumerate(kept):
        assert np.array_equal(download(made)["a"], plain.run(inputs(seed))["a"])
    assert len({made["a"].data_ptr() for made in kept}) == 5
    assert {name: place.data_ptr() for name, (_, place) in recorded(session)._inputs.items()} == places
    assert np.array_equal(session.run(inputs(7))["a"], plain.run(inputs(7))["a"])  # from host memory


@NEEDS_COPIES
def test_outputs_that_no_one_holds_any_more_are_used_again() -> None:
    session = BlockSession(blocks()[0], provider=RECORDING)
    for seed in range(10):
        made = session.run_on_device(inputs(seed))
    assert len(recorded(session)._pool) == 2  # that of the last run is held while the next one runs
    held = [made, *(session.run_on_device(inputs(seed)) for seed in range(3))]
    assert len(recorded(session)._pool) == 4
    assert len({each["a"].data_ptr() for each in held}) == 4


@NEEDS_COPIES
def test_stages_of_recorded_blocks_and_tensors_that_pass_by_come_out_as_without() -> None:
    runners = [ChainRunner(CUT_TENSORS, provider=provider) for provider in (RECORDING, PLAIN)]
    for runner in runners:
        for index, model in enumerate(blocks()):
            runner.load(index, model)
    for seed in range(3):
        found, expected = (runner.run_segment(0, 2, inputs(seed)) for runner in runners)
        assert np.array_equal(found["y"], expected["y"])


@pytest.mark.parametrize(
    "wrong", [np.ones((2, 4), np.float32), np.ones(SHAPE, np.float64), np.ones((4, 1), np.float32)]
)
@NEEDS_COPIES
def test_inputs_that_do_not_fit_are_refused_in_words_and_do_not_end_recorded_runs(wrong: Any) -> None:
    session = BlockSession(blocks()[0], provider=RECORDING)
    session.run(inputs(0))
    with pytest.raises(RuntimeSessionError, match="input x: wrong"):
        session.run({"x": wrong})
    with pytest.raises(RuntimeSessionError, match="input x: input is missing"):
        session.run({})
    assert recorded(session).on


def open_model() -> bytes:
    """Return a model with a first axis of any length."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_an_onnxruntime_that_cannot_copy_on_a_device_runs_plainly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(import_onnxruntime(), "__version__", "1.25.3")
    with caplog.at_level(logging.WARNING):
        session = BlockSession(blocks()[0], name="m", provider=RECORDING)
    assert session._graph is None
    assert caplog.messages == ["m: no recorded runs, but plain ones: onnxruntime 1.25.3 is older than 1.26"]
    assert np.array_equal(session.run(inputs(1))["a"], BlockSession(blocks()[0]).run(inputs(1))["a"])


@pytest.mark.parametrize(
    ("version", "copies"), [("1.9.0", False), ("1.25.1", False), ("1.26.0", True), ("1.31.1+cu13", True), ("2.0", True)]
)
def test_versions_are_compared_as_numbers(version: str, *, copies: bool) -> None:
    assert graph_runs.copies_on_device(version) == copies


def test_a_model_with_an_open_shape_runs_plainly_whatever_the_length() -> None:
    session = BlockSession(open_model(), provider=RECORDING)
    assert session._graph is None
    for length in (1, 3):
        assert session.run({"x": np.full((length, 4), -1, np.float32)})["y"].shape == (length, 4)


@NEEDS_COPIES
def test_a_session_that_may_not_record_runs_plainly_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = import_onnxruntime()

    class Refusing(library.InferenceSession):  # type: ignore[misc,name-defined]
        def __init__(self, model: Any, options: Any, providers: Any) -> None:
            if "enable_cuda_graph" in providers[0][1]:
                raise RuntimeError("This session cannot use the graph capture feature\nmore")
            super().__init__(model, options, providers=providers)

    monkeypatch.setattr(library, "InferenceSession", Refusing)
    with caplog.at_level(logging.WARNING):
        found = [BlockSession(model, name="m", provider=RECORDING) for model in blocks()[:2]]
    assert [session._graph for session in found] == [None, None]
    assert caplog.messages == ["m: no recorded runs, but plain ones: This session cannot use the graph capture feature"]
    assert np.array_equal(found[0].run(inputs(1))["a"], BlockSession(blocks()[0]).run(inputs(1))["a"])
    with pytest.raises(RuntimeSessionError, match="onnxruntime rejects the model"):
        BlockSession(b"no model", provider=RECORDING)


class Spoilt:
    """A session some of whose recorded runs fail or have other outputs."""

    def __init__(self, session: Any, options: Any, run: Any) -> None:
        self._session, self._options, self._run = session, options, run

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._session.run_with_iobinding(binding, options)
        if options is self._options:
            self._run()


@pytest.mark.parametrize("fails_at", [0, 1, 4], ids=["recording", "first replay", "later"])
@NEEDS_COPIES
def test_recorded_runs_that_fail_are_made_plainly_and_never_again(
    fails_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    session, plain = BlockSession(blocks()[0], name="m", provider=RECORDING), BlockSession(blocks()[0])
    calls = iter(range(100))

    def run() -> None:
        if next(calls) == fails_at:
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

    runs = recorded(session)
    runs._session = Spoilt(runs._session, runs._options, run)
    for seed in range(6):
        assert np.array_equal(session.run(inputs(seed))["a"], plain.run(inputs(seed))["a"])
    assert not runs.on
    assert next(calls) == fails_at + 1
    assert [message for message in caplog.messages if "no recorded runs" in message] == [
        "m: no recorded runs, but plain ones: CUDA failure 900: operation not permitted when stream is capturing"
    ]


@NEEDS_COPIES
def test_recorded_runs_with_other_outputs_are_not_relied_on(caplog: pytest.LogCaptureFixture) -> None:
    session, plain = BlockSession(blocks()[0], name="m", provider=RECORDING), BlockSession(blocks()[0])
    runs = recorded(session)
    place = runs._outputs["a"]
    runs._session = Spoilt(
        runs._session, runs._options, lambda: place.update_inplace(np.ones(SHAPE, np.float32))
    )  # fmt: skip
    for seed in range(2):
        assert np.array_equal(session.run(inputs(seed))["a"], plain.run(inputs(seed))["a"])
    assert not runs.on
    assert "a replayed run has other outputs" in caplog.text


def test_a_user_may_turn_recorded_runs_off() -> None:
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert find_provider("cuda", offered).graph_options == {"enable_cuda_graph": "1"}
    assert find_provider("cuda", offered).for_session[0][1] == {}
    off = find_provider("cuda?enable_cuda_graph=0&device_id=1", offered)
    assert (off.graph_options, off.options) == ({}, {"device_id": "1"})
    asked = find_provider("cuda-fp32?enable_cuda_graph=1", offered)
    assert (dict(asked.graph_options), asked.options) == ({"enable_cuda_graph": "1"}, {"use_tf32": "0"})
    assert not any(provider.graph_options for provider in PROVIDERS.values() if provider.device != "cuda")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("status 6\nFailed to allocate memory for requested buffer of size 1073741824", "it needed 1.0 GiB more"),
        ("CUDA failure 2: out of memory ; GPU=0", "it needed memory more"),
    ],
)  # fmt: skip
def test_a_device_without_room_is_said_with_what_was_needed(text: str, needed: str) -> None:
    found = sessions._no_room(RuntimeError(text), "block 3")
    assert found is not None
    assert needed in str(found)
    assert "block 3" in str(found)
    assert sessions._no_room(RuntimeError("bad node"), "block 3") is None


@pytest.mark.skipif(not GPU, reason="this onnxruntime has no CUDA provider")
@NEEDS_COPIES
def test_recorded_runs_on_a_gpu_come_out_as_plain_ones() -> None:
    recording, plain = (
        BlockSession(blocks()[0], provider=name) for name in ("cuda-fp32", "cuda-fp32?enable_cuda_graph=0")
    )
    for seed in range(5):
        assert np.allclose(recording.run(inputs(seed))["a"], plain.run(inputs(seed))["a"], rtol=1e-5)
    assert recorded(recording).on
    assert plain._graph is None
