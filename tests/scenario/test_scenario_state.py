"""State that a scenario names is looked for in the model's file, wherever that is at hand, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import planner
from planner.errors import ScenarioError
from tests.cli.command import planner as run_command
from tests.model.decoder_models import EXPORTS

MODEL = EXPORTS / "llama-fp32" / "model.onnx"
SCENARIO = """
schema: planner/scenario/v1
profiles: [.]
models:
  llama: {{path: {path}, state: {state}}}
workers:
  a: {{device_class: here, memory: 1 GiB}}
sources:
  s: {{worker: a, models: [llama], rate: 1 /s}}
"""
KEY, VALUE = "past_key_values.0.key", "past_key_values.0.value"


def write(folder: Path, state: str, path: Path = MODEL) -> Path:
    file = folder / "scenario.yaml"
    file.write_text(SCENARIO.format(path=path, state=state), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("{past: present.0.key}", r"unknown input of model.onnx; found 'past'; expected one of input_ids"),
        (f"{{{KEY}: present}}", r"unknown output of model.onnx; found 'present'; expected one of logits"),
        (f"{{{KEY}: present.0.key, {VALUE}: present.0.key}}", r"two inputs have the same state"),
        (f"{{{KEY}: logits}}", r"does not fit 'logits' of model.onnx; found 'float .*; expected equal types"),
        ("{attention_mask: present.0.key}", r"does not fit 'present.0.key'"),
    ],
)
def test_state_that_a_model_does_not_have_is_refused(tmp_path: Path, state: str, fault: str) -> None:
    file = write(tmp_path, state)
    with pytest.raises(ScenarioError, match=fault) as raised:
        planner.load_scenario(file)
    assert f"{file}:5" in str(raised.value)
    done = run_command("solve", file, "-o", tmp_path / "plan.json")
    assert done.returncode == 2
    assert "model.onnx" in done.stderr


@pytest.mark.parametrize("state", [f"{{{KEY}: present.0.key}}", "{}"])
def test_state_that_it_has_or_a_file_elsewhere_passes(tmp_path: Path, state: str) -> None:
    with pytest.raises(planner.PlannerError, match="no profile"):
        planner.load_scenario(write(tmp_path, state))
    with pytest.raises(planner.PlannerError, match="no profile"):
        planner.load_scenario(write(tmp_path, "{past: present}", tmp_path / "elsewhere.onnx"))
