"""PipeEdge's files for its scheduler: models, device types and devices in; its schedule out.

PipeEdge (Hu et al., "PipeEdge: Pipeline Parallelism for Large-Scale Model Inference on Heterogeneous Edge Devices",
DSD 2022) gives each device one stage. The value of a schedule is the largest time of a stage or of a transfer between
two stages, where a transfer takes ``4 * parameters_out * batch_size`` bytes over the lesser bandwidth of the two
devices. Its megabits have 1024 * 1024 bits, and its megabytes 1024 * 1024 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, RootModel

from planner.base import FrozenModel
from planner.errors import Fault, InterchangeError
from planner.interchange.case import Case, Chain, Device, Link, note_zero_times
from planner.interchange.peer_files import Count, NonNegative, PeerModel, PositiveCount, read_yaml, unread
from planner.interchange.routes import only_route
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance

FILES: Final = ("models.yml", "device_types.yml", "devices.yml")
"""The files in order, with PipeEdge's default names."""

DTYPE: Final = "torch.float32"
"""The only data type that PipeEdge's scheduler knows."""

ELEMENT_BYTES: Final = 4
MEGABYTE: Final = 2**20
MEGABIT_BYTES: Final = 2**20 / 8


class Options(FrozenModel):
    """What to take from the files."""

    model: str | None = None
    """Name of the model; needed if the files have several."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Batch size of the profiles; needed if there are several. A sample of the scenario is a batch."""
    buffers_in: Annotated[int, Field(ge=0, le=1000)] = 2
    """Buffers of received data that PipeEdge counts for each stage but the first."""
    buffers_out: Annotated[int, Field(ge=0, le=1000)] = 2
    """Buffers of data to send that PipeEdge counts for each stage."""


class ModelEntry(PeerModel):
    """A model of ``models.yml``."""

    layers: Count
    parameters_in: Count
    parameters_out: list[Count]
    mem_MB: list[NonNegative]  # noqa: N815 - the key in the file


class ProfileEntry(PeerModel):
    """Times of a model's layers on a device type."""

    dtype: str
    batch_size: PositiveCount
    time_s: list[NonNegative]


class DeviceTypeEntry(PeerModel):
    """A device type of ``device_types.yml``."""

    mem_MB: NonNegative  # noqa: N815 - the key in the file
    bw_Mbps: NonNegative  # noqa: N815 - the key in the file
    model_profiles: dict[str, list[ProfileEntry]] | None = None


Models = RootModel[dict[str, ModelEntry]]
DeviceTypes = RootModel[dict[str, DeviceTypeEntry]]
Devices = RootModel[dict[str, list[str]]]


def read(files: Sequence[Path], options: Options) -> Case:
    """Read PipeEdge's three files, or a folder that has them under their default names.

    Raises
    ------
    InterchangeError
        If a file is malformed, or the files do not fit each other or the options.
    """
    models_file, types_file, devices_file = _three(files)
    models = read_yaml(models_file, Models, "models file of PipeEdge", "of its models")
    types = read_yaml(types_file, DeviceTypes, "device types file of PipeEdge", "of its device types")
    devices = read_yaml(devices_file, Devices, "devices file of PipeEdge", "of device types")
    notes = [
        "PipeEdge gives each device one stage: solve with --max-visits 1",
        *(note for file, read in ((models_file, models), (types_file, types)) for note in unread(file, read)),
    ]
    name = _model_name(models.root, options.model, models_file)
    entry = models.root[name]
    _check_model(entry, f"{models_file}: {name}")
    hosts = _hosts(devices.root, types.root, devices_file)
    profiles, notes_of_types = _profiles((name, entry.layers), types.root, hosts, options.batch_size, types_file)
    notes += notes_of_types
    used = {host: kind for host, kind in hosts.items() if kind in profiles}
    if not used:
        raise InterchangeError(
            "no device has a profile of the model", where=str(devices_file), expected=f"a device type with {name}"
        )
    batch = next(iter(profiles.values())).batch_size
    sent = _sent_bytes(entry, batch, notes)
    reserve = _buffer_bytes(entry, batch, sent, options)
    notes.append(
        f"a sample is a batch of {batch}; PipeEdge counts neither the way of the input to the first stage nor that of "
        "the result"
    )
    notes.append(
        f"PipeEdge's buffers depend on the ends of a stage; here every stage reserves those of the largest ones, "
        f"{reserve / MEGABYTE:.1f} MiB, so that each plan fits PipeEdge's rule"
    )
    note_zero_times((time_s for profile in profiles.values() for time_s in profile.time_s), notes)
    longest_s = sum(max(times) for times in zip(*(profile.time_s for profile in profiles.values()), strict=True))
    links = [Link((a, b), _bytes_per_s(types.root, used, a, b)) for a, b in combinations(used, 2)]
    slowest = min((link.bytes_per_s for link in links), default=1.0)
    return Case(
        origin=f"PipeEdge's {models_file.name}, {types_file.name} and {devices_file.name}",
        chains=[
            Chain(
                name=name,
                layers=[f"layer-{number}" for number in range(1, entry.layers + 1)],
                cut_bytes=[0, *sent[:-1], 0],
                times_s={kind: profile.time_s for kind, profile in profiles.items()},
                weight_bytes=[math.ceil(mem * MEGABYTE) for mem in entry.mem_MB],
                activation_bytes=[reserve] * entry.layers,
            )
        ],
        # PipeEdge wants more memory than is needed, not as much.
        devices={
            host: Device(kind, max(math.ceil(types.root[kind].mem_MB * MEGABYTE) - 1, 1)) for host, kind in used.items()
        },
        links=links,
        home=next(iter(used)),
        rate_per_s=0.5 / max(longest_s + sum(sent) / slowest, 1e-9),
        goal="throughput",
        provenance="measured",
        notes=notes,
    )


