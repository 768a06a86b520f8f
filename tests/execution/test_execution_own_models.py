"""Agents warm up and run models whose inner cuts are crossed by indices, shapes and empty tensors."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from planner.errors import RuntimeSessionError
from planner.execution.coordinator.deployment import Deployment, deploy
from planner.execution.coordinator.run_result import RunResult
from planner.execution.session.session import LiveSession
from planner.execution.wire.frames import Tensors
from planner.model.load import ChainModel, load_chain
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.runtime.session import BlockSession
from planner.trace.records import SampleRecord
from planner.validation.validate import validate
from tests.execution.rig import agents_in_threads
from tests.instances import make_instance, make_profile
from tests.model.chained import INT64, floats, save, value
from tests.model.indexed import WRITERS, load, node, picky

WORKERS = "abc"
SAMPLES = 4


def deployment_of(model: ChainModel, sent: Sequence[Tensors] = ()) -> Deployment:
    """Return a deployment whose blocks run in turn on three workers; the first is the source's."""
    length, name = len(model.chain), "m"
    profile = make_profile(name, block_s=[0.001] * length, cut_bytes=[cut.bytes for cut in model.chain.cuts])
    instance = make_instance(
        profiles=[profile],
        workers=dict.fromkeys(WORKERS, 1.0),
        sources={"s": {"models": [name], "rate_per_s": 100.0, "samples": SAMPLES}},
    )
    stages = [Stage(worker=WORKERS[block % 3], first_block=block, last_block=block) for block in range(length)]
    source = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model=name, stages=tuple(stages)),)
    )
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"s": source}, workers={}, networks={},
    )  # fmt: skip
    return deploy(instance, plan, {name: model}, policy="planned", sent={"s": sent} if sent else {})


def run(deployment: Deployment, folder: Path) -> RunResult:
    with agents_in_threads(deployment.instance.workers, folder) as coordinator:
        return coordinator.run(deployment, ready_timeout_s=30.0)


def assert_right(model: ChainModel, deployment: Deployment, result: RunResult) -> None:
    """Assert that every sample has the outputs of the whole model, and that every block was warmed up."""
    whole, inputs = BlockSession(model.model_bytes()), deployment.inputs("s")
    assert len(result.outputs) == SAMPLES
    for (_, sample), outputs in result.outputs.items():
        for name, expected in whole.run(inputs[sample % len(inputs)]).items():
            assert outputs[name].shape == expected.shape
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-3, atol=1e-5)
    assert result.incidents == []
    warm_s = np.array([result.warm_block_s[worker]["m"] for worker in WORKERS])
    assert (warm_s.max(axis=0) > 0).all()


@pytest.mark.parametrize("name", WRITERS)
def test_models_with_indices_run_on_agents(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    assert len(model.chain) >= 2
    deployment = deployment_of(model)
    assert_right(model, deployment, run(deployment, tmp_path))


def test_a_real_exported_model_runs_on_agents(tmp_path: Path) -> None:
    """Magika reads bytes as indices, and reshapes to a shape that it computes."""
    file = importlib.resources.files("magika") / "models/standard_v3_3/model.onnx"
    model = load_chain(Path(str(file)), shape={"bytes": [1, 2048]})
    deployment = deployment_of(model)
    assert_right(model, deployment, run(deployment, tmp_path))


def table_behind_a_product(folder: Path, *, last: bool = False) -> ChainModel:
    """Return a model whose index no analysis can bound: it is a product, rounded. Its lookup may be its last block."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("MatMul", ["a", "v"], ["b"]),
        node("Cast", ["b"], ["i"], to=INT64),
        node("Gather", ["table", "i"], ["y" if last else "c"]),
        *([] if last else [node("MatMul", ["c", "u"], ["y"])]),
    ]
    weights = {
        "w": np.eye(2, dtype=np.float32),
        "v": np.eye(2, dtype=np.float32),
        "table": floats(5, 3),
        "u": floats(3, 3),
    }
    return load_chain(
        save(folder / "m.onnx", nodes, [value("x", [1, 2])], [value("y", [1, 2, 3])], weights), max_blocks=None
    )


@pytest.mark.parametrize("last", [True, False], ids=["at an agent", "at the coordinator"])
def test_a_warm_up_that_fails_is_reported_and_not_fatal(*, last: bool, tmp_path: Path) -> None:
    model = table_behind_a_product(tmp_path, last=last)
    good = [{"x": np.array([[index, 4 - index]], np.float32)} for index in range(1, SAMPLES)]
    bad = {"x": np.full((1, 2), 70, np.float32)}
    deployment = deployment_of(model, [bad, *good])
    result = run(deployment, tmp_path)
    ended = {record.sample: record.status for record in result.records if isinstance(record, SampleRecord)}
    assert ended == {0: "failed"} | dict.fromkeys(range(1, SAMPLES), "completed")
    whole = BlockSession(model.model_bytes())
    for (_, sample), outputs in result.outputs.items():
        np.testing.assert_allclose(outputs["y"], whole.run(good[sample - 1])["y"], rtol=1e-5)
    lookup = WORKERS[(len(model.chain) - (1 if last else 2)) % 3]
    told = [incident.worker for incident in result.incidents if "warm" in incident.what]
    assert told == ([lookup] if last else ["", lookup])


def test_the_first_sample_that_is_sent_is_what_agents_warm_up_with(tmp_path: Path) -> None:
    model = table_behind_a_product(tmp_path)
    deployment = deployment_of(model, [{"x": np.array([[3, 4]], np.float32)}])
    assert_right(model, deployment, run(deployment, tmp_path))


@pytest.mark.parametrize("told", [True, False])
def test_a_session_warms_up_with_the_sample_that_it_is_told(*, told: bool, tmp_path: Path) -> None:
    model = load_chain(picky(tmp_path / "m.onnx"), max_blocks=None)
    deployment = dataclasses.replace(deployment_of(model), live=True)
    sample = {"speaker": np.zeros((1, 1), np.int64)}
    session = LiveSession(deployment, agents_in_threads(deployment.instance.workers, tmp_path))
    if told:
        session.source("s").warm_up(sample)
    with session:
        outputs = session.source("s").submit(sample).result(timeout=30.0).outputs
    np.testing.assert_allclose(outputs["y"], BlockSession(model.model_bytes()).run(sample)["y"], rtol=1e-5)
    assert bool(deployment.warm_up.problems) != told


def test_a_validation_that_no_drawn_input_fits_says_how_to_give_real_ones(tmp_path: Path) -> None:
    model = load_chain(picky(tmp_path / "m.onnx"), max_blocks=None)
    deployment = deployment_of(model)
    agents = agents_in_threads(deployment.instance.workers, tmp_path)
    with pytest.raises(RuntimeSessionError, match=r"with --source NAME=SAMPLES; drawn were speaker in 0\.\.1"):
        validate(deployment, {"m": model}, agents)
