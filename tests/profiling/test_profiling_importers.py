from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from planner.errors import ProfileError
from planner.profiling.importers import import_profile
from tests.profiling.small_chain import WIDTH, SmallModel

MODEL = SmallModel(length=3)


def write(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "times.json"
    path.write_text(json.dumps(document))
    return path


def trtexec(*layers: tuple[str, float]) -> list[dict[str, Any]]:
    return [
        {"count": 100},
        *({"name": name, "timeMs": 100 * ms, "averageMs": ms, "percentage": 1} for name, ms in layers),
    ]


def times_ms(tmp_path: Path, *layers: tuple[str, float]) -> list[float]:
    imported = import_profile(MODEL, write(tmp_path, trtexec(*layers)), device_class="old")
    return [round(1e3 * block.mean_s, 5) for block in imported.blocks]


def test_onnxruntime_profile_of_a_real_run(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "ort")
    whole = MODEL.stage_model(0, 2)
    session = onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
    for _ in range(4):
        session.run(None, {"t0": np.ones((1, WIDTH), np.float32)})
    imported = import_profile(MODEL, Path(session.end_profiling()), device_class="old")
    assert imported.provenance == "measured"
    assert imported.environment["tool"] == "onnxruntime"
    assert imported.environment["provider"] == "cpu"
    assert imported.environment["rounds"] == 4
    assert imported.environment["warnings"] == []
    assert all(block.mean_s > 1e-8 for block in imported.blocks)
    assert imported.chain_sha256 == MODEL.chain.chain_sha256


def test_onnxruntime_takes_the_median_of_runs_and_the_longest_name(tmp_path: Path) -> None:
    def event(name: str, start_us: int, us: int, index: int) -> dict[str, Any]:
        args = {"node_index": str(index), "provider": "CPUExecutionProvider"}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start_us, "dur": us, "args": args}

    runs: list[dict[str, Any]] = []
    for round_, us in enumerate((900, 100, 110)):
        start_us = 10_000 * round_
        runs += [event("mul0_nchwc", start_us, us, 10), event("mul1", start_us + 1000, 200, 11)]
        runs += [event("ReorderOutput", start_us + 1200, 50, 12), event("fused act2", start_us + 1250, 400, 13)]
    session = {"cat": "Session", "name": "session_initialization", "dur": 1}
    imported = import_profile(MODEL, write(tmp_path, [session, *runs]), device_class="old")
    assert [block.mean_s for block in imported.blocks] == pytest.approx([110e-6, 250e-6, 400e-6])
    assert imported.blocks[0].std_s == pytest.approx((505e-6 - 105e-6) / 1.349)  # quartiles
    assert imported.environment["rounds"] == 3


def test_trtexec_fused_layers(tmp_path: Path) -> None:
    layers = [("mul0 + act0", 1.0), ("mul1", 2.0), ("PWN(act1)", 0.5), ("mul2 + act2", 4.0)]
    assert times_ms(tmp_path, *layers) == [1.0, 2.5, 4.0]


def test_trtexec_layers_over_several_blocks_are_shared_by_work(tmp_path: Path) -> None:
    assert times_ms(tmp_path, ("{ForeignNode[mul0...act2]}", 3.0)) == [1.0, 1.0, 1.0]
    assert times_ms(tmp_path, ("mul0 + mul1", 3.0), ("mul2", 1.0)) == [1.5, 1.5, 1.0]


def test_trtexec_copies_count_for_the_previous_block(tmp_path: Path) -> None:
    layers = [
        ("mul0", 1.0),
        ("mul1", 1.0),
        ("some copy", 0.5),
        ("Reformatting CopyNode for Input Tensor 0 to mul2", 0.25),
    ]
    assert times_ms(tmp_path, *layers) == [1.0, 1.5, 0.25]


def test_layers_that_are_not_in_the_model_cause_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, trtexec(("mul0", 7.0), ("mystery", 3.0)))
    warnings = import_profile(MODEL, path, device_class="old").environment["warnings"]
    assert warnings == ["30% of the time is in layers that are not in the model: mystery"]


def test_a_profile_of_another_model(tmp_path: Path) -> None:
    path = write(tmp_path, trtexec(("conv1", 7.0), ("conv2", 3.0)))
    with pytest.raises(ProfileError, match=r"only 0% of the time.*not in the model: conv1, conv2"):
        import_profile(MODEL, path, device_class="old")


@pytest.mark.parametrize(
    "document",
    [{}, [], [1, 2], [{"cat": "Node"}], [{"averageMs": "long", "name": "mul0"}], [{"averageMs": 1.0}]],
)
def test_neither_tool(tmp_path: Path, document: Any) -> None:
    with pytest.raises(ProfileError, match=r"times\.json"):
        import_profile(MODEL, write(tmp_path, document), device_class="old")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1", "1e300", "true", '"12"', "null"])
def test_absurd_trtexec_times(tmp_path: Path, value: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(
        json.dumps(trtexec(("mul0", 1.0), ("mul1", 2.5))).replace('"averageMs": 2.5', f'"averageMs": {value}')
    )
    with pytest.raises(ProfileError, match=r"times\.json: .*\[2\]\.averageMs"):
        import_profile(MODEL, path, device_class="old")


@pytest.mark.parametrize("key", ["timeMs", "medianMs"])
@pytest.mark.parametrize("value", [-1, 1e300, "2.5", None, True])
def test_absurd_trtexec_times_beside_the_average(tmp_path: Path, key: str, value: object) -> None:
    document = trtexec(("mul0", 1.0), ("mul1", 2.5))
    document[2][key] = value
    with pytest.raises(
        ProfileError, match=rf"times\.json: \[2\]\.{key}: not a time.*expected a number from 0 to"
    ) as told:
        import_profile(MODEL, write(tmp_path, document), device_class="old")
    assert (told.value.faults[0].value, told.value.faults[0].where) == (value, f"{tmp_path}/times.json: [2].{key}")


def test_a_block_that_takes_absurdly_long(tmp_path: Path) -> None:
    path = write(tmp_path, trtexec(("mul0", 9e8), ("act0", 9e8), ("mul1", 1.0), ("mul2", 1.0)))
    with pytest.raises(ProfileError, match=r"^profile of small on old: blocks\[0\]\.mean_s: out of range") as told:
        import_profile(MODEL, path, device_class="old")
    (fault,) = told.value.faults
    assert (fault.value, fault.expected) == (1.8e6, "a number of at least 1e-12 and at most 1e+06 (seconds)")


@pytest.mark.parametrize("count", [-1, 0, 1.5, True, "100", None])
def test_absurd_trtexec_counts(tmp_path: Path, count: object) -> None:
    document = [{"count": count}, *trtexec(("mul0", 1.0))[1:]]
    with pytest.raises(ProfileError, match=r"times\.json: \[0\]\.count: not a number of runs"):
        import_profile(MODEL, write(tmp_path, document), device_class="old")


def test_no_time_at_all(tmp_path: Path) -> None:
    path = write(tmp_path, trtexec(("mul0", 0.0), ("mul1", 0.0)))
    with pytest.raises(ProfileError, match="impossible times; found '0 s'"):
        import_profile(MODEL, path, device_class="old")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"cannot be read.*|absent"):
        import_profile(MODEL, tmp_path / "absent.json", device_class="old")


def test_not_json(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text("layer, ms")
    with pytest.raises(ProfileError, match="not JSON"):
        import_profile(MODEL, path, device_class="old")
