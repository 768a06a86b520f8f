"""Validation of a plan with exits, on agent processes over Zenoh fed with labelled images; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.cli import main
from planner.runtime.inputs import load_arrays
from planner.trace.metrics import wilson
from planner.trace.records import SampleRecord, read_records

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "models" / "resnet56-exits-fashion.npz"
SCENARIO = f"""
schema: planner/scenario/v1
profiles: [{ROOT}/profiles]
models:
  fashion: {{path: {ROOT}/models/resnet56-exits-fashion.onnx}}
workers:
  box:    {{device_class: x86-64, memory: 512 MiB, speed: 0.04}}
  helper: {{device_class: x86-64, memory: 512 MiB, speed: 0.1}}
networks:
  lan: {{kind: shared, members: [box, helper], bandwidth: 20 Mbit/s, latency: 2 ms}}
sources:
  camera: {{worker: box, models: [fashion], rate: 12 /s, samples: 60, min_accuracy: 90 %}}
  other: {{worker: helper, models: [fashion], rate: 4 /s, samples: 12}}
objective: {{goal: delay, accuracy_worth: 5 ms}}
"""


def exit_code(words: list[str | Path]) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exits")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    assert (
        exit_code(["solve", folder / "scenario.yaml", "-o", folder / "plan.json", "--json", "--time-limit", "3 s"]) == 0
    )
    return folder / "plan.json"


@pytest.fixture(scope="module")
def found(plan: Path) -> dict[str, Any]:
    """One source fed with labelled images, the other with random inputs."""
    words: list[str | Path] = ["validate", plan, "--local", "--tolerance", "100 %", "-o", plan.parent / "run"]
    assert exit_code([*words, "--source", f"camera={IMAGES}"]) in {0, 1}  # 1 where delays are longer, on a busy machine
    document: dict[str, Any] = json.loads((plan.parent / "run" / "result.json").read_text(encoding="utf-8"))
    return document


def test_every_result_is_that_of_its_exit(found: dict[str, Any]) -> None:
    assert found["numerics"]["samples"] == 72
    assert found["numerics"]["max_rel_error"] <= 1e-4


def test_samples_leave_where_they_were_predicted_to(found: dict[str, Any], plan: Path) -> None:
    assert (found["lost"], found["failed"]) == (0, 0)
    predicted, measured = (
        {
            (record.source, record.sample): record.origin
            for record in read_records(plan.parent / "run" / name)
            if isinstance(record, SampleRecord)
        }
        for name in ("predicted.jsonl", "measured.jsonl")
    )
    assert predicted == measured
    exits = {origin.exit for (source, _), origin in measured.items() if source == "camera" and origin is not None}
    assert len(exits) >= 2


def test_accuracy_is_measured_where_there_are_labels(found: dict[str, Any], plan: Path) -> None:
    camera, other = found["sources"]["camera"], found["sources"]["other"]
    arrays = load_arrays(IMAGES, {"correct"})
    names = ("exit1", "exit2", None)
    right = [
        bool(arrays["correct"][record.sample, names.index(record.origin.exit)])
        for record in read_records(plan.parent / "run" / "measured.jsonl")
        if isinstance(record, SampleRecord) and record.source == "camera" and record.origin is not None
    ]
    assert len(right) == 60
    assert camera["measured"]["accuracy"] == pytest.approx(np.mean(right))
    low, high = camera["accuracy_interval"]
    assert low <= camera["predicted"]["accuracy"] <= high
    assert camera["predicted"]["accuracy"] >= 0.9
    assert other["measured"]["accuracy"] is other["accuracy_interval"] is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("camera", "not the samples of a source"),
        ("gate=x.npz", "one of camera, other"),
        ("camera=absent.npz", "not an .npz file"),
    ],
)
def test_malformed_sources_are_refused(word: str, message: str, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["validate", plan, "--local", "--source", word]) == 2
    assert message in capsys.readouterr().err


def test_samples_that_do_not_fit_the_model_are_refused(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.zeros((3, 3, 32, 32), np.float32)
    cases: dict[str, dict[str, Any]] = {
        "samples do not fit this input; found 'float32 [3, 3, 28, 28]'": {"input": images[..., :28, :28]},
        "label[1]: no such class; found 10; expected 0 to 9": {"input": images, "label": np.array([0, 10, 0])},
        "label[2]: no such class; found -1": {"input": images, "label": np.array([0, 9, -1])},
        "label: not as many as in input; found 2; expected 3": {"input": images, "label": np.array([0, 9])},
    }
    for message, arrays in cases.items():
        np.savez(tmp_path / "data.npz", **arrays)
        assert exit_code(["validate", plan, "--local", "--source", f"camera={tmp_path / 'data.npz'}"]) == 2
        assert message in capsys.readouterr().err


def test_the_interval_is_wilsons() -> None:
    """Example of Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20."""
    for right, samples, bounds in ((81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611))):
        assert wilson(right / samples, samples) == pytest.approx(bounds, abs=5e-5)
    for promised in (0.842, 0.9):
        for right in range(101):
            spread = 1.959964 * (promised * (1 - promised) / 100) ** 0.5
            low, high = wilson(right / 100, 100)
            assert (low <= promised <= high) == (abs(right / 100 - promised) <= spread)
