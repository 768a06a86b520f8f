"""Helix's clusters: the way of a request takes as long as by Helix's own rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import InterchangeError, PlannerError

CLUSTER = """
[NodeNames]
total_compute_nodes=2

[ComputeNode-0]
type=L4
[ComputeNode-1]
type="T4"

[Link-source-0]
bandwidth=10 * mbps
latency=5 * MilliSec
[Link-source-1]
bandwidth=2.5 * mbps
latency=0
[Link-0-1]
bandwidth=1000 * mbps
latency=1 * MilliSec
[Link-0-sink]
bandwidth=10 * mbps
latency=5 * MilliSec
[Link-1-sink]
bandwidth=4 * mbps
latency=20 * MilliSec
"""
PROFILES = """
[SourceNode]
inbound_nic_speed = -1
outbound_nic_speed = 10 * gbps
[SinkNode]
inbound_nic_speed = 10 * gbps
outbound_nic_speed = -1
[L4]
inbound_nic_speed = 10 * gbps
outbound_nic_speed = 10 * gbps
vram_size = 4 * GB
[T4]
inbound_nic_speed = 100 * mbps
outbound_nic_speed = 200 * mbps
vram_size = 3 * GB
"""
TABLES = {"l4": "0,0\n250,2\n500,5\n", "t4": "0,0\n400,8\n500,9.5\n"}
OPTIONS: dict[str, Any] = {"layers": 5, "layer_bytes": 10**9, "activation_bytes": 16384, "tokens": 400}


def write(folder: Path, cluster: str = CLUSTER, profiles: str = PROFILES, **tables: str) -> list[Path]:
    contents = {"cluster.ini": cluster, "machine_profile.ini": profiles}
    contents |= {f"{kind}/prompt_bs2time.csv": text for kind, text in {**TABLES, **tables}.items()}
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return [folder / name for name in contents]


def test_a_request_takes_as_long_as_by_helix(tmp_path: Path) -> None:
    converted = planner.convert("helix", write(tmp_path), tmp_path / "out", **OPTIONS)
    scenario = converted.scenario
    data = scenario.to_dict()
    data["sources"]["samples"] |= {"arrivals": "batch", "samples": 1}
    alone = planner.Scenario.from_dict(data, folder=tmp_path / "out")
    pins = {"samples": {0: "node-0", 1: "node-0", 2: "node-0", 3: "node-1", 4: "node-1"}}
    plan = planner.solve(alone, method="exhaustive", pins=pins)
    measured = planner.simulate(alone, plan).to_dict()["sources"]["samples"]["mean_delay_s"]
    compute_s = 3 * (2 + 3 * 150 / 250) / 1000 + 2 * 8 / 1000
    # 2 bytes a token from and to the coordinator; the slower direction of node 1's link counts for both.
    network_s = 800 / 10e6 + 5e-3 + 400 * (2 + 16384) / 100e6 + 1e-3 + 800 / 2.5e6 + 20e-3
    assert measured == pytest.approx(compute_s + network_s, rel=1e-9)
    assert "2 of 3 links differ by direction" in " ".join(converted.notes)


def test_layers_fit_the_memory_and_none_is_at_the_coordinator(tmp_path: Path) -> None:
    scenario = planner.convert("helix", write(tmp_path), tmp_path / "out", **OPTIONS).scenario
    plan = planner.solve(scenario, method="search", time_limit_s=5)
    stages = plan.sources["samples"].routes[0].stages
    counts = {
        name: sum(s.last_block - s.first_block + 1 for s in stages if s.worker == name) for name in scenario.workers
    }
    assert counts["coordinator"] == 0
    assert counts["node-0"] <= 4
    assert counts["node-1"] <= 3


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("total_compute_nodes=2", "total_compute_nodes=two", "[NodeNames] total_compute_nodes"),
        ("total_compute_nodes=2", "total_compute_nodes=3", "[ComputeNode-2]"),
        ("type=L4", "type=H100", "[ComputeNode-0] type"),
        ("1000 * mbps", "fast", "[Link-0-1] bandwidth"),
        ("1000 * mbps", "-5 * mbps", "[Link-0-1] bandwidth"),
        ("1000 * mbps", "nan", "[Link-0-1] bandwidth"),
        ("1000 * mbps", "5 * furlongs", "[Link-0-1] bandwidth"),
        ("bandwidth=1000 * mbps\n", "", "[Link-0-1] bandwidth"),
        ("[Link-0-1]", "[Link-0-7]", "[Link-0-7]"),
        ("[Link-0-1]", "[Link-1-0]\nlatency=0\nbandwidth=1\n[Link-0-1]", "[Link-0-1]"),
        ("[NodeNames]", "NodeNames", "cluster.ini"),
    ],
)
def test_bad_clusters_are_named_with_place(old: str, new: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(InterchangeError) as found:
        planner.convert("helix", write(tmp_path, CLUSTER.replace(old, new)), tmp_path / "out", **OPTIONS)
    (fault,) = found.value.faults
    assert str(fault.where).endswith(place)
    assert fault.expected


@pytest.mark.parametrize(
    ("table", "options", "place"),
    [
        ("0,0\n250,fast\n", {}, "l4/prompt_bs2time.csv:2"),
        ("0,0\n250,2\n250,3\n", {}, "l4/prompt_bs2time.csv:3"),
        ("0,0\n250,-2\n", {}, "l4/prompt_bs2time.csv:2"),
        ("0,0\n250,nan\n", {}, "l4/prompt_bs2time.csv:2"),
        ("0,0\n250,2\n", {}, "--set tokens"),
        ("", {}, "--set tokens"),
        (TABLES["l4"], {"layers": None}, "--set layers"),
        (TABLES["l4"], {"layers": "many"}, "--set layers"),
    ],
)
def test_bad_tables_and_options_are_named(table: str, options: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(PlannerError) as found:
        planner.convert("helix", write(tmp_path, l4=table), tmp_path / "out", **{**OPTIONS, **options})
    assert str(found.value.faults[0].where).endswith(place)


def test_every_type_needs_a_table(tmp_path: Path) -> None:
    with pytest.raises(InterchangeError, match="type T4: no table"):
        planner.convert("helix", write(tmp_path)[:3], tmp_path / "out", **OPTIONS)
