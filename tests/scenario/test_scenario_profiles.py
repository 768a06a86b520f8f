from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import planner
from planner.cli import main
from planner.errors import ProfileError
from planner.profiling.store import FORMER_CHAIN, profile_path, save_profile
from planner.profiling.types import ExitPoint, OperatingPoint, Profile
from planner.scenario.instance import Instance
from planner.scenario.load import load_instance, load_scenario
from planner.scenario.profiles import find_profiles
from tests.instances import make_profile
from tests.scenario.examples import GOOD, changed, write


def save(folder: Path, name: str, device_class: str, **changes: object) -> Profile:
    profile = make_profile(name, block_s=(0.01, 0.02), device_class=device_class).model_copy(update=changes)
    save_profile(profile, profile_path(folder, device_class, name))
    return profile


def save_all(folder: Path) -> None:
    for name in ("mobilenetv2", "tagger"):
        for device_class in ("small", "large"):
            save(folder / "profiles", name, device_class)


def refused(path: Path, chains: dict[str, str] | None = None) -> str:
    with pytest.raises(ProfileError) as caught:
        load_instance(path, chains=chains)
    return str(caught.value)


def test_profiles_are_found_by_stem_and_by_name(tmp_path: Path) -> None:
    save_all(tmp_path)
    instance = load_instance(write(tmp_path, GOOD))
    assert {model: set(by_class) for model, by_class in instance.profiles.items()} == {
        "classifier": {"small", "large"},
        "tagger": {"small", "large"},
    }
    assert instance.block_s("classifier", "gate") == pytest.approx([0.02, 0.04])
    assert instance.block_s("classifier", "yard") == pytest.approx([0.01, 0.02])


def test_the_first_folder_that_has_a_profile_wins(tmp_path: Path) -> None:
    save_all(tmp_path)
    save(tmp_path / "own", "tagger", "small", stage_overhead_s=0.5)
    instance = load_instance(write(tmp_path, changed(("[profiles]", "[own, profiles]"))))
    assert instance.profiles["tagger"]["small"].stage_overhead_s == 0.5
    assert instance.profiles["tagger"]["large"].stage_overhead_s == 0.0


def test_missing_profiles_are_all_named_with_their_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = changed(("mobilenetv2.onnx}", "mobilenetv2.onnx, max_blocks: 4, shape: {image: [1, 3, 224, 224]}}"))
    save(tmp_path / "profiles", "mobilenetv2", "large")
    save(tmp_path / "profiles", "tagger", "large")
    assert refused(write(tmp_path, text).relative_to(tmp_path)).splitlines() == [
        "scenario.yaml:4: models.classifier: no profile of 'mobilenetv2' on device class 'small'; expected "
        "profiles/small/mobilenetv2.json; make it with: planner profile measure models/mobilenetv2.onnx "
        "--device-class small --max-blocks 4 --shape image=1,3,224,224 -o profiles/small/mobilenetv2.json",
        "scenario.yaml:5: models.tagger: no profile of 'tagger' on device class 'small'; expected "
        "profiles/small/tagger.json; make it with: planner profile measure MODEL.onnx --device-class small "
        "-o profiles/small/tagger.json",
    ]


@pytest.mark.parametrize(("most", "sizes"), [(2, "1,2"), (6, "1,2,4,6"), (8, "1,2,4,8")])
def test_the_command_measures_the_batches_that_the_scenario_wants(tmp_path: Path, most: int, sizes: str) -> None:
    path = write(tmp_path, changed(("models: [classifier],", f"models: [classifier], max_batch: {most},")))
    of_classifier, _, of_tagger, _ = refused(path).splitlines()
    assert f" --batches {sizes} " in of_classifier
    assert "--batches" not in of_tagger


def test_profiles_of_different_chains_do_not_mix(tmp_path: Path) -> None:
    save_all(tmp_path)
    save(tmp_path / "profiles", "tagger", "large", chain_sha256="another")
    save(tmp_path / "profiles", "mobilenetv2", "large", cut_bytes=(1, 2, 3))
    path = write(tmp_path, GOOD)
    expected = "; expected profiles of one model file, with the same shapes and block borders"
    assert refused(path).splitlines() == [
        f"{path}:4: models.classifier: the profiles on 'small' and 'large' are of different chains: cut_bytes differs"
        + expected,
        f"{path}:5: models.tagger: the profiles on 'small' and 'large' are of different chains: chain_sha256 differs"
        + f"{expected}; {FORMER_CHAIN}",
    ]


