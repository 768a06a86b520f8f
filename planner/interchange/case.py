"""What all formats have in common: chains of layers, devices and links; written as a scenario with its profiles."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from planner.errors import Fault, InterchangeError, ScenarioError
from planner.files import write_text_atomic
from planner.profiling.store import profile_path, save_profile
from planner.profiling.types import BlockCost, ModelReference, Profile
from planner.scenario.check import NAME, check_scenario
from planner.scenario.document import document_of
from planner.scenario.parse import parse
from planner.scenario.types import SCHEMA, ScenarioSpec

SCENARIO_FILE: Final = "scenario.yaml"
PROFILE_FOLDER: Final = "profiles"
SOURCE: Final = "samples"
"""Name of the only source of a converted scenario."""

LEAST_TIME_S: Final = 1e-12
"""Shortest time of a block in a profile."""


@dataclass(frozen=True)
class Chain:
    """A model as a chain of L layers, each of which becomes a block.

    Parameters
    ----------
    cut_bytes
        Size of what crosses each cut; length L + 1. The first and the last are 0 where a format counts neither the way
        of the input nor that of the result.
    times_s
        Time of each layer by device class, in seconds; each of length L.
    weight_bytes, activation_bytes
        Memory of each layer; each of length L.
    overhead_s
        Time that each stage adds by device class, in seconds; 0 where it is missing.
    sha256
        Hashes of the model and of its chain, if there is an ONNX file.
    """

    name: str
    layers: Sequence[str]
    cut_bytes: Sequence[int]
    times_s: Mapping[str, Sequence[float]]
    weight_bytes: Sequence[int]
    activation_bytes: Sequence[int]
    overhead_s: Mapping[str, float] = field(default_factory=dict)
    sha256: tuple[str, str] | None = None


@dataclass(frozen=True)
class Device:
    """A device: its class, its memory for models in bytes, and its speed relative to its class."""

    device_class: str
    memory_bytes: int
    speed: float = 1.0


@dataclass(frozen=True)
class Link:
    """A link between two devices, with the same bandwidth in both directions."""

    ends: tuple[str, str]
    bytes_per_s: float
    latency_s: float = 0.0


@dataclass(frozen=True)
class Case:
    """Contents of another project's files.

    Parameters
    ----------
    origin
        Which project and files it came from, for people.
    home
        Device at which samples arrive and to which their results return.
    batch
        Number of samples that are there from the start; None for a stream.
    notes
        What the files say that a scenario cannot hold, and how the scenario is to be used; a sentence each.
    """

    origin: str
    chains: Sequence[Chain]
    devices: Mapping[str, Device]
    links: Sequence[Link]
    home: str
    rate_per_s: float
    goal: Literal["delay", "throughput"]
    provenance: Literal["measured", "estimated"]
    batch: int | None = None
    notes: Sequence[str] = field(default=())


def usable_names(kind: str, names: Iterable[str], notes: list[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a name for each that a scenario accepts, and note those that had to change."""
    found: dict[str, str] = {}
    used = set(taken)
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name).lstrip("._-") or kind
        plain = plain if NAME.fullmatch(plain) else f"{kind}-{plain}"
        number = 1
        new = plain
        while new in used:
            number += 1
            new = f"{plain}-{number}"
        used.add(new)
        found[name] = new
    if changed := {old: new for old, new in found.items() if old != new}:
        pairs = ", ".join(f"{old!r} is {new}" for old, new in list(changed.items())[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        notes.append(f"a scenario's names have letters, digits, '_', '.' and '-' only: {kind} {pairs}{more}")
    return found


def write_case(case: Case, folder: Path) -> list[str]:
    """Write ``scenario.yaml`` and its profiles into a folder, and return what to tell the user.

    Raises
    ------
    InterchangeError
        If a value exceeds what scenarios and profiles can hold; nothing is written then.
    """
    notes = list(case.notes)
    devices = usable_names("device", case.devices, notes)
    classes = usable_names("class", dict.fromkeys(device.device_class for device in case.devices.values()), notes)
    chains = usable_names("model", (chain.name for chain in case.chains), notes)
    document = _scenario(case, devices, classes, chains)
    try:
        parse(document_of(document), ScenarioSpec, SCHEMA, check_scenario)
        profiles = {
            profile_path(folder / PROFILE_FOLDER, classes[name], chains[chain.name]): _profile(
                case, chain, name, classes[name], chains[chain.name]
            )
            for chain in case.chains
            for name in classes
        }
    except ScenarioError as error:
        raise InterchangeError(
            Fault(fault.what, f"{case.origin}: as {fault.where}", fault.value, fault.expected) for fault in error.faults
        ) from error
    for path, profile in profiles.items():
        save_profile(profile, path)
    write_text_atomic(folder / SCENARIO_FILE, _commented(case.origin, notes) + _yaml(document))
    return notes


def _scenario(
    case: Case, devices: Mapping[str, str], classes: Mapping[str, str], chains: Mapping[str, str]
) -> dict[str, Any]:
    networks: dict[tuple[float, float], list[list[str]]] = {}
    for link in case.links:
        ends = [devices[end] for end in link.ends]
        networks.setdefault((link.bytes_per_s, link.latency_s), []).append(ends)
    names = usable_names("links", (f"links-{number}" for number in range(1, len(networks) + 1)), [], devices.values())
    return {
        "schema": SCHEMA,
        "profiles": [PROFILE_FOLDER],
        "models": {
            chains[chain.name]: {"profile": chains[chain.name], "max_blocks": len(chain.layers)}
            for chain in case.chains
        },
        "workers": {
            devices[name]: {
                "device_class": classes[device.device_class],
                "memory": f"{device.memory_bytes} B",
                "base_memory": "0 B",
                "speed": device.speed,
            }
            for name, device in case.devices.items()
        },
        "networks": {
            name: {
                "kind": "point-to-point",
                "bandwidth": f"{bytes_per_s!r} B/s",
                "latency": f"{latency_s!r} s",
                "links": ends,
            }
            for name, ((bytes_per_s, latency_s), ends) in zip(names.values(), networks.items(), strict=True)
        },
        "sources": {
            SOURCE: {
                "worker": devices[case.home],
                "models": list(chains.values()),
                "rate": f"{case.rate_per_s!r} /s",
                **({} if case.batch is None else {"arrivals": "batch", "samples": case.batch}),
            }
        },
        "objective": {"goal": case.goal},
    }


def _profile(case: Case, chain: Chain, device_class: str, new_class: str, new_name: str) -> Profile:
    identity = json.dumps([new_name, *chain.layers, *chain.cut_bytes, *chain.weight_bytes])
    made = hashlib.sha256(identity.encode()).hexdigest()
    model_sha256, chain_sha256 = chain.sha256 or (made, made)
    costs = zip(chain.layers, chain.times_s[device_class], chain.weight_bytes, chain.activation_bytes, strict=True)
    try:
        return Profile(
            model=ModelReference(name=new_name, sha256=model_sha256),
            chain_sha256=chain_sha256,
            device_class=new_class,
            provenance=case.provenance,
            environment={"origin": case.origin},
            stage_overhead_s=chain.overhead_s.get(device_class, 0.0),
            fusion_saving_s=(),
            blocks=tuple(
                BlockCost(
                    name=name,
                    mean_s=max(time_s, LEAST_TIME_S),
                    std_s=0.0,
                    weight_bytes=weight_bytes,
                    activation_bytes=activation_bytes,
                    flop=0.0,
                    parameters=0,
                    load_s=0.0,
                )
                for name, time_s, weight_bytes, activation_bytes in costs
            ),
            cut_bytes=tuple(chain.cut_bytes),
        )
    except ValidationError as error:
        raise ScenarioError(
            Fault(item["msg"], f"the profile of {chain.name} on {device_class}", item["input"])
            for item in error.errors()
        ) from error


def _commented(origin: str, notes: Sequence[str]) -> str:
    lines = [f"Converted from {origin}.", *notes]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _yaml(document: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    yaml.dump(document, text)
    return text.getvalue()


def note_zero_times(times_s: Iterable[float], notes: list[str]) -> None:
    """Note that layers that take no time get the least time of a profile."""
    if count := sum(time_s < LEAST_TIME_S for time_s in times_s):
        notes.append(f"{count} times of 0 are {LEAST_TIME_S:g} s, the least that a profile holds")
