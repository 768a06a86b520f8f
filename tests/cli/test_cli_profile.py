from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from planner.cli import main
from planner.model.load import load_chain
from planner.model.work import KINDS
from planner.profiling.operating_points import load_samples, predict
from planner.profiling.recorded_predictions import load_predictions
from planner.profiling.store import load_profile, save_profile
from planner.profiling.types import Profile
from tests.model.batch_models import small_gpt2
from tests.model.chained import Arrays, floats, reference, save, value
from tests.model.indexed import picky
from tests.profiling.small_chain import SmallModel, profile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(SmallModel(length=4).stage_model(0, 3))
    return path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def saved(tmp_path: Path, name: str, **options: Any) -> Path:
    path = tmp_path / name
    save_profile(profile(**options), path)
    return path


def measured(model: Path, output: Path, *words: object) -> Profile:
    fixed = ("--device-class", "here", "-o", output, "--rounds", 3, "--max-blocks", 3)
    code = run("profile", "measure", model, *fixed, *words)
    assert code == 0
    return load_profile(output)


def test_a_model_that_no_drawn_input_fits_is_measured_on_real_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = picky(tmp_path / "picky.onnx")
    told = refused(capsys, "profile", "measure", path, "--device-class", "here", "-o", tmp_path / "p.json")
    assert told.endswith("expected real values, with --inputs FILE.npz; drawn were speaker in 0..1\n")
    np.savez(tmp_path / "real.npz", speaker=np.zeros((1, 1), np.int64))
    found = measured(path, tmp_path / "p.json", "--inputs", tmp_path / "real.npz")
    assert all(block.mean_s > 0 for block in found.blocks)
    capsys.readouterr()
    np.savez(tmp_path / "wrong.npz", speaker=np.zeros((1, 2), np.int32), speakers=np.zeros(1))
    words = ("--device-class", "here", "-o", tmp_path / "p.json", "--inputs", tmp_path / "wrong.npz")
    told = refused(capsys, "profile", "measure", path, *words)
    assert "not an input of the model; found 'speakers'; expected inputs named speaker" in told
    assert "input speaker: wrong dtype; found 'int32'; expected int64" in told


def test_a_block_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("ArgMax", ["m"], ["best"], axis=1),
        helper.make_node("Add", ["best", "ten"], ["row"]),
        helper.make_node("Gather", ["w", "row"], ["found"]),  # a row that is not there
        helper.make_node("MatMul", ["found", "w"], ["y"]),
    ]
    weights: Arrays = {"w": floats(10, 10), "ten": np.array([10], np.int64)}
    path = save(tmp_path / "picky.onnx", nodes, [value("x", [1, 10])], [value("y", None)], weights)
    told = refused(capsys, "profile", "measure", path, "--device-class", "here", "-o", tmp_path / "p.json")
    assert re.match(r"planner: error: picky, block \d: onnxruntime fails to run the block: .*Gather", told)
    assert told.count("\n") == 1


