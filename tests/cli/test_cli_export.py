"""Plans written into models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import planner as library
from planner.errors import ScenarioError
from planner.model.annotate import PlacedStage, Placement, write_annotated
from planner.model.load import ChainModel, load_chain
from planner.profiling.store import load_profile, save_profile
from planner.runtime.session import BlockSession
from tests.cli.command import planner
from tests.execution.case import write_case
from tests.model.chained import inputs_of, needs_onnxruntime


def export(plan: Path, target: Path) -> ChainModel:
    return load_chain(library.load_plan(plan).annotate(target), max_blocks=1)


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_a_plan_in_a_model_is_read_as_it_was_made(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    found = planner("export", plan, "--annotate", tmp_path / "annotated.onnx")
    assert (found.returncode, found.stderr) == (0, "")
    model = load_chain(tmp_path / "annotated.onnx", max_blocks=1)
    whole = load_chain(tmp_path / "small.onnx")
    assert model.chain.cuts[1].tensors == whole.chain.cuts[1].tensors
    assert model.block_devices == ("a", "b")
    assert [each.name for each in model.source.proto.configuration] == list(library.load_plan(plan).sources)
    inputs = inputs_of(whole)
    expected = BlockSession(whole.model_bytes()).run(inputs)
    for name, array in BlockSession(model.model_bytes()).run(inputs).items():
        np.testing.assert_array_equal(array, expected[name])


@needs_onnxruntime(1, 23)  # loads IR version 11
def test_onnxruntime_keeps_what_is_written_and_a_second_export_replaces_it(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    export(plan, tmp_path / "annotated.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "kept.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "annotated.onnx"), options, providers=["CPUExecutionProvider"])
    assert load_chain(tmp_path / "kept.onnx", max_blocks=1).block_devices == ("a", "b")
    again = load_chain(tmp_path / "kept.onnx", max_blocks=1)
    write_annotated(again, [Placement("urgent", [PlacedStage("c", 0, 1)])], tmp_path / "again.onnx")
    replaced = load_chain(tmp_path / "again.onnx", max_blocks=1)
    assert [(each.name, list(each.device)) for each in replaced.source.proto.configuration] == [
        ("urgent", ["c"]),
        ("other", ["a", "b"]),
    ]
    assert replaced.block_devices == ("c",)


@pytest.mark.parametrize("beside", [True, False])
def test_external_data_stays_only_in_the_models_own_folder(tmp_path: Path, *, beside: bool) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    plan = write_case(folder, external=True)
    target = (folder if beside else tmp_path) / "annotated.onnx"
    model = export(plan, target)
    assert bool(model.source.external) == beside
    assert model.block_devices == ("a", "b")


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    wrong = planner("export", plan, "--annotate", tmp_path / "m.onnx", "--model", "other")
    assert wrong.returncode == 2
    assert "model: which model to annotate; found 'other'; expected one of " in wrong.stderr
    assert planner("export", plan).returncode == 2


def test_annotations_are_pins_on_request(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    export(plan, tmp_path / "annotated.onnx")
    chain = load_chain(tmp_path / "annotated.onnx", max_blocks=3).chain
    profile = load_profile(tmp_path / "profiles/reference/small.json")
    save_profile(
        profile.model_copy(update={"chain_sha256": chain.chain_sha256}), tmp_path / "profiles/reference/annotated.json"
    )
    scenario = tmp_path / "scenario.yaml"
    text = scenario.read_text().replace("path: small.onnx", "path: annotated.onnx")
    scenario.write_text(text)
    solved = planner("solve", scenario, "--pin", "urgent:annotated", "--json")
    route = json.loads(solved.stdout)["sources"]["urgent"]["routes"][0]
    stages = [(stage["worker"], stage["first_block"], stage["last_block"]) for stage in route["stages"]]
    assert stages == [("a", 0, 0), ("b", 1, 2)]
    scenario.write_text(text.replace("b:", "c:").replace("[a, b]", "[a, c]"))
    with pytest.raises(ScenarioError, match=r"annotated\.onnx: .* is no worker; found 'b'; expected one of a, c"):
        library.load_scenario(scenario).annotated_pins("urgent")
