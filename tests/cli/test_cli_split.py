from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.model.load import load_chain
from planner.runtime.session import BlockSession
from tests.cli.command import planner
from tests.model.chained import floats, inputs_of, reference, save, value
from tests.model.indexed import cached, picky


def test_stages_manifest_and_check(tmp_path: Path) -> None:
    path = reference("resnet56-exits")
    result = planner("split", path, "--cuts", "3,5", "-o", tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert shown == json.loads((tmp_path / "manifest.json").read_text())
    assert [(stage["first_block"], stage["last_block"]) for stage in shown["stages"]] == [(0, 2), (3, 4), (5, 7)]
    assert shown["check"]["passed"]
    assert shown["check"]["whole_error"] <= shown["check"]["tolerance"] == 1e-4
    assert shown["check"]["plain"] == {"max_abs_error": 0.0, "max_rel_error": 0.0, "bit_equal": True}
    model = load_chain(path)
    tensors = inputs_of(model)
    expected = BlockSession(path, optimise=False).run(tensors)
    for stage in shown["stages"]:
        file = tmp_path / stage["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == stage["sha256"]
        onnx.checker.check_model(file, full_check=True)
        assert set(stage["inputs"]) <= set(tensors)
        made = BlockSession(file, optimise=False).run(tensors)
        assert list(made) == stage["outputs"]
        tensors |= made
    assert all(tensors[name].tobytes() == right.tobytes() for name, right in expected.items())


def test_table_and_given_inputs(tmp_path: Path) -> None:
    path = reference("gpt2-small")
    np.savez(tmp_path / "inputs.npz", input_ids=np.arange(32)[None])
    words = ("split", path, "--cuts", "2", "-o", tmp_path / "stages")
    result = planner(*words, "--inputs", tmp_path / "inputs.npz")
    assert result.returncode == 0
    assert "passed: chained against whole, bit-equal" in result.stdout
    assert "optimisation alone changes the whole model's outputs by" in result.stdout
    np.savez(tmp_path / "wrong.npz", tokens=np.arange(32)[None])
    result = planner(*words, "--inputs", tmp_path / "wrong.npz")
    assert result.returncode == 2
    assert "not an input of the model; found 'tokens'; expected inputs named input_ids" in result.stderr
    result = planner(*words, "--inputs", path)
    assert result.returncode == 2
    assert "not an .npz file" in result.stderr


def test_a_model_that_no_drawn_input_fits_says_how_to_give_real_ones(tmp_path: Path) -> None:
    words = ("split", picky(tmp_path / "picky.onnx"), "--cuts", "1", "-o", tmp_path / "stages")
    result = planner(*words)
    assert result.returncode == 2
    assert "expected real values, with --inputs FILE.npz; drawn were speaker in 0..1" in result.stderr
    np.savez(tmp_path / "real.npz", speaker=np.zeros((1, 1), np.int64))
    assert planner(*words, "--inputs", tmp_path / "real.npz").returncode == 0


def test_an_empty_cache_is_a_shape(tmp_path: Path) -> None:
    words = (cached(tmp_path / "cached.onnx"), "--shape", "past=1,0,4")
    shown = json.loads(planner("inspect", *words, "--json").stdout)
    assert {tensor["name"]: tensor["shape"] for tensor in shown["cuts"][0]["tensors"]}["past"] == [1, 0, 4]
    result = planner("split", *words, "--cuts", "1", "-o", tmp_path / "stages")
    assert result.returncode == 0
    assert "bit-equal" in result.stdout


@pytest.mark.parametrize("cuts", ["0", "8", "3,x", "", "-1", "3;4"])
def test_cuts_that_do_not_exist(tmp_path: Path, cuts: str) -> None:
    result = planner("split", reference("resnet56-exits"), f"--cuts={cuts}", "-o", tmp_path / "stages")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--cuts: no such cut" in result.stderr
    assert "1 to 7" in result.stderr
    assert not (tmp_path / "stages").exists()


def test_without_check_no_session_is_made(tmp_path: Path) -> None:
    result = planner("split", reference("gpt2-small"), "--cuts", "4", "-o", tmp_path, "--no-check", "--json")
    assert result.returncode == 0
    assert "check" not in json.loads(result.stdout)


def test_half_precision_is_held_against_its_own_rounding(tmp_path: Path) -> None:
    """A CPU computes it in single precision, and rounds at the cut what the whole model does not round there."""
    half = TensorProto.FLOAT16
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    weights = {"w": floats(64, 64).astype(np.float16)}
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 64], half)], [value("y", [1, 64], half)], weights)
    result = planner("split", path, "--cuts", "1", "-o", tmp_path / "stages", "--json")
    check = json.loads(result.stdout)["check"]
    assert 0 < check["optimised"]["max_rel_error"] <= check["tolerance"] < 0.01
    assert check["passed"]
    assert result.returncode == 0


def test_a_model_of_one_block_has_nothing_to_cut(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [1, 4])], {"w": floats(4, 4)})
    result = planner("split", path, "--cuts", "1", "-o", tmp_path / "stages")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--cuts: this model is one block" in result.stderr


def test_inputs_that_do_not_fit_leave_no_stages(tmp_path: Path) -> None:
    path = reference("resnet56-exits")
    np.savez(tmp_path / "inputs.npz", other=np.zeros(3))
    result = planner("split", path, "--cuts", "3", "--inputs", tmp_path / "inputs.npz", "-o", tmp_path / "parts")
    assert result.returncode == 2, result.stderr
    assert not (tmp_path / "parts").exists()
