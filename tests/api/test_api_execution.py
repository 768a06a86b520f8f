"""Plans made in Python on real agents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import planner
from planner.errors import ExecuteError, UsageError
from planner.runtime.session import BlockSession
from tests.execution.case import WIDTH, write_case


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> planner.Plan:
    """A plan that was never saved, of a scenario that was not either."""
    folder = write_case(tmp_path_factory.mktemp("case")).parent
    loaded = planner.load_scenario(folder / "scenario.yaml")
    return planner.solve(planner.Scenario.from_dict(loaded.to_dict(), folder=folder), progress=None)


def test_a_session_takes_a_plan_as_it_is(plan: planner.Plan) -> None:
    (model,) = plan.scenario.load_models().values()
    whole = BlockSession(model.model_bytes())
    inputs = {"x": np.ones((1, WIDTH), np.float32), "pick": np.array([3])}
    with planner.Session(plan, ready_timeout_s=60.0) as session:
        result = session.source("urgent").submit(inputs).result(60)
        with pytest.raises(ExecuteError, match="no such source"):
            session.source("gate")
    np.testing.assert_allclose(result.outputs["y"], whole.run(inputs)["y"], rtol=1e-4)


def test_a_session_loads_no_model_before_it_is_entered(plan: planner.Plan, tmp_path: Path) -> None:
    data = plan.scenario.to_dict()
    write_case(tmp_path)
    own = planner.solve(planner.Scenario.from_dict(data, folder=tmp_path), progress=None)
    (tmp_path / "small.onnx").unlink()
    session = planner.Session(own)
    with pytest.raises(planner.PlannerError, match=r"small\.onnx"), session:
        pass


def test_a_validation_is_a_verdict(plan: planner.Plan, tmp_path: Path) -> None:
    heard: list[tuple[str, float, float | None]] = []
    verdict = planner.validate(
        plan, paced=False, max_samples=10, tolerance=100.0, progress=lambda *state: heard.append(state)
    )
    assert verdict.sound
    assert verdict.passed
    assert verdict.to_dict()["numerics"]["samples"] == 20
    assert "Delay of each source" in str(verdict)
    assert "<caption>" in verdict._repr_html_()
    assert "passed" in repr(verdict)
    assert {"starting agents", "running"} <= {step for step, _, _ in heard}
    assert heard[-1][1:] == (1, 1)
    pictures = verdict.save(str(tmp_path))
    assert (tmp_path / "result.json").is_file()
    assert all(picture.is_file() for picture in pictures.values())
    verdict.plot(tmp_path / "delays.svg")


def test_where_a_validation_cannot_run_is_said(plan: planner.Plan) -> None:
    with pytest.raises(UsageError, match="place is 'remote'"):
        planner.validate(plan, place="remote")
    with pytest.raises(UsageError, match="place is 'local'"):
        planner.validate(plan, connect=["127.0.0.1:7447"])
    with pytest.raises(UsageError, match="place"):
        planner.validate(plan, place="moon")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing to calibrate"):
        planner.validate(plan, calibrate_s=1.0)
    with pytest.raises(UsageError, match="no such source"):
        planner.validate(plan, samples={"gate": "frames.npz"})
