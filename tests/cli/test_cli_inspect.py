from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from onnx import TensorProto, helper

from tests.cli.command import planner, planner_process
from tests.model.chained import reference, save, value

EXITS = "resnet56-exits"


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Magic", ["a"], ["y"], domain="com.microsoft")]
    return save(tmp_path / "m.onnx", nodes, [value("x", ["n", 4])], [value("y", ["n", 4])])


def test_json_has_the_keys_of_the_contract() -> None:
    shown = json.loads(planner("inspect", reference(EXITS), "--json").stdout)
    assert len(shown["chain_sha256"]) == 64
    assert [cut["index"] for cut in shown["cuts"]] == list(range(len(shown["blocks"]) + 1))
    assert set(shown["blocks"][0]) >= {"name", "nodes", "flop", "parameters", "weight_bytes"}
    assert shown["cuts"][0]["tensors"] == [{"name": "input", "dtype": "float32", "shape": [1, 3, 32, 32]}]
    assert shown["cuts"][0]["bytes"] == 4 * 3 * 32 * 32
    assert [leave["name"] for leave in shown["exits"]] == ["exit1", "exit2"]
    assert shown["uncounted"] == {}


def test_max_blocks_and_finest() -> None:
    blocks = [
        len(json.loads(planner("inspect", reference(EXITS), "--json", *options).stdout)["blocks"])
        for options in (("--max-blocks", "4"), ("--finest",))
    ]
    assert blocks == [4, 208]


@pytest.mark.slow
def test_table_and_picture(tmp_path: Path) -> None:
    pictures = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for run, picture in zip((planner, planner_process), pictures, strict=True):  # processes hash words differently
        result = run("inspect", reference(EXITS), "--picture", picture)
        assert result.returncode == 0
        assert "exit exit1" in result.stdout
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    drawn = ET.fromstring(pictures[0].read_text())  # noqa: S314 - our own file
    assert drawn.tag.endswith("svg")
    assert "Size of each cut [KiB]" in pictures[0].read_text()


def test_dynamic_axes_need_a_shape(dynamic: Path) -> None:
    result = planner("inspect", dynamic)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--shape x=1,4" in result.stderr
    assert "Traceback" not in result.stderr


def test_operators_without_a_rule_are_named(dynamic: Path) -> None:
    result = planner("inspect", dynamic, "--shape", "x=2,4", "--json")
    assert json.loads(result.stdout)["uncounted"] == {"Magic": 1}
    assert "Magic ×1" in planner("inspect", dynamic, "--shape", "x=2,4").stderr


def test_tensors_that_prevent_cuts_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.BFLOAT16),
        helper.make_node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", [4])], [value("y", [4])])
    shown = planner("inspect", path, "--json")
    assert list(json.loads(shown.stdout)["uncut"]) == ["a"]
    assert "a (bfloat16, which" in planner("inspect", path).stderr


@pytest.mark.parametrize("shape", ["x", "x=a,b", "x=1;4", "=1"])
def test_a_shape_that_is_none(dynamic: Path, shape: str) -> None:
    result = planner("inspect", dynamic, "--shape", shape)
    assert result.returncode == 2
    assert "--shape: not a shape" in result.stderr


def test_no_onnx(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("no model")
    result = planner("inspect", path)
    assert result.returncode == 2
    assert str(path) in result.stderr
    assert len(result.stderr.splitlines()) == 1
