"""distilp's profiles of a model and of devices.

distilp's solver HALDA (after prima.cpp, Li et al., 2025) takes the time of a layer on a device as its operations over
the device's throughput, plus the copy of its cache, plus its memory b' over the device's bandwidth. Of a layer of b
bytes, with c bytes for an element of the cache, ``b' = 1.15 b + (1 + 2 / 64) c (h_k e_k + h_v e_v) n_kv``. Each device
sends once a round, which takes its ``t_comm`` whatever is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from planner.base import FrozenModel
from planner.errors import InterchangeError
from planner.interchange.case import Case, Chain, Device, Link, note_zero_times
from planner.interchange.peer_files import Count, NonNegative, PeerModel, Positive, PositiveCount, read_json, unread

MODEL_FILE: Final = "model_profile.json"
WEIGHTS_OVERHEAD: Final = 1.15
CACHE_OVERHEAD: Final = 1 + 2 / 64
CACHE_BYTES: Final = {"4bit": 0.5, "8bit": 1.0, "fp16": 2.0, "bf16": 2.0}
UTILISATION: Final = 1e-9
"""Utilisation of the converted scenario: HALDA plans for one token at a time."""

BYTES_PER_S: Final = 1e9
"""Bandwidth of the links; nothing depends on it, as cuts have 0 bytes."""


class Options(FrozenModel):
    """What to take from the files."""

    phase: Literal["decode", "prefill"] = "decode"
    """Phase of the model profile; HALDA takes decode."""
    batch: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Batch size of the tables; HALDA takes 1."""
    kv_bits: Literal["4bit", "8bit", "fp16", "bf16"] = "4bit"
    """Size of an element of the cache, as of ``halda_solve``; distilp's command line takes 4bit."""


Table = dict[str, dict[str, Positive]]


class DeviceProfile(PeerModel):
    """A device profile."""

    name: str
    os_type: str = ""
    is_head: bool = False
    is_unified_mem: bool = False
    has_cuda: bool = False
    has_metal: bool = False
    scpu: Table
    T_cpu: Positive
    t_kvcpy_cpu: NonNegative = 0.0
    t_kvcpy_gpu: NonNegative = 0.0
    t_ram2vram: NonNegative = 0.0
    t_vram2ram: NonNegative = 0.0
    t_comm: NonNegative = 0.0
    s_disk: NonNegative = 0.0
    d_avail_ram: Count
    sgpu_cuda: Table | None = None
    sgpu_metal: Table | None = None
    T_cuda: Positive | None = None
    T_metal: Positive | None = None
    d_avail_cuda: Count | None = None
    d_avail_metal: Count | None = None
    c_cpu: Count = 0
    c_gpu: Count = 0
    d_bytes_can_swap: Count = 0
    d_swap_avail: Count = 0

    def gpu(self) -> tuple[Table, float, int] | None:
        """Return throughputs, bandwidth and memory of the GPU that HALDA takes: Metal, else CUDA."""
        metal = (self.has_metal, self.sgpu_metal, self.T_metal, self.d_avail_metal)
        cuda = (self.has_cuda, self.sgpu_cuda, self.T_cuda, self.d_avail_cuda)
        for there, table, bytes_per_s, memory in (metal, cuda):
            if there and table and bytes_per_s and memory is not None:
                return table, bytes_per_s, memory - self.c_gpu
        return None


class ModelProfile(PeerModel):
    """A model profile as distilp's profiler writes it: lists with an entry for the embedding and for each layer."""

    b: list[Count]
    b_i: list[Count]
    b_o: list[Count]
    L: PositiveCount
    hk: Count
    hv: Count
    ek: Count
    ev: Count
    n_kv: Count
    e_embed: Count = 0
    V: PositiveCount
    seq_len: Count = 0
    f_q: dict[str, dict[str, list[NonNegative]]]
    f_out: dict[str, dict[str, NonNegative]]
    quantization: str
    is_moe: bool = False


