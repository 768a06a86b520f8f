"""Models and profiles from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import planner
from planner.errors import ModelError, ProfileError, UsageError
from tests.execution.case import small_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


def test_inspect(model: Path, tmp_path: Path) -> None:
    chain = planner.inspect(str(model), max_blocks=3)
    assert len(chain.blocks) == 3
    assert "small: 3 blocks" in chain.summary()
    assert "x [1, 32]" not in chain.summary()  # what crosses the first cut is the input
    assert "pick [1]" in chain.summary()
    assert chain.to_dict()["chain_sha256"] == chain.chain.chain_sha256
    chain.plot(tmp_path / "chain.svg")
    assert planner.inspect(planner.load_chain(str(model), max_blocks=3)).to_dict() == chain.to_dict()


def test_of_many_tensors_at_a_cut_the_largest_are_named(tmp_path: Path) -> None:
    """Such as what an unrolled recurrence hands on: one small tensor for each step."""
    sides = [helper.make_node("Slice", ["x", f"from{step}", f"to{step}", "axes"], [f"s{step}"]) for step in range(6)]
    ends = {f"{name}{step}": [step + more] for step in range(6) for name, more in (("from", 0), ("to", 1))}
    nodes = [
        *sides,
        helper.make_node("Relu", ["x"], ["large"]),
        helper.make_node("Concat", [*(f"s{step}" for step in range(6)), "large"], ["y"], axis=1),
    ]
    x, y = (helper.make_tensor_value_info(name, 1, [1, size]) for name, size in (("x", 32), ("y", 38)))
    constants = [
        numpy_helper.from_array(np.array(array, np.int64), name) for name, array in {**ends, "axes": [1]}.items()
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    chain = planner.inspect(tmp_path / "m.onnx", max_blocks=8)
    widest = max(chain.chain.cuts, key=lambda cut: len(cut.tensors))
    assert len(widest.tensors) > 4
    assert f"and {len(widest.tensors) - 3} more" in " ".join(chain.summary().replace("│", " ").split())


def test_split(model: Path, tmp_path: Path) -> None:
    stages = planner.split(model, cuts=[2, 1, 2], folder=str(tmp_path / "parts"), max_blocks=3)
    assert stages.passed
    assert [file.is_file() for file in stages.files] == [True] * 3
    assert "bit-equal" in str(stages)
    assert planner.split(model, cuts=[1], folder=tmp_path / "other", max_blocks=3, check=False).passed is None
    for cuts in ([3], [0], [-1]):
        with pytest.raises(ModelError, match="no such cut"):
            planner.split(model, cuts=cuts, folder=tmp_path / "none", max_blocks=3)


def test_a_profile_is_measured_saved_scaled_and_compared(model: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, float, float | None]] = []
    profile = planner.profile(
        str(model),
        device_class="here",
        rounds=3,
        budget_s=1.0,
        max_blocks=3,
        progress=lambda *state: heard.append(state),
    )
    assert heard[-1] == ("measuring small", 1, 1)
    assert len(profile.blocks) == 3
    assert repr(profile).startswith("<Profile of small on here: 3 blocks")
    assert "small on here (measured)" in profile.summary()
    assert "<td>" in profile._repr_html_()
    path = tmp_path / "profiles" / "here" / "small.json"
    planner.save_profile(profile, str(path))
    assert planner.load_profile(str(path)) == profile
    slower = planner.scale(path, 2.0, device_class="there")
    difference = planner.diff(profile, slower)
    assert difference.ratio == pytest.approx(2.0)
    assert "2.00" in difference.summary()
    assert difference.to_dict()["ratio"] == difference.ratio


def test_a_profile_is_estimated(model: Path) -> None:
    estimated = planner.estimate(model, device_class="jetson-nano", max_blocks=3)
    assert estimated.provenance == "estimated"
    with pytest.raises(ProfileError):
        planner.estimate(model, device_class="toaster", max_blocks=3)
    with pytest.raises(UsageError, match="no device class given"):
        planner.profile(model, device_class="", max_blocks=3, progress=None)


def test_operating_points_come_from_labelled_samples(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "models"
    model = planner.load_chain(folder / "resnet56-exits-fashion.onnx")
    (spec,) = model.chain.cuts[0].tensors
    images = np.random.default_rng(0).standard_normal((12, *spec.shape[1:])).astype(np.float32)
    arrays: dict[str, Any] = {spec.name: images, "label": np.arange(12) % 10}
    np.savez(tmp_path / "data.npz", **arrays)
    recorded = tmp_path / "predictions.npz"
    points = planner.calibrate(
        model, str(tmp_path / "data.npz"), thresholds=[0.5], predictions=str(recorded), progress=None
    )
    assert points[0].thresholds
    assert recorded.is_file()
    estimated = planner.estimate(model, device_class="jetson-nano", operating_points=points)
    assert estimated.operating_points == points


def test_a_model_is_built_where_it_is_wanted(tmp_path: Path) -> None:
    assert planner.build_model("gpt2-small", str(tmp_path / "gpt2.onnx")).is_file()
