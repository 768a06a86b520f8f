from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.model.decoders import DECODERS
from planner.model.reference import REFERENCE
from planner.runtime.quantise import QUANTISED
from tests.cli.command import planner


def test_list_names_every_model() -> None:
    listed = json.loads(planner("models", "list", "--json").stdout)["models"]
    assert [model["name"] for model in listed] == [*REFERENCE, *QUANTISED, *DECODERS]
    assert all(model["parameters"] > 0 for model in listed)
    assert all((model["macs"] or 0) > 0 for model in listed if model["name"] not in DECODERS)
    assert "MobileNetV2" in planner("models", "list").stdout


def test_build_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "models/gpt2-small.onnx" in planner("models", "build", "gpt2-small").stdout
    built = json.loads(planner("models", "build", "gpt2-small", "-o", "other/m.onnx", "--json").stdout)
    assert built["bytes"] == (tmp_path / "other" / "m.onnx").stat().st_size
    assert (tmp_path / "other" / "m.onnx").read_bytes() == (tmp_path / "models" / "gpt2-small.onnx").read_bytes()


def test_an_unknown_name_lists_those_there_are() -> None:
    result = planner("models", "build", "vgg")
    assert result.returncode == 2
    assert "'vgg'" in result.stderr
    assert "mobilenetv2-96" in result.stderr
    assert "resnet56-int8" in result.stderr
