"""distilp's profiles: the delay of a plan is the objective of HALDA for one round."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import InterchangeError

LAYERS = 4
MODEL: dict[str, Any] = {
    "b": [0, *[40_000_000] * LAYERS],
    "b_i": [0, *[8192] * LAYERS],
    "b_o": [0, *[8192] * LAYERS],
    "L": LAYERS,
    "hk": 8,
    "hv": 8,
    "ek": 64,
    "ev": 64,
    "n_kv": 256,
    "e_embed": 1024,
    "V": 1000,
    "seq_len": 256,
    "f_q": {"prefill": {"b_1": [0.0, *[9e10] * LAYERS]}, "decode": {"b_1": [0.0, *[4e8] * LAYERS]}},
    "f_out": {"prefill": {"b_1": 1e10}, "decode": {"b_1": 1e8}},
    "quantization": "Q4_K",
}
CPU = {
    "name": "board",
    "os_type": "linux",
    "is_head": True,
    "scpu": {"Q4_K": {"b_1": 2e10}},
    "T_cpu": 1e10,
    "t_kvcpy_cpu": 1e-5,
    "t_comm": 0.004,
    "s_disk": 1e9,
    "d_avail_ram": 150_000_000,
}
GPU = {
    **CPU,
    "is_head": False,
    "has_cuda": True,
    "sgpu_cuda": {"Q4_K": {"b_1": 5e11}},
    "T_cuda": 3e11,
    "t_kvcpy_gpu": 2e-5,
    "t_ram2vram": 1e-4,
    "t_vram2ram": 3e-4,
    "t_comm": 0.001,
    "d_avail_cuda": 150_000_000,
}


def convert(folder: Path, model: Any, *devices: Any) -> planner.Conversion:
    contents = {"model_profile.json": model, **{f"device-{n}.json": device for n, device in enumerate(devices)}}
    for name, content in contents.items():
        folder.joinpath(name).write_text(json.dumps(content))
    return planner.convert("distilp", folder, folder / "out")


def test_delay_is_the_objective_for_one_round(tmp_path: Path) -> None:
    scenario = convert(tmp_path, MODEL, CPU, GPU).scenario
    held = int(1.15 * 40_000_000 + (1 + 2 / 64) * 0.5 * (8 * 64 + 8 * 64) * 256)
    layer_s = {"board": 4e8 / 2e10 + 1e-5 + held / 1e10, "board-2": 4e8 / 5e11 + 2e-5 + held / 3e11}
    assert list(scenario.workers) == ["board", "board-2"]
    for here in (1, 3):
        pins = {"samples": {layer: "board" if layer < here else "board-2" for layer in range(LAYERS)}}
        plan = planner.solve(scenario, method="exhaustive", pins=pins)
        objective = here * layer_s["board"] + (LAYERS - here) * layer_s["board-2"] + 0.004 + 0.001 + 1e-4 + 3e-4
        assert plan.sources["samples"].delay_s == pytest.approx(objective, rel=1e-8)
        assert plan.workers["board"].memory_bytes == here * held
    assert not planner.solve(scenario, method="exhaustive", pins={"samples": dict.fromkeys(range(LAYERS), "board-2")})


def test_what_differs_is_told(tmp_path: Path) -> None:
    model = {**deepcopy(MODEL), "attn_bytes": []}
    model["b"][2] = 1
    told = " ".join(convert(tmp_path, model, CPU, GPU).notes)
    ends_s = 1e8 / 2e10 + (8.192 + 8192) / 1e10 + (8.192 + 8192) / 1e9
    for words in ("attn_bytes", "must fit", "each layer has its own", "on the GPU", f"{ends_s:.6g} s"):
        assert words in told


def edited(document: dict[str, Any], *place: Any) -> dict[str, Any]:
    *outer, key, value = place
    copied = deepcopy(document)
    entry: Any = copied
    for step in outer:
        entry = entry[step]
    if value is None:
        del entry[key]
    else:
        entry[key] = value
    return copied


@pytest.mark.parametrize(
    ("model", "device", "place"),
    [
        (edited(MODEL, "L", None), CPU, "model_profile.json: L"),
        (edited(MODEL, "L", 5), CPU, "model_profile.json: b"),
        (edited(MODEL, "b", 2, -1), CPU, "model_profile.json: b[2]"),
        (edited(MODEL, "f_q", "decode", None), CPU, "f_q.decode.b_1"),
        (edited(MODEL, "f_q", "decode", "b_1", 1, "fast"), CPU, "f_q.decode.b_1[1]"),
        (edited(MODEL, "quantization", "F32"), CPU, "device-0.json: scpu"),
        ({**MODEL, "is_moe": True}, CPU, "is_moe"),
        (MODEL, edited(CPU, "T_cpu", 0), "device-0.json: T_cpu"),
        (MODEL, edited(CPU, "t_comm", float("nan")), "device-0.json"),
        (MODEL, edited(CPU, "scpu", "Q4_K", "b_1", 0), "device-0.json: scpu.Q4_K.b_1"),
        (MODEL, edited(CPU, "c_cpu", 200_000_000), "device-0.json"),
        (MODEL, "none", "device-0.json"),
    ],
)
def test_bad_files_are_named_with_place(model: Any, device: Any, place: str, tmp_path: Path) -> None:
    with pytest.raises(InterchangeError) as found:
        convert(tmp_path, model, device)
    (fault,) = found.value.faults
    assert str(fault.where).endswith(place)
    assert fault.expected
    assert not (tmp_path / "out").exists()
