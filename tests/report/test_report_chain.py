"""Pictures of a chain and of a profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.model.load import load_chain
from planner.profiling.store import load_profile
from planner.report.chain import draw_chain
from planner.report.profile import draw_profile

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_picture_of_a_chain_shows_exits_and_is_reproducible_in_each_format(tmp_path: Path, kind: str) -> None:
    model = load_chain(ROOT / "models/resnet56-exits-fashion.onnx")
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        draw_chain(model, path)
    drawn = paths[0].read_bytes()
    assert drawn == paths[1].read_bytes()
    assert drawn.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")
    if kind == "svg":
        text = drawn.decode()
        labels = ("resnet56-exits-fashion: 8 blocks", "block border", "early exit", "Work of each node [MFLOP]")
        assert all(text.count(f">{label}<") == 1 for label in labels)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_picture_of_a_profile_is_reproducible_in_each_format(tmp_path: Path, kind: str) -> None:
    profile = load_profile(ROOT / "profiles/x86-64/mobilenetv2.json")
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        draw_profile(profile, path)
    drawn = paths[0].read_bytes()
    assert drawn == paths[1].read_bytes()
    assert drawn.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")
    assert kind == "png" or ">mobilenetv2 on x86-64 (measured)<" in drawn.decode()
