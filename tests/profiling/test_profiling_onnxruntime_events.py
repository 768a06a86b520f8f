"""Profiles that onnxruntime writes: names, numbers, nesting and fields by version."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import pytest

from planner.errors import ProfileError
from planner.model.load import ChainModel, load_chain
from planner.profiling.importers import import_profile
from planner.profiling.types import Profile
from tests.profiling.runtime_models import PROFILES, WIDTHS, feeds, write_branches, write_functions

Event = dict[str, Any]
RUNS: Final = 3
LEVELS: Final = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> ChainModel:
    """Return the finest chain of :func:`write_branches`."""
    return load_chain(write_branches(tmp_path_factory.mktemp("models") / "branches.onnx"), max_blocks=None)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> ChainModel:
    """Return the finest chain of :func:`write_functions`."""
    return load_chain(write_functions(tmp_path_factory.mktemp("models") / "functions.onnx"), max_blocks=None)


def run(model: ChainModel, level: str, folder: Path) -> Path:
    """Run a model by the installed onnxruntime, and return the profile that it writes."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.intra_op_num_threads = 1
    options.profile_file_prefix = str(folder / "ort")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    for _ in range(RUNS):
        session.run(None, feeds(model.path))
    return Path(session.end_profiling())


def nodes(path: Path) -> list[Event]:
    """Return the events of a profile that are runs of nodes."""
    events: list[Event] = json.loads(path.read_text())
    return [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]


def medians_us(events: list[Event], key: Callable[[Event], object]) -> dict[object, float]:
    """Return the sum of the nodes' medians for each value of ``key``; nodes of one name are told apart by number."""
    times: defaultdict[tuple[object, str, object], list[float]] = defaultdict(list)
    for event in events:
        number = event["args"].get("node_index", event["args"].get("graph_index"))
        times[key(event), event["name"] + event["args"]["op_name"], number].append(event["dur"])
    sums: defaultdict[object, float] = defaultdict(float)
    for (group, _, _), durations in times.items():
        sums[group] += float(np.median(durations))
    return sums


def imported(model: ChainModel, path: Path) -> Profile:
    return import_profile(model, path, device_class="old")


def by_name_us(profile: Profile, names: Mapping[str, str]) -> dict[str, float]:
    """Return the times of blocks, added up by the group in ``names`` to which the name of their first node belongs."""
    sums: defaultdict[str, float] = defaultdict(float)
    for cost in profile.blocks:
        sums[names[cost.name.partition(":")[2]]] += 1e6 * cost.mean_s
    return sums


PARTS: Final = {
    "conv0": "image",
    "relu0": "image",
    "conv1": "image",
    "r1": "image",
    "pool": "image",
    "f": "dense",
    "dense": "dense",
    "bias": "dense",
    "top": "dense",
    "compare": "dense",
    "choice": "choice",
    "loop": "loop",
    "last": "last",
    "last-bias": "last",
}
"""Part of the model ``branches`` that each node belongs to."""
SEEN: Final = PARTS | {
    "r0_nchwc": "image",
    "r1_nchwc": "image",
    "p_nchwc": "image",
    "ReorderOutput": "image",
    "Relu_3": "image",
    "Flatten_5": "dense",
    "gemm": "dense",
    "gemm_0": "dense",
    "dense/MatMulAddFusion": "dense",
    "dense/MatMulAddFusion/": "dense",
}
"""The same for the names in profiles; nodes in bodies are missing."""
NAMELESS: Final = {"Relu": "image", "Flatten": "image"}
"""Version 1.0 writes no name for nodes without one: they count for the node before."""


def part(event: Event) -> str | None:
    name = event["name"].removesuffix("_kernel_time")
    return SEEN.get(name) if name else NAMELESS[event["args"]["op_name"]]


def check_branches(model: ChainModel, path: Path) -> None:
    events = nodes(path)
    bodies = {event["name"] for event in events if part(event) is None}
    assert bodies == {f"{name}_kernel_time" for name in ("taken", "product", "squash", "go")}
    profile = imported(model, path)
    expected = medians_us([event for event in events if part(event)], part)
    assert by_name_us(profile, PARTS) == pytest.approx(expected, abs=0.1)
    assert profile.environment["rounds"] == RUNS
    assert profile.environment["warnings"] == []


@pytest.mark.parametrize("version", ["1.0.0", "1.3.0", "1.13.1", "1.16.3"])
def test_versions_of_onnxruntime(version: str, branches: ChainModel) -> None:
    check_branches(branches, PROFILES / f"branches-{version}.json")


@pytest.mark.parametrize("level", LEVELS)
def test_bodies_count_with_their_node_alone(level: str, branches: ChainModel, tmp_path: Path) -> None:
    check_branches(branches, run(branches, level, tmp_path))