def read(files: Sequence[Path], options: Options) -> Case:
    """Read a model profile and device profiles, the first of which is the head.

    Raises
    ------
    InterchangeError
        If a file is malformed, or a table lacks the batch size or the quantisation of the model.
    """
    model_file, *device_files = _listed(files)
    model = read_json(model_file, ModelProfile, "a model profile of distilp", "b, L, f_q, …")
    flop = _layer_flop(model, options, model_file)
    devices = _devices(device_files)
    cache = CACHE_BYTES[options.kv_bits] * (model.hk * model.ek + model.hv * model.ev) * model.n_kv
    held = [int(WEIGHTS_OVERHEAD * size + CACHE_OVERHEAD * cache) for size in model.b[1:]]
    times: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    for index, (name, (file, device)) in enumerate(devices.items()):
        times[name], memory[name] = _times(device, flop, held, (model.quantization, f"b_{options.batch}"), file)
        memory[name] -= _kept_bytes(device, model, head=index == 0)
        if memory[name] <= 0:
            what = "no memory is left for layers"
            raise InterchangeError(what, where=str(file), value=memory[name], expected="more available memory")
    head = next(iter(devices))
    links = [
        Link((a, b), BYTES_PER_S, (devices[a][1].t_comm + devices[b][1].t_comm) / 2)
        for a, b in combinations(devices, 2)
    ]
    notes = [*unread(model_file, model)]
    for file, device in devices.values():
        notes += unread(file, device)
    notes += _differences(model, devices, options)
    note_zero_times((time_s for found in times.values() for time_s in found), notes)
    longest_s = sum(max(found) for found in zip(*times.values(), strict=True))
    longest_s += sum(2 * device.t_comm for _, device in devices.values())
    return Case(
        origin=f"distilp's {model_file.name} and {len(devices)} device profiles",
        chains=[
            Chain(
                name=model_file.parent.name or "model",
                layers=[f"layer-{number}" for number in range(1, model.L + 1)],
                cut_bytes=[0] * (model.L + 1),
                times_s=times,
                weight_bytes=held,
                activation_bytes=[0] * model.L,
                overhead_s={
                    name: 0.0 if device.is_unified_mem else device.t_ram2vram + device.t_vram2ram
                    for name, (_, device) in devices.items()
                },
            )
        ],
        devices={name: Device(name, memory[name]) for name in devices},
        links=links,
        home=head,
        rate_per_s=max(UTILISATION / longest_s, 1e-12),
        goal="delay",
        batch=1,
        provenance="estimated",
        notes=notes,
    )


def _listed(files: Sequence[Path]) -> list[Path]:
    """Return the model profile, then the device profiles."""
    if len(files) == 1 and files[0].is_dir():
        others = sorted(path for path in files[0].glob("*.json") if path.name != MODEL_FILE)
        files = [files[0] / MODEL_FILE, *others]
    if len(files) < 2:
        expected = f"a model profile and one or more device profiles, or a folder of them with {MODEL_FILE}"
        raise InterchangeError("no device profile", where="FILE", value=len(files), expected=expected)
    return list(files)


def _devices(files: Sequence[Path]) -> dict[str, tuple[Path, DeviceProfile]]:
    """Return the devices by name; the second of a name gets a number."""
    devices: dict[str, tuple[Path, DeviceProfile]] = {}
    for file in files:
        device = read_json(file, DeviceProfile, "a device profile of distilp", "name, scpu, T_cpu, …")
        name, number = device.name or file.stem, 1
        while name in devices:
            number += 1
            name = f"{device.name or file.stem}-{number}"
        devices[name] = file, device
    return devices


