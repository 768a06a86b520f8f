"""Scenarios read from files and built in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.errors import PlanError, ProfileError, ScenarioError
from planner.scenario.load import load_instance
from tests.execution.case import write_case

DATA: dict[str, Any] = {
    "profiles": ["profiles"],
    "models": {"small": {"path": "small.onnx", "max_blocks": 3}},
    "workers": {
        "a": {"device_class": "reference", "memory": "1 GiB"},
        "b": {"device_class": "reference", "memory": "1 GiB", "speed": 2.0},
    },
    "networks": {"lan": {"kind": "shared", "members": ["a", "b"], "bandwidth": "80 Mbit/s", "latency": "1 ms"}},
    "sources": {
        "urgent": {"worker": "a", "models": ["small"], "rate": "40 /s", "priority": 8, "samples": 30},
        "other": {"worker": "a", "models": ["small"], "rate": "40 /s", "priority": 1, "samples": 30},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case")).parent


def test_built_in_python_it_is_the_same_as_from_its_file(folder: Path) -> None:
    built = planner.Scenario.from_dict(DATA, folder=folder)
    loaded = planner.load_scenario(folder / "scenario.yaml")
    assert built.instance == loaded.instance == load_instance(str(folder / "scenario.yaml"))
    assert planner.Scenario.from_dict(loaded.to_dict(), folder=folder).instance == built.instance
    assert built.path is None
    assert "urgent" in built.summary()
    assert "80 Mbit/s" in str(built)
    assert "<td>urgent</td>" in built._repr_html_()
    assert len(repr(built).splitlines()) == 1


def test_saved_elsewhere_it_leads_to_the_same_files(folder: Path, tmp_path: Path) -> None:
    built = planner.Scenario.from_dict(DATA, folder=folder)
    path = tmp_path / "deep" / "scenario.yaml"
    assert built.save(str(path)) == path
    again = planner.load_scenario(path)
    assert again.instance.profiles == built.instance.profiles
    assert again.load_models().keys() == {"small"}
    assert built.to_dict() == again.to_dict()
    assert built.file() == again.file()


def test_values_of_numpy_and_paths_are_taken(folder: Path) -> None:
    data = DATA | {
        "profiles": (folder / "profiles",),
        "sources": {"urgent": DATA["sources"]["urgent"] | {"priority": np.float32(8), "samples": np.int64(30)}},
    }
    built = planner.Scenario.from_dict(data, folder=folder)
    assert built.spec.sources["urgent"].samples == 30
    assert built.spec.sources["urgent"].priority == 8.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"workers": {"a": {"device_class": "reference", "memory": 5}}},
            "workers.a.memory: a bare number needs a unit",
        ),
        ({"networks": {1: {}}}, "networks[1]: a key must be text; found 1"),
        ({"routes": {}}, "routes: unknown key; found 'routes'"),
    ],
)
def test_errors_name_the_key(change: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        planner.Scenario.from_dict(DATA | change, folder=folder)
    assert message in str(caught.value)


def test_a_missing_profile_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"models\.small: no profile of 'small' on device class 'reference'"):
        planner.Scenario.from_dict(DATA, folder=tmp_path)


def test_a_plan_needs_a_scenario_with_a_file(folder: Path, tmp_path: Path) -> None:
    plan = planner.solve(planner.Scenario.from_dict(DATA, folder=folder), progress=None)
    with pytest.raises(PlanError, match=r"the scenario has no file; expected scenario\.save\(PATH\) first"):
        plan.save(tmp_path / "plan.json")
    plan.scenario.save(tmp_path / "scenario.yaml")
    plan.save(tmp_path / "plan.json")
    assert planner.load_plan(tmp_path / "plan.json").sources == plan.sources
