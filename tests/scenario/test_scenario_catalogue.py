"""Catalogues of devices: what is wrong with them, and the scenarios that devices give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.errors import ScenarioError
from planner.scenario.catalogue import Catalogue, expanded, load_catalogue
from planner.scenario.document import document_of
from planner.scenario.load import load_scenario
from planner.scenario.parse import parse
from planner.scenario.paths import find_paths
from planner.scenario.types import SCHEMA, ScenarioSpec
from tests.scenario.examples import GOOD, write

CATALOGUE = """\
schema: planner/catalogue/v1
currency: EUR
networks:
  lan: {kind: point-to-point, members: [gate, hall], bandwidth: 1 Gbit/s, latency: 1 ms}
  solo: {kind: shared, members: [gate], bandwidth: 100 Mbit/s}
devices:
  orin: {device_class: large, memory: 8 GiB, price: 249.5, count: 3, network: wifi}
  nano: {device_class: small, memory: 4 GiB, price: 99, network: lan}
  tiny: {device_class: small, memory: 1 GiB, price: 0, network: solo}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> ScenarioSpec:
    return load_scenario(write(tmp_path, GOOD))


def catalogue(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CATALOGUE
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "devices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


BAD = {
    "no price": (
        ("price: 99, ", ""),
        "devices.yaml:8: devices.nano.price: is missing; expected a number of at least 0",
    ),
    "negative": (("price: 99", "price: -1"), "devices.nano.price: must be at least 0; found -1"),
    "text": (("price: 99", "price: 99 EUR"), "devices.nano.price: does not fit; found '99 EUR'"),
    "no device": (("count: 3", "count: 0"), "devices.orin.count: must be at least 1; found 0"),
    "key": (("count: 3", "cont: 3"), "devices.orin.cont: unknown key; found 'cont'; expected 'count'"),
    "network": (("network: lan", "network: lam"), "devices.nano.network: unknown network; found 'lam'"),
    "chain": (("network: solo", "network: wire"), None),
    "taken": (("  solo:", "  wire:"), "networks.wire: the scenario has this name already"),
    "member": (("members: [gate]", "members: [gat]"), "networks.solo.members[0]: unknown worker; found 'gat'"),
    "cap": (("memory: 1 GiB", "memory: 1 GiB, max_utilisation: 0 %"), "devices.tiny.max_utilisation: must be greater"),
    "power": (("memory: 1 GiB", "memory: 1 GiB, power: {idle: -1 W, busy: 2 W}"), "must not be negative; found '-1 W'"),
    "memory": (("memory: 1 GiB", "memory: 100 MiB"), "no memory is left for models"),
    "version": (("catalogue/v1", "catalogue/v2"), "not a catalogue of devices of this version"),
    "name": (("  tiny:", "  tiny box:"), "not a usable name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_line(name: str, scenario: ScenarioSpec, tmp_path: Path) -> None:
    change, message = BAD[name]
    if message is None:  # a complete network of two workers takes a third
        load_catalogue(catalogue(tmp_path, change), scenario)
        return
    with pytest.raises(ScenarioError) as caught:
        load_catalogue(catalogue(tmp_path, change), scenario)
    assert message in str(caught.value)


def test_all_errors_are_reported_at_once(scenario: ScenarioSpec, tmp_path: Path) -> None:
    changes = [BAD[name][0] for name in ("no price", "no device", "member")]
    with pytest.raises(ScenarioError) as caught:
        load_catalogue(catalogue(tmp_path, *changes), scenario)
    assert len(caught.value.faults) == 3


def test_an_incomplete_network_takes_no_device(tmp_path: Path) -> None:
    chain = GOOD.replace("links: [[yard, hall]]", "links: [[gate, yard], [yard, hall]]")
    scenario = load_scenario(write(tmp_path, chain))
    with pytest.raises(ScenarioError, match="not all workers on this network are linked to each other"):
        load_catalogue(catalogue(tmp_path, ("network: lan", "network: wire")), scenario)


def test_the_goal_energy_needs_the_power_of_devices(tmp_path: Path) -> None:
    power = "power: {idle: 1 W, busy: 2 W}, "
    with_power = GOOD.replace("{device_class", "{" + power + "device_class").replace("goal: delay", "goal: energy")
    scenario = load_scenario(write(tmp_path, with_power))
    with pytest.raises(ScenarioError, match=r"devices\.orin\.power: the goal energy needs it"):
        load_catalogue(catalogue(tmp_path), scenario)


def widened(known: Catalogue, data: dict[str, Any], counts: dict[str, int]) -> ScenarioSpec:
    return parse(document_of(expanded(data, known, counts)), ScenarioSpec, SCHEMA, lambda _: ())


def test_devices_join_their_networks_and_leave_all_other_paths_alone(tmp_path: Path) -> None:
    from planner.scenario.document import plain, read_document

    path = write(tmp_path, GOOD)
    scenario, data = load_scenario(path), plain(read_document(path).data)
    known = load_catalogue(catalogue(tmp_path), scenario)
    before = find_paths(widened(known, data, {}))
    counts = {"orin": 2, "nano": 2, "tiny": 1}
    sized = widened(known, data, counts)
    assert tuple(sized.workers) == ("gate", "yard", "hall", "orin-1", "orin-2", "nano-1", "nano-2", "tiny-1")
    assert sized.networks["wifi"].members == ("gate", "yard", "orin-1", "orin-2")
    assert len(sized.networks["lan"].links) == 6
    assert sized.networks["solo"].members == ("gate", "tiny-1")
    assert "solo" not in widened(known, data, {"orin": 1}).networks
    after = find_paths(sized)
    for sender, receivers in before.items():
        assert {name: after[sender][name] for name in receivers} == receivers
    assert all(after["gate"][f"{kind}-{number + 1}"] for kind, count in counts.items() for number in range(count))
    assert data == plain(read_document(path).data)


def test_names_that_are_taken_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("hall", "orin-1"))
    from planner.scenario.document import plain, read_document

    scenario, data = load_scenario(path), plain(read_document(path).data)
    known = load_catalogue(catalogue(tmp_path, ("hall", "orin-1")), scenario)
    assert tuple(widened(known, data, {"orin": 2}).workers) == ("gate", "yard", "orin-1", "orin-2", "orin-3")