def test_a_profile_of_another_chain_than_the_onnx_file_is_refused(tmp_path: Path) -> None:
    save_all(tmp_path)
    path = write(tmp_path, GOOD)
    assert load_instance(path, chains={"classifier": "mobilenetv2-2"}).profiles
    assert refused(path, {"classifier": "f" * 64}) == (
        f"{path}:4: models.classifier: the profile on device class 'small' is not of the ONNX file's chain; "
        f"profile the model again; found 'mobilenetv2-2'; expected {'f' * 64}"
    )


def test_a_profile_in_the_wrong_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_all(tmp_path)
    profile_path(tmp_path / "profiles", "large", "tagger").replace(
        profile_path(tmp_path / "profiles", "small", "tagger")
    )
    save(tmp_path / "profiles", "tagger", "large")
    assert refused(write(tmp_path, GOOD).relative_to(tmp_path)) == (
        "scenario.yaml:5: models.tagger: the profile in profiles/small/tagger.json is of another device class; "
        "found 'large'; expected small"
    )


def test_a_malformed_profile_is_reported_with_the_others(tmp_path: Path) -> None:
    save_all(tmp_path)
    profile_path(tmp_path / "profiles", "small", "tagger").write_text("{}")
    profile_path(tmp_path / "profiles", "large", "mobilenetv2").unlink()
    lines = refused(write(tmp_path, GOOD)).splitlines()
    assert len(lines) == 2
    assert "no profile of 'mobilenetv2' on device class 'large'" in lines[0]
    assert "tagger.json" in lines[1]


EXITS = [{"name": "early", "cut": 1, "result_bytes": 40}]


def bad_input(words: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """What a user reads whose input is refused with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def with_point(exits: list[dict[str, Any]], thresholds: list[float], reach: list[float]) -> dict[str, Any]:
    """What to change in a profile's file."""
    points = [{"name": "p", "accuracy": 0.9, "thresholds": thresholds, "reach": reach}]
    return {"exits": exits, "operating_points": points}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (with_point(EXITS, [0.5], [1.0, 0.5, 0.6]), "operating point 'p' has 3 reaches for 2 blocks"),
        (
            with_point([{**EXITS[0], "cut": 2}], [0.5], [1.0, 0.5]),
            "exits are at cuts [2]; 2 blocks have the inner cuts",
        ),
        (with_point([], [0.5], [1.0, 1.0]), "operating point 'p' has 1 thresholds for 0 exits"),
        (with_point([], [], [1.0, 0.5]), "operating point 'p': reach falls before block 1, where no exit is"),
    ],
)
def test_exits_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    save_all(tmp_path)
    path = profile_path(tmp_path / "profiles", "small", "tagger")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found = bad_input(["solve", write(tmp_path, GOOD), "-o", tmp_path / "plan.json"], capsys)
    assert message in found
    assert "tagger.json" in found


def test_reach_that_increases_is_refused() -> None:
    exits = [ExitPoint(name="e", cut=1, result_bytes=4)]
    point = OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.5, 0.6))
    with pytest.raises(ValueError, match="operating point 'p': reach must never increase, as it does at block 2"):
        make_profile(block_s=[0.01] * 3, exits=exits, operating_points=[point])


def answers_scenario(folder: Path, **arrays: NDArray[Any]) -> Path:
    """A scenario whose tagger has an exit and these recorded predictions."""
    save_all(folder)
    point = OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.5))
    for device_class in ("small", "large"):
        exits = (ExitPoint(name="early", cut=1, result_bytes=40),)
        save(folder / "profiles", "tagger", device_class, exits=exits, operating_points=(point,))
    np.savez(folder / "answers.npz", **arrays)  # type: ignore[arg-type]  # its keywords may be arrays
    return write(folder, changed(("{profile: tagger}", "{profile: tagger, predictions: answers.npz}")))


def test_answers_are_of_the_sources_that_use_the_model(tmp_path: Path) -> None:
    confidence, correct = np.array([[0.4, 0.9], [0.8, 0.7]]), np.array([[False, True], [True, True]])
    instance = load_instance(answers_scenario(tmp_path, confidence=confidence, correct=correct, other=np.zeros(3)))
    assert {source: set(found) for source, found in instance.predictions.items()} == {"yard-camera": {"tagger"}}
    found = instance.predictions["yard-camera"]["tagger"]
    np.testing.assert_array_equal(found.confidence, confidence)
    assert found.correct is not None
    np.testing.assert_array_equal(found.correct, correct)