def test_measure_writes_a_profile(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(model, tmp_path / "p.json", "--budget", "20s", "--power-mode", "MAXN", "--threads", 2)
    assert found.device_class == "here"
    assert found.model.name == "small"
    assert 1 <= len(found.blocks) <= 3
    assert found.environment["power_mode"] == "MAXN"
    assert found.environment["threads"] == 2
    output = capsys.readouterr().out
    assert "small on here (measured)" in output
    assert f"wrote {tmp_path / 'p.json'}" in output


def test_json_is_alone_on_stdout(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(model, tmp_path / "p.json", "--json")
    assert Profile.model_validate(json.loads(capsys.readouterr().out)) == found


def test_a_profile_goes_where_scenarios_look_for_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("profile", "measure", model, "--device-class", "here", "--rounds", 3) == 0
    assert load_profile(tmp_path / "profiles" / "here" / "small.json").device_class == "here"


def test_estimate(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    assert run("profile", "estimate", model, "--device-class", "jetson-nano", "-o", path) == 0
    found = load_profile(path)
    assert found.provenance == "estimated"
    assert found.device_class == "jetson-nano"
    assert found.interval is not None
    assert "published figures" in capsys.readouterr().out


@pytest.mark.slow
def test_estimate_from_a_probe_and_a_measured_profile(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, path = tmp_path / "probe.json", tmp_path / "p.json"
    assert run("probe-device", "--device-class", "here", "--budget", "0.01s", "-o", probe, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(probe.read_text())
    assert document["schema"] == "planner/device-probe/v1"
    kinds = {kind for kernel in document["kernels"] for kind in kernel["work"]}
    assert kinds >= set(KINDS) - {"attention"}
    assert all(kernel["time_s"] > 0 for kernel in document["kernels"])
    assert document["environment"]["warnings"] == []
    profile = tmp_path / "measured.json"
    measured(model, profile)
    adapted = ("--device-class", "here", "--adapt", probe, "--adapt", profile)
    assert run("profile", "estimate", model, *adapted, "--max-blocks", 3, "-o", path) == 0
    found = load_profile(path)
    assert found.provenance == "estimated"
    assert found.environment["provider"] == "cpu"
    assert found.interval is not None
    for estimate, truth in zip(found.blocks, load_profile(profile).blocks, strict=True):
        assert estimate.interval_s is not None
        assert estimate.interval_s[0] < estimate.mean_s < estimate.interval_s[1]
        assert estimate.mean_s == pytest.approx(truth.mean_s, rel=9)
    capsys.readouterr()
    other = ("--device-class", "elsewhere", "--adapt", probe)
    assert "measured on another device class; found 'here'" in refused(capsys, "profile", "estimate", model, *other)
    itself = ("--device-class", "here", "--adapt", path)
    assert "is an estimate" in refused(capsys, "profile", "estimate", model, *itself)


def test_scale(tmp_path: Path) -> None:
    path = tmp_path / "slow.json"
    words = (saved(tmp_path, "p.json"), "--by", 2.5, "--device-class", "slow", "-o", path)
    assert run("profile", "scale", *words) == 0
    assert load_profile(path).blocks[0].mean_s == pytest.approx(2.5 * profile().blocks[0].mean_s)


def test_import(model: Path, tmp_path: Path) -> None:
    times, path = tmp_path / "times.json", tmp_path / "p.json"
    times.write_text(json.dumps([{"count": 9}, {"name": "mul0 + act0", "averageMs": 2.0}]))
    words = (model, times, "--device-class", "old", "--max-blocks", 1, "-o", path)
    assert run("profile", "import", *words) == 0
    assert load_profile(path).blocks[0].mean_s == pytest.approx(2e-3)


def test_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data, path = reference("resnet56-exits"), tmp_path / "d.npz", tmp_path / "p.json"
    np.savez(data, input=np.zeros((4, 3, 32, 32), np.float32), label=np.arange(4))
    options = ("--device-class", "jetson-nano", "-o", path)
    words = ("profile", "estimate", model, *options)
    assert run(*words, "--calibrate", data, "--thresholds", "0,1") == 0
    assert "operating points: accuracy" in capsys.readouterr().out
    found = load_profile(path)
    assert all(set(point.thresholds) <= {0, 1} for point in found.operating_points)
    assert len(found.operating_points[0].thresholds) == len(found.exits) == 2
    assert "not a list of numbers" in refused(capsys, *words, "--calibrate", data, "--thresholds", "high")
    assert "--thresholds: requires --calibrate" in refused(capsys, *words, "--thresholds", "0.5")
    assert "not an .npz" in refused(capsys, *words, "--calibrate", tmp_path)
    assert "--predictions: requires --calibrate" in refused(capsys, *words, "--predictions", tmp_path / "a.npz")
    plain = ("profile", "estimate", reference("resnet56"), *options)
    assert "has no exits" in refused(capsys, *plain, "--calibrate", data, "--thresholds", "0.5")


def test_predictions_are_written(tmp_path: Path) -> None:
    model, data, kept = reference("resnet56-exits"), tmp_path / "d.npz", tmp_path / "a.npz"
    images = np.random.default_rng(1).standard_normal((5, 3, 32, 32), dtype=np.float32)
    np.savez(data, input=images, label=np.arange(5))
    words = ("--device-class", "jetson-nano", "-o", tmp_path / "p.json", "--calibrate", data, "--predictions", kept)
    assert run("profile", "estimate", model, *words) == 0
    found, chain_model = load_predictions(kept, exits=2), load_chain(model)
    expected = predict(chain_model, load_samples(data, chain_model.chain))
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert found.correct is not None
    np.testing.assert_array_equal(found.correct, expected.correct)


def test_a_profile_whose_reach_increases_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = json.loads((ROOT / "profiles" / "x86-64" / "resnet56-exits-fashion.json").read_text(encoding="utf-8"))
    shipped["operating_points"][3]["reach"][6] = 0.9
    (tmp_path / "p.json").write_text(json.dumps(shipped))
    said = refused(capsys, "profile", "show", tmp_path / "p.json")
    assert "operating point '0.8/0.8': reach must never increase, as it does at block 6" in said


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = saved(tmp_path, "p.json"), tmp_path / "p.svg"
    assert run("profile", "show", path, "--picture", picture) == 0
    output = capsys.readouterr().out
    assert "small on here (measured)" in output
    assert "error on 2 held-out segments: median 2.0%, 95th percentile 6.0%" in output
    assert picture.read_text().startswith("<?xml")
    assert run("profile", "show", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["device_class"] == "here"


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = saved(tmp_path, "a.json"), saved(tmp_path, "b.json", scale=1.5)
    assert run("profile", "diff", before, after) == 0
    assert "1.50" in capsys.readouterr().out
    assert run("profile", "diff", before, after, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ratio"] == pytest.approx(1.5)
    assert [block["name"] for block in document["blocks"]] == ["block0", "block1"]


def test_bad_input_is_one_message_and_code_2(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--device-class", "here")
    measure = ("profile", "measure", model, *here)
    assert "no such file" in refused(capsys, "profile", "measure", tmp_path / "absent.onnx", *here)
    assert "--device-class" in refused(capsys, "profile", "measure", model)
    assert "no device class given" in refused(capsys, "profile", "measure", model, "--device-class", "")
    assert "--budget: not a time; found '10'" in refused(capsys, *measure, "--budget", "10")
    assert "unknown provider; found 'gpu'" in refused(capsys, *measure, "--provider", "gpu")
    assert "does not offer" in refused(capsys, *measure, "--provider", "tensorrt")
    assert "too few rounds" in refused(capsys, *measure, "--rounds", 1)
    assert "too few threads" in refused(capsys, *measure, "--threads", 0)
    moon = ("--device-class", "jetson-moon")
    assert "no such device class; found 'jetson-moon'" in refused(capsys, "profile", "estimate", model, *moon)
    probe = ("probe-device", *here)
    assert "unknown provider; found 'gpu'" in refused(capsys, *probe, "--provider", "gpu")
    assert "no time for a probe" in refused(capsys, *probe, "--budget", "0s")
    absent = ("--adapt", tmp_path / "absent.json")
    assert "absent.json" in refused(capsys, "profile", "estimate", model, *here, *absent)
    path = saved(tmp_path, "p.json")
    assert "earlier versions" in refused(capsys, "profile", "estimate", model, *here, "--adapt", path)
    assert "--by" in refused(capsys, "profile", "scale", path, *here)
    assert "--by" in refused(capsys, "profile", "scale", path, *here, "--by", 0)
    assert "no profile of" in refused(capsys, "profile", "show", tmp_path / "absent.json")
    assert "not JSON" in refused(capsys, "profile", "show", model)
    assert "different chains" in refused(capsys, "profile", "diff", path, _other_chain(tmp_path))


@pytest.mark.parametrize(
    ("subcommand", "option"),
    [
        ("measure", "--by"),
        ("estimate", "--provider"),
        ("import", "--rounds"),
        ("scale", "--calibrate"),
        ("show", "--output"),
        ("diff", "--picture"),
    ],
)
def test_an_option_of_another_subcommand_is_unknown(
    subcommand: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "profile", subcommand, option, "1")
    assert re.match(rf"planner: error: planner profile {subcommand}: no such option:? '?{option}\b", message)


def test_a_model_alone_is_no_subcommand(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "profile", model, "--device-class", "here")
    assert f"no such command '{model}'; expected one of measure, estimate, import, scale, show, diff" in message


def _other_chain(tmp_path: Path) -> Path:
    path = tmp_path / "other.json"
    save_profile(profile().model_copy(update={"chain_sha256": "f" * 64}), path)
    return path


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    words = [
        "profile",
        "measure",
        str(model),
        "--device-class",
        "here",
        "-o",
        str(path),
        "--rounds",
        "1000000",
        "--budget",
        "5min",
    ]
    for patience_s in (2, 4, 8, 16):  # on a busy machine the first rounds come late
        process = subprocess.Popen([sys.executable, "-m", "planner", *words], stderr=subprocess.PIPE, text=True)
        time.sleep(patience_s)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        if path.exists():
            break
    assert process.returncode == 130
    assert "planner: interrupted: the profile is partial" in error
    assert load_profile(path).environment["partial"] is True


def test_times_of_batches_are_written_or_why_there_are_none(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, words = tmp_path / "p.json", ("--device-class", "here", "--budget", "1s", "--rounds", "3")
    assert run("profile", "measure", small_gpt2(), *words, "--axis", "batch=1", "--batches", "1,2", "-o", path) == 0
    costs = load_profile(path).batches
    assert costs is not None
    assert costs.sizes == (1, 2)
    assert "batches of 1: " in capsys.readouterr().out
    assert run("profile", "measure", model, *words, "--batches", "1,2", "-o", path) == 0
    assert load_profile(path).batches is None
    assert "no times of batches: " in capsys.readouterr().err
    for wrong, message in (("1,x", "not a list of whole numbers"), ("0,2", "no sizes of batches")):
        assert run("profile", "measure", model, *words, "--batches", wrong, "-o", path) == 2
        assert message in capsys.readouterr().err