def _layer_flop(model: ModelProfile, options: Options, file: Path) -> list[float]:
    key = f"b_{options.batch}"
    place = f"{file}: f_q.{options.phase}.{key}"
    flop = model.f_q.get(options.phase, {}).get(key)
    if flop is None:
        known = sorted(model.f_q.get(options.phase, {}))
        expected = f"one of {', '.join(known)}" if known else f"tables of {options.phase}"
        raise InterchangeError("the profile has no such table", where=place, value=key, expected=expected)
    if model.is_moe:
        what = "a mixture of experts has a time for each expert, which distilp's dense solver does not know"
        raise InterchangeError(what, where=f"{file}: is_moe", value=True, expected="a dense model")
    for name, entries in (("b", model.b), (f"f_q.{options.phase}.{key}", flop)):
        if len(entries) != model.L + 1:
            expected = f"{model.L + 1}, one for the embedding and one for each of L layers"
            raise InterchangeError("wrong length", where=f"{file}: {name}", value=len(entries), expected=expected)
    return flop[1:]


def _times(
    device: DeviceProfile, flop: Sequence[float], held: Sequence[int], table: tuple[str, str], file: Path
) -> tuple[list[float], int]:
    """Return the time of each layer on a device, on its GPU if it has one, and the memory for layers."""
    gpu = device.gpu()
    if gpu is not None:
        speeds, bytes_per_s, memory = gpu
        copy_s, place = device.t_kvcpy_gpu, "sgpu_metal" if device.has_metal and device.sgpu_metal else "sgpu_cuda"
    else:
        speeds, bytes_per_s, memory, copy_s, place = (
            device.scpu,
            device.T_cpu,
            device.d_avail_ram,
            device.t_kvcpy_cpu,
            "scpu",
        )
        if device.os_type == "android":
            memory += min(device.d_bytes_can_swap, device.d_swap_avail)
    quantisation, batch = table
    found: Mapping[str, float] = speeds.get(quantisation, {})
    if batch not in found:
        known = ", ".join(f"{name}.{key}" for name, entry in speeds.items() for key in entry)
        where, expected = f"{file}: {place}", f"{quantisation}.{batch} among its entries {known or '(none)'}"
        raise InterchangeError(
            "no throughput for the model", where=where, value=f"{quantisation}.{batch}", expected=expected
        )
    return [each / found[batch] + copy_s + size / bytes_per_s for each, size in zip(flop, held, strict=True)], memory


def _kept_bytes(device: DeviceProfile, model: ModelProfile, *, head: bool) -> int:
    """Return the memory that distilp keeps for other things than layers."""
    if device.gpu() is not None:
        return model.b_o[1] if head and device.has_metal and len(model.b_o) > 1 else 0
    ends = model.b_i[1] / model.V + model.b_o[1] if head and len(model.b_i) > 1 < len(model.b_o) else 0
    return int(ends) + device.c_cpu


def _differences(model: ModelProfile, devices: Mapping[str, tuple[Path, DeviceProfile]], options: Options) -> list[str]:
    file, head = next(iter(devices.values()))
    notes = [
        "distilp reads layers that do not fit from disk, at a cost; here layers must fit",
        "distilp gives each device layers in every round, and so counts every t_comm; here a device may stay without",
        "t_comm is a time whatever is sent: half of it is latency of each link of the device, and cuts have 0 bytes",
    ]
    if any(device.gpu() is not None for _, device in devices.values()):
        notes.append("layers run on the GPU where a device has one; distilp may leave some of them to its CPU")
    if len(set(model.b[1:])) > 1:
        notes.append("distilp takes the first layer for all; here each layer has its own figures")
    out = model.f_out.get(options.phase, {}).get(f"b_{options.batch}")
    speed: Any = head.scpu.get(model.quantization, {}).get(f"b_{options.batch}")
    if out is not None and speed and len(model.b_i) > 1 < len(model.b_o):
        ends_s = out / speed + (model.b_i[1] / model.V + model.b_o[1]) / head.T_cpu
        if head.s_disk:
            ends_s += (model.b_i[1] / model.V + model.b_o[1]) / head.s_disk
        notes.append(
            f"the input and output layers stay at the head, {file.name}: {ends_s:.6g} s in distilp, left out here"
        )
    return notes