def _three(files: Sequence[Path]) -> tuple[Path, Path, Path]:
    if len(files) == 1 and files[0].is_dir():
        files = [files[0] / name for name in FILES]
    if len(files) != len(FILES):
        expected = "its models, device types and devices files in this order, or the folder of all three"
        raise InterchangeError("PipeEdge has three files", where="FILE", value=len(files), expected=expected)
    return files[0], files[1], files[2]


def _model_name(models: Mapping[str, ModelEntry], wanted: str | None, file: Path) -> str:
    real = [name for name, entry in models.items() if entry.layers]
    if wanted is None and len(real) == 1:
        return real[0]
    if wanted not in real:
        what = "which model to take" if wanted is None else "no such model with layers"
        expected = f"model={'|'.join(real)}" if real else f"a model with layers in {file}"
        raise InterchangeError(what, where="--set model", value=wanted, expected=expected)
    return wanted


def _check_model(entry: ModelEntry, where: str) -> None:
    faults = []
    if not 0 < len(entry.parameters_out) <= entry.layers:
        faults.append(
            Fault("wrong length", f"{where}.parameters_out", len(entry.parameters_out), f"{entry.layers}, as of layers")
        )
    if len(entry.mem_MB) != entry.layers:
        faults.append(Fault("wrong length", f"{where}.mem_MB", len(entry.mem_MB), f"{entry.layers}, as of layers"))
    if faults:
        raise InterchangeError(faults)


def _hosts(devices: Mapping[str, list[str]], types: Mapping[str, DeviceTypeEntry], file: Path) -> dict[str, str]:
    """Return the device type of each host."""
    hosts: dict[str, str] = {}
    for kind, names in devices.items():
        if names and kind not in types:
            raise InterchangeError(
                "unknown device type", where=f"{file}: {kind}", value=kind, expected=f"one of {', '.join(types)}"
            )
        for index, host in enumerate(names):
            if host in hosts:
                what, expected = "this host is already named", "each host once"
                raise InterchangeError(what, where=f"{file}: {kind}[{index}]", value=host, expected=expected)
            hosts[host] = kind
    return hosts