def test_answers_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = np.full((3, 2), 0.5)
    right = np.ones((3, 2), bool)
    cases: list[tuple[str, dict[str, NDArray[Any]]]] = [
        ("confidence: no such array; expected probabilities of shape [samples, 2]: 1 exits and", {"correct": right}),
        ("correct: no such array; expected booleans of shape [samples, 2]", {"confidence": two}),
        ("confidence: does not fit the model; found 'float64 [3, 1]'", {"confidence": two[:, :1], "correct": right}),
        ("correct: does not fit the model; found 'float64 [3, 2]'", {"confidence": two, "correct": two}),
        ("correct: not as many samples; found 2; expected 3", {"confidence": two, "correct": right[:2]}),
        ("confidence[0, 0]: not a probability; found 1.5; expected 0 to 1", {"confidence": two * 3, "correct": right}),
    ]
    for message, arrays in cases:
        found = bad_input(["simulate", answers_scenario(tmp_path, **arrays)], capsys)
        assert message in found
        assert "answers.npz" in found


def test_without_a_file_the_key_is_named(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    with pytest.raises(ProfileError, match=r"^models\.classifier: no profile of 'mobilenetv2'"):
        find_profiles(scenario, tmp_path)


def test_an_instance_travels_as_json(tmp_path: Path) -> None:
    save_all(tmp_path)
    (tmp_path / "times.txt").write_text("0\n1.5\n")
    text = changed(("arrivals: batch, samples: 20", "arrivals: trace, trace: times.txt"))
    instance = load_instance(write(tmp_path, text))
    assert instance.traces == {"yard-camera": (0.0, 1.5)}
    again = Instance.model_validate_json(instance.model_dump_json())
    assert again == instance
    assert again.resources == ("wifi", "wire:yard>hall", "wire:hall>yard")


def test_what_contradicts_the_profile_is_told_in_words(tmp_path: Path) -> None:
    environment = {"shapes": {"x": [1, 3, 8, 8], "h": [1, 4]}, "axes": {"batch": 1, "side": 8}}
    profile = make_profile("m", block_s=[0.01] * 3).model_copy(update={"environment": environment})
    save_profile(profile, profile_path(tmp_path / "profiles", profile.device_class, "m"))
    cut = {"axes": {"batch": 1, "side": 9, "other": 3}, "state": {"h": "hn", "c": "cn"}}
    scenario = {
        "profiles": ["profiles"],
        "models": {"m": {"path": "m.onnx", "max_blocks": 2, "shape": {"x": [1, 3, 9, 8]}, **cut}},
        "workers": {"w": {"device_class": profile.device_class, "memory": "1 GiB"}},
        "sources": {"s": {"worker": "w", "models": ["m"], "rate": "1 /s"}},
    }
    with pytest.raises(ProfileError) as caught:
        planner.Scenario.from_dict(scenario, folder=tmp_path)
    assert [(fault.where, fault.value) for fault in caught.value.faults] == [
        ("models.m.max_blocks", 2),
        ("models.m.shape.x", [1, 3, 9, 8]),
        ("models.m.axes.side", 9),
        ("models.m.state.h", "hn"),
    ]


def test_state_that_the_profile_has_and_the_scenario_not(tmp_path: Path) -> None:
    environment = {"shapes": {"x": [1, 8], "planner.sequence": [2]}}
    profile = make_profile("m", block_s=[0.01]).model_copy(update={"environment": environment})
    save_profile(profile, profile_path(tmp_path / "profiles", profile.device_class, "m"))
    for state, accepted in ((None, True), ({"h": "hn"}, True), ({}, False)):
        scenario = {
            "profiles": ["profiles"],
            "models": {"m": {"path": "m.onnx", "state": state}},
            "workers": {"w": {"device_class": profile.device_class, "memory": "1 GiB"}},
            "sources": {"s": {"worker": "w", "models": ["m"], "rate": "1 /s"}},
        }
        with nullcontext() if accepted else pytest.raises(ProfileError, match="--state none"):
            planner.Scenario.from_dict(scenario, folder=tmp_path)