def test_fields_that_other_versions_lack(branches: ChainModel, tmp_path: Path) -> None:
    path = run(branches, "ORT_ENABLE_ALL", tmp_path)

    def without(change: Callable[[Event], object]) -> Profile:
        events = json.loads(path.read_text())
        for event in events:
            change(event)
        (tmp_path / "changed.json").write_text(json.dumps(events))
        return imported(branches, tmp_path / "changed.json")

    def rename(event: Event) -> None:
        if number := event["args"].pop("node_index", None):
            event["args"] |= {"graph_index": number, "exec_plan_index": number}

    assert without(rename).blocks == imported(branches, path).blocks
    total_s = sum(cost.mean_s for cost in imported(branches, path).blocks)
    for profile in (
        without(lambda event: event["args"].pop("node_index", None)),
        without(lambda event: event.pop("args")),
    ):
        assert sum(cost.mean_s for cost in profile.blocks) == pytest.approx(total_s, abs=1e-7)


def call(event: Event) -> int | None:
    """Return the call that a node of ``functions`` is in, by the width of what it returns."""
    (shape,) = event["args"]["output_type_shape"][0].values()
    return WIDTHS.index(shape[-1])


def check_functions(model: ChainModel, path: Path) -> None:
    calls = [WIDTHS.index(cut.tensors[0].shape[-1]) for cut in model.chain.cuts[1:]]
    profile = imported(model, path)
    found = [0.0] * len(WIDTHS)
    for index, cost in zip(calls, profile.blocks, strict=True):
        found[index] += 1e6 * cost.mean_s
    expected = medians_us(nodes(path), call)
    assert found == pytest.approx([expected[index] for index in range(len(WIDTHS))], abs=0.1)
    assert "inlined" not in str(profile.environment["warnings"])


@pytest.mark.parametrize("level", LEVELS)
def test_inlined_functions(level: str, functions: ChainModel, tmp_path: Path) -> None:
    check_functions(functions, run(functions, level, tmp_path))


@pytest.mark.parametrize("version", ["1.14.0", "1.16.3"])
def test_inlined_functions_by_old_versions(version: str, functions: ChainModel) -> None:
    check_functions(functions, PROFILES / f"functions-{version}.json")


def test_inlined_functions_that_are_counted_otherwise_are_told(functions: ChainModel, tmp_path: Path) -> None:
    text = run(functions, "ORT_DISABLE_ALL", tmp_path).read_text()
    path = tmp_path / "shifted.json"
    path.write_text(text.replace("_token_4_", "_token_9_").replace("_token_3_", "_token_4_"))
    with pytest.raises(ProfileError, match="nodes of inlined functions that cannot be told apart: _inlfunc_Dense"):
        imported(functions, path)


def test_a_provider_that_compiles_the_model_is_told(functions: ChainModel) -> None:
    with pytest.raises(ProfileError, match=r"cannot be told apart.*that OpenVINOExecutionProvider compiled"):
        imported(functions, PROFILES / "functions-openvino-1.24.1.json")


@cache
def _example() -> str:
    return (PROFILES / "branches-1.16.3.json").read_text()


@pytest.mark.parametrize("key", ["dur", "ts"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"12"', "null", "[1]"])
def test_absurd_times(key: str, value: str, branches: ChainModel, tmp_path: Path) -> None:
    events = json.loads(_example())
    events[4][key] = "ODD"
    path = tmp_path / "times.json"
    path.write_text(json.dumps(events).replace('"ODD"', value))
    with pytest.raises(ProfileError, match=rf"times\.json: .*\[4\]\.{key}"):
        imported(branches, path)


@pytest.mark.parametrize("value", ["-1", "1e300", "9" * 400])
def test_absurd_durations(value: str, branches: ChainModel, tmp_path: Path) -> None:
    events = json.loads(_example())
    events[4]["dur"] = "ODD"
    path = tmp_path / "times.json"
    path.write_text(json.dumps(events).replace('"ODD"', value))
    with pytest.raises(ProfileError, match=r"\[4\]\.dur: "):
        imported(branches, path)


@pytest.mark.parametrize("args", [[], 1, {"node_index": "first"}, {"node_index": -1}, {"graph_index": 1.5}])
def test_malformed_fields(args: object, branches: ChainModel, tmp_path: Path) -> None:
    events = json.loads(_example())
    events[4]["args"] = args
    path = tmp_path / "times.json"
    path.write_text(json.dumps(events))
    with pytest.raises(ProfileError, match=r"\[4\]\.args: malformed event"):
        imported(branches, path)