def _profiles(
    model: tuple[str, int],
    types: Mapping[str, DeviceTypeEntry],
    hosts: Mapping[str, str],
    wanted: int | None,
    file: Path,
) -> tuple[dict[str, ProfileEntry], list[str]]:
    """Return the profile of a model, given by name and layers, on each device type with hosts; and notes on others."""
    name, layers = model
    notes: list[str] = []
    found = {
        kind: [profile for profile in (types[kind].model_profiles or {}).get(name, []) if profile.dtype == DTYPE]
        for kind in dict.fromkeys(hosts.values())
    }
    sizes = sorted({profile.batch_size for profiles in found.values() for profile in profiles})
    batch = wanted or (sizes[0] if len(sizes) == 1 else None)
    if batch is None or batch not in sizes:
        where = f"{file}: {name}" if wanted is None and not sizes else "--set batch_size"
        what = "which batch size to take" if len(sizes) > 1 and batch is None else "no profile of the model"
        expected = f"batch_size={'|'.join(map(str, sizes))}" if sizes else f"profiles of {DTYPE}"
        raise InterchangeError(what, where=where, value=wanted, expected=expected)
    kept: dict[str, ProfileEntry] = {}
    for kind, profiles in found.items():
        fitting = [profile for profile in profiles if profile.batch_size == batch]
        place = f"{file}: {kind}"
        if not fitting:
            notes.append(f"{kind} is left out, as by PipeEdge: it has no profile of {name} for batches of {batch}")
            continue
        if len(fitting) > 1:
            what = f"{len(fitting)} profiles for batches of {batch}"
            raise InterchangeError(what, where=f"{place}.model_profiles.{name}", expected="one")
        if len(fitting[0].time_s) != layers:
            where, expected = f"{place}.model_profiles.{name}.time_s", f"{layers}, as of layers"
            raise InterchangeError("wrong length", where=where, value=len(fitting[0].time_s), expected=expected)
        if not types[kind].bw_Mbps and len(hosts) > 1:
            raise InterchangeError(
                "a device that is used needs a bandwidth", where=f"{place}.bw_Mbps", value=0, expected="more than 0"
            )
        kept[kind] = fitting[0]
    return kept, notes


def _sent_bytes(entry: ModelEntry, batch: int, notes: list[str]) -> list[int]:
    """Return what each layer hands on, in bytes; PipeEdge repeats a list that is too short."""
    out = entry.parameters_out
    if len(out) < entry.layers:
        notes.append(f"parameters_out has {len(out)} entries for {entry.layers} layers: repeated, as by PipeEdge")
    return [ELEMENT_BYTES * out[layer % len(out)] * batch for layer in range(entry.layers)]


def _buffer_bytes(entry: ModelEntry, batch: int, sent: Sequence[int], options: Options) -> int:
    """Return the most that PipeEdge counts for the buffers of a stage: of its input and of its output."""
    first = ELEMENT_BYTES * entry.parameters_in * batch
    return max(first, (options.buffers_in + 1) * max(sent[:-1], default=0)) + (options.buffers_out + 1) * max(sent)


def _bytes_per_s(types: Mapping[str, DeviceTypeEntry], hosts: Mapping[str, str], a: str, b: str) -> float:
    return min(types[hosts[a]].bw_Mbps, types[hosts[b]].bw_Mbps) * MEGABIT_BYTES


def write(plan: PlanSpec, instance: Instance) -> tuple[str, list[str]]:
    """Return a plan as PipeEdge's schedule, and what PipeEdge cannot be told.

    Raises
    ------
    InterchangeError
        If samples take several routes, or a route returns to a worker.
    """
    source, route = only_route(plan)
    names = [stage.worker for stage in route.stages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InterchangeError(
            "PipeEdge gives each device one stage, and the plan returns to a worker",
            where=f"plan: sources.{source}",
            value=twice[0],
            expected="a plan by `planner solve --max-visits 1`",
        )
    notes = []
    if route.operating_point:
        notes.append("early exits are left out: PipeEdge runs every layer of every sample")
    lines = [
        f"- {_yaml_text(stage.worker)}: [{stage.first_block + 1}, {stage.last_block + 1}]" for stage in route.stages
    ]
    partition = ",".join(f"{stage.first_block + 1},{stage.last_block + 1}" for stage in route.stages)
    blocks = [block.name for block in instance.any_profile(route.model).blocks]
    if blocks != [f"layer-{number}" for number in range(1, len(blocks) + 1)]:
        notes.append(f"layers are numbered by the {len(blocks)} blocks of {route.model}, which need not be PipeEdge's")
    return "\n".join([f"# runtime.py --partition {partition}", *lines, ""]), notes


def _yaml_text(name: str) -> str:
    """Return a worker's name such that YAML reads it as text, not as a number, a date or a truth value."""
    return name if name[:1].isalpha() and name.lower() not in _WORDS else f'"{name}"'


_WORDS: Final = ("y", "n", "yes", "no", "true", "false", "on", "off", "null")
