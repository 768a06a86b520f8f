"""Catalogues: devices that may be added to a scenario, with their prices (``planner/catalogue/v1``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from planner.files import StrPath
from planner.scenario.check import Finding, of_memory, of_names, of_power, of_repeats, unknown
from planner.scenario.document import Document, document_of, plain, read_document
from planner.scenario.parse import parse
from planner.scenario.quantities import BytesPerSecond, Count, Entry, Seconds
from planner.scenario.types import NetworkSpec, ScenarioSpec, WorkerSpec

SCHEMA: Final = "planner/catalogue/v1"

Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class DeviceSpec(WorkerSpec):
    """A kind of device that may be bought. Apart from the keys here, it has those of a worker of a scenario."""

    price: Price
    """Price of one device."""
    count: Count = 8
    """How many may be bought at most."""
    network: str
    """Network of the scenario or of the catalogue that the device joins. On a shared medium it becomes a member; on a
    point-to-point network it is linked to every worker there, which must all be linked to each other."""


class CatalogueNetworkSpec(Entry):
    """A network that the scenario lacks, for devices to join."""

    kind: Literal["shared", "point-to-point"]
    """``shared``: all transfers share the airtime of one medium; ``point-to-point``: each direction is separate."""
    members: tuple[str, ...] = Field(min_length=1)
    """The workers of the scenario on it; on a point-to-point network they are all linked to each other."""
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    """Bandwidth of the medium, or of each direction of a link."""
    latency_s: Seconds = Field(default=0.0, alias="latency")
    """Time added to each transfer; uses no capacity."""
    relay: Literal["none", "access-point"] = "none"
    """``access-point``: every transfer crosses the medium twice."""


class CatalogueSpec(Entry):
    """Devices that may be added to a scenario, and what they cost."""

    schema_: Literal["planner/catalogue/v1"] = Field(default=SCHEMA, alias="schema")
    """Version of this format."""
    currency: str = ""
    """Currency of the prices, for output."""
    networks: dict[str, CatalogueNetworkSpec] = {}
    """Networks that the scenario lacks, by name."""
    devices: dict[str, DeviceSpec] = Field(min_length=1)
    """The kinds of devices, by name."""


@dataclass(frozen=True)
class Catalogue:
    """A checked catalogue: its contents in SI units, and as they are in its file."""

    spec: CatalogueSpec
    data: Mapping[str, Any]


def load_catalogue(catalogue: StrPath | Mapping[str, Any], scenario: ScenarioSpec) -> Catalogue:
    """Read a catalogue for a scenario, from a file or from a mapping with the keys of one.

    Raises
    ------
    ScenarioError
        With all errors of the catalogue.
    """
    if isinstance(catalogue, Mapping):
        document = document_of(catalogue)
    else:
        document = read_document(Path(catalogue), "catalogue", "currency, networks and devices")
    return parse_catalogue(document, scenario)


def parse_catalogue(document: Document, scenario: ScenarioSpec) -> Catalogue:
    """Return the contents of a catalogue that was read; errors as of :func:`load_catalogue`."""
    spec = parse(document, CatalogueSpec, SCHEMA, partial(check_catalogue, scenario))
    return Catalogue(spec, plain(document.data))


def check_catalogue(scenario: ScenarioSpec, catalogue: CatalogueSpec) -> Iterator[Finding]:
    """Yield what is wrong with a catalogue for a scenario beyond its schema."""
    yield from of_names("networks", catalogue.networks)
    yield from of_names("devices", catalogue.devices)
    yield from _of_networks(scenario, catalogue)
    for name, device in catalogue.devices.items():
        location = ("devices", name)
        yield from of_memory(location, device)
        yield from of_power((*location, "power"), device, scenario.objective.goal)
        known = {**scenario.networks, **catalogue.networks}
        if device.network not in known:
            yield unknown("network", device.network, known, (*location, "network"))
        elif device.network in scenario.networks and not _all_linked(scenario.networks[device.network]):
            yield Finding(
                (*location, "network"),
                "not all workers on this network are linked to each other, so a device cannot be linked to all",
                device.network,
                "a shared network, a complete one, or one in the catalogue's networks",
            )


def _of_networks(scenario: ScenarioSpec, catalogue: CatalogueSpec) -> Iterator[Finding]:
    for name, network in catalogue.networks.items():
        location = ("networks", name)
        if name in scenario.networks or name in scenario.workers:
            yield Finding(location, "the scenario has this name already", name, "another name")
        for index, member in enumerate(network.members):
            if member not in scenario.workers:
                yield unknown("worker", member, scenario.workers, (*location, "members", index))
        yield from of_repeats(network.members, (*location, "members"), "this worker is already named")
        if network.kind == "point-to-point" and network.relay != "none":
            what = "only a shared network has an access point"
            yield Finding((*location, "relay"), what, network.relay, "relay: none", ((*location, "kind"),))


def _all_linked(network: NetworkSpec) -> bool:
    """Return whether a network is shared, or links each two of its workers."""
    linked = {frozenset(link) for link in network.links}
    workers = {worker for link in network.links for worker in link}
    return network.kind == "shared" or len(linked) == len(workers) * (len(workers) - 1) // 2


def copies(catalogue: CatalogueSpec, counts: Mapping[str, int], taken: Collection[str]) -> dict[str, list[str]]:
    """Return the names of the workers that devices become, by kind: ``orin-1``, ``orin-2``, … where they are free.

    Parameters
    ----------
    taken
        Names of the scenario's workers and networks.
    """
    named, taken = {}, {*taken, *catalogue.networks}
    for device in catalogue.devices:
        free = (f"{device}-{number}" for number in range(1, len(taken) + counts.get(device, 0) + 1))
        named[device] = [name for name in free if name not in taken][: counts.get(device, 0)]
    return named


def expanded(data: Mapping[str, Any], catalogue: Catalogue, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a scenario, as it is in its file, with some devices of a catalogue as further workers.

    Networks of the catalogue are added where they join two workers. No device relays what others send, so the paths
    between other workers do not depend on the devices that are added.

    Parameters
    ----------
    counts
        How many devices of each kind to add.
    """
    scenario: dict[str, Any] = plain(data)
    networks = scenario["networks"] = scenario.get("networks") or {}
    taken = {*scenario["workers"], *networks}
    on_network: dict[str, list[str]] = {}
    for kind, names in copies(catalogue.spec, counts, taken).items():
        entry = catalogue.data["devices"][kind]
        on_network.setdefault(entry["network"], []).extend(names)
        keys = {key: value for key, value in entry.items() if key not in ("price", "count", "network")}
        scenario["workers"].update((name, plain(keys)) for name in names)
    for name, network in plain(catalogue.data.get("networks") or {}).items():
        members = [*network.pop("members"), *on_network.pop(name, [])]
        if len(members) > 1:
            shared = network["kind"] == "shared"
            networks[name] = network | ({"members": members} if shared else {"links": _pairs(members)})
    for name, joining in on_network.items():
        network = networks[name]
        if network["kind"] == "shared":
            network["members"] = [*network["members"], *joining]
        else:
            ends = dict.fromkeys(worker for link in network["links"] for worker in link)
            network["links"] = _pairs([*ends, *joining])
    return scenario


def _pairs(workers: Iterable[str]) -> list[list[str]]:
    return [list(pair) for pair in combinations(workers, 2)]
