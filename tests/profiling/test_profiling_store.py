from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import ProfileError
from planner.profiling.store import load_profile, profile_path, save_profile
from tests.profiling.small_chain import profile

POINT = {"name": "p", "accuracy": 0.9, "thresholds": [0.5], "reach": [1.0, 0.5]}


def document() -> dict[str, Any]:
    contents: dict[str, Any] = profile().model_dump(mode="json", by_alias=True)
    return contents


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "here" / "small.json"
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_save_and_load(tmp_path: Path) -> None:
    path = profile_path(tmp_path, "here", "small")
    save_profile(profile(), path)
    assert path == tmp_path / "here" / "small.json"
    assert load_profile(path) == profile()
    assert json.loads(path.read_text())["schema"] == "planner/profile/v1"
    assert [entry.name for entry in path.parent.iterdir()] == ["small.json"]


def test_a_missing_profile_names_the_pair_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path / "jetson-nano" / "resnet50.json")
    assert "no profile of resnet50 on jetson-nano" in str(caught.value)
    assert "planner profile measure resnet50.onnx --device-class jetson-nano -o" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", '"text"', "[1]"])
def test_not_a_profile(tmp_path: Path, content: str) -> None:
    with pytest.raises(ProfileError, match=r"small\.json.*(not JSON|not a profile)"):
        load_profile(write(tmp_path, content))


def test_not_text(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not JSON"):
        load_profile(path)


def test_a_folder_is_not_a_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)


def test_another_version(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"schema: not a profile of this version; found 'planner/profile/v9'"):
        load_profile(write(tmp_path, document() | {"schema": "planner/profile/v9"}))


def test_all_faults_at_once_each_with_its_key(tmp_path: Path) -> None:
    changed = document()
    changed["blocks"][1]["mean_s"] = -1
    del changed["blocks"][0]["load_s"]
    changed["stage_overhead_s"] = "quick"
    changed["colour"] = "red"
    path = write(tmp_path, changed)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    keys = {str(fault.where).removeprefix(f"{path}: ") for fault in caught.value.faults}
    assert keys == {"blocks[1].mean_s", "blocks[0].load_s", "stage_overhead_s", "colour"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cut_bytes", [1, 2], "cut_bytes has 2 entries; 2 blocks have 3 cuts"),
        ("fusion_saving_s", [0.1, 0.2], "fusion_saving_s has 2 entries; expected 1"),
        ("fusion_saving_s", [float("nan")], "finite"),
        ("provenance", "guessed", "provenance"),
        (
            "exits",
            [{"name": "e", "cut": 2, "result_bytes": 4}],
            r"exits are at cuts \[2\]; 2 blocks have the inner cuts 1",
        ),
        ("exits", [], "operating point 'half' has 1 thresholds for 0 exits"),
        ("operating_points", [POINT | {"reach": [1.0]}], "has 1 reaches for 2 blocks"),
        ("operating_points", [POINT | {"reach": [1.0, 1.5]}], r"operating_points\[0\]\.reach\[1\]"),
        ("operating_points", [POINT | {"reach": [0.5, 0.7]}], "the reach of the first block must be 1, not 0.5"),
        ("operating_points", [POINT | {"thresholds": [1.2]}], r"operating_points\[0\]\.thresholds\[0\]"),
    ],
)
def test_wrong_values(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(write(tmp_path, document() | {key: value}))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "true", '"0.1"', "-1", "null", "9" * 400])
@pytest.mark.parametrize("key", ["mean_s", "std_s", "load_s", "flop", "weight_bytes", "activation_bytes", "parameters"])
def test_numbers_of_a_block_are_finite_numbers(tmp_path: Path, key: str, value: str) -> None:
    changed = document()
    changed["blocks"][1][key] = "ODD"
    with pytest.raises(ProfileError, match=rf"blocks\[1\]\.{key}"):
        load_profile(write(tmp_path, json.dumps(changed).replace('"ODD"', value)))


@pytest.mark.parametrize("value", [-1, True, "128", 1.5, 2**63])
def test_sizes_at_cuts_are_whole_numbers(tmp_path: Path, value: object) -> None:
    with pytest.raises(ProfileError, match=r"cut_bytes\[1\]"):
        load_profile(write(tmp_path, document() | {"cut_bytes": [128, value, 128]}))


@pytest.mark.parametrize("name", ["..", "../../x", "/x", "a/b", "", "x" * 300])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    for words in ((name, "m"), ("d", name)):
        with pytest.raises(ProfileError, match="cannot be that of a file"):
            profile_path("profiles", *words)


@pytest.mark.parametrize(
    "environment", [{"fit": 3}, {"fit": {"figures": "x"}}, {"warnings": 5}, {"warnings": [1]}, {"warnings": "text"}]
)
def test_entries_of_an_environment_that_are_used_are_checked(environment: dict[str, object], tmp_path: Path) -> None:
    document = profile().model_dump(mode="json", by_alias=True) | {"environment": environment}
    (tmp_path / "p.json").write_text(json.dumps(document))
    with pytest.raises(ProfileError, match="environment"):
        load_profile(tmp_path / "p.json")


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "profiles").glob("*/*.json")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_a_shipped_profile_is_as_it_would_be_written_now(path: Path, tmp_path: Path) -> None:
    save_profile(load_profile(path), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == path.read_text()
