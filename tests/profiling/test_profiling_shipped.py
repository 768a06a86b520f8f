from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from planner.model.load import load_chain
from planner.model.reference import REFERENCE, build_model
from planner.profiling.device_classes import fit, known_classes, load_class
from planner.profiling.estimate import estimate, workloads
from planner.profiling.store import load_profile, profile_path
from planner.profiling.types import Profile
from tests.profiling.golden import MEASURED_CLASS, SHIPPED, TRAINED, trained_points

REGENERATE = "run `python -m tests.profiling.golden measured`"
SLOW = {"resnet50", "gpt2"}
MODELS = [
    pytest.param(name, marks=[pytest.mark.nightly] if name in SLOW else []) for name in (*REFERENCE, TRAINED.stem)
]


def shipped() -> dict[str, dict[str, Profile]]:
    profiles: defaultdict[str, dict[str, Profile]] = defaultdict(dict)
    for path in sorted(SHIPPED.glob("*/*.json")):
        profile = load_profile(path)
        assert path == profile_path(SHIPPED, profile.device_class, profile.model.name)
        profiles[profile.model.name][profile.device_class] = profile
    return profiles


def test_every_model_has_a_profile_on_every_class() -> None:
    expected = {MEASURED_CLASS, *known_classes()}
    profiles = shipped()
    for name in (*REFERENCE, TRAINED.stem):
        assert set(profiles[name]) == expected, f"{name}: {REGENERATE}"


def test_profiles_of_one_model_agree_on_its_chain() -> None:
    for name, by_class in shipped().items():
        chains = {(profile.chain_sha256, profile.cut_bytes, profile.exits) for profile in by_class.values()}
        assert len(chains) == 1, f"{name}: {REGENERATE}"


def test_measured_profiles_are_marked_and_accurate() -> None:
    for by_class in shipped().values():
        for device_class, profile in by_class.items():
            assert profile.provenance == ("measured" if device_class == MEASURED_CLASS else "estimated")
            if profile.provenance == "measured":
                assert profile.segment_error is not None
                assert profile.segment_error.median <= 0.05
                assert profile.segment_error.p95 <= 0.10


@pytest.mark.parametrize("name", MODELS)
def test_shipped_profiles_match_the_current_chain(name: str, tmp_path: Path) -> None:
    model = load_chain(TRAINED if name == TRAINED.stem else build_model(name, tmp_path / f"{name}.onnx"))
    by_class = shipped()[name]
    assert by_class[MEASURED_CLASS].chain_sha256 == model.chain.chain_sha256, REGENERATE
    works = workloads(model)
    for device_class in known_classes():
        current, stored = estimate(model, load_class(device_class), works=works), by_class[device_class]
        assert current.chain_sha256 == stored.chain_sha256, REGENERATE
        assert [block.mean_s for block in stored.blocks] == pytest.approx([block.mean_s for block in current.blocks]), (
            REGENERATE
        )


def test_operating_points_of_the_trained_model() -> None:
    by_class = shipped()[TRAINED.stem]
    points = trained_points(load_chain(TRAINED).chain)
    assert all(profile.operating_points == points for profile in by_class.values()), REGENERATE
    assert len(points) >= 5
    results = json.loads(TRAINED.with_suffix(".json").read_text())["test"]["accuracy"]
    assert points[0].accuracy >= results["output"]
    assert points[-1].accuracy == results["exit1"]


def test_the_readme_states_the_current_fits() -> None:
    text = (SHIPPED / "README.md").read_text()
    for name in known_classes():
        device_class = load_class(name)
        roofline = fit(device_class)
        errors = np.abs(roofline.errors)
        shares = (roofline.flop_per_s / device_class.peak_flop_per_s, float(np.median(errors)), float(errors.max()))
        row = " | ".join([name, str(len(errors)), *(f"{share:.0%}".replace("%", " %") for share in shares)])
        assert f"| {row} |" in text
