"""SAGA's instances and schedules: the makespan by SAGA's own rule, and what cannot be held."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.errors import InterchangeError

Document = dict[str, Any]


def instance(seed: int = 0, tasks: int = 4, nodes: int = 3) -> Document:
    """A chain as SAGA writes it: in no order, without units, with null for the infinite speed within a node."""
    random = np.random.default_rng(seed)
    names = [f"N{node}" for node in range(nodes)]
    edges = [
        {"source": a, "target": b, "speed": None if a == b else float(random.uniform(0.5, 4))}
        for i, a in enumerate(names)
        for b in names[i:]
    ]
    return {
        "name": "some chain",
        "task_graph": {
            "tasks": [{"name": f"T{task}", "cost": float(random.uniform(0.1, 2))} for task in reversed(range(tasks))],
            "dependencies": [
                {"source": f"T{task}", "target": f"T{task + 1}", "size": float(random.uniform(1e-9, 2))}
                for task in range(tasks - 1)
            ],
        },
        "network": {
            "nodes": [{"name": name, "speed": float(random.uniform(0.3, 3))} for name in names],
            "edges": edges,
        },
    }


def makespan(document: Document, where: dict[str, str]) -> float:
    """The end of the last task, by SAGA's rule: cost over speed, and size over the speed of the link."""
    costs = {task["name"]: task["cost"] for task in document["task_graph"]["tasks"]}
    speeds = {node["name"]: node["speed"] for node in document["network"]["nodes"]}
    links = {frozenset((edge["source"], edge["target"])): edge["speed"] for edge in document["network"]["edges"]}
    now = costs["T0"] / speeds[where["T0"]]
    for edge in sorted(document["task_graph"]["dependencies"], key=lambda edge: str(edge["source"])):
        ends = {where[edge["source"]], where[edge["target"]]}
        now += edge["size"] / links[frozenset(ends)] if len(ends) > 1 else 0.0
        now += costs[edge["target"]] / speeds[where[edge["target"]]]
    return float(now)


def convert(document: Any, folder: Path) -> planner.Conversion:
    folder.joinpath("instance.json").write_text(json.dumps(document))
    return planner.convert("saga", folder / "instance.json", folder / "out")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_plan_has_the_least_makespan_of_saga(seed: int, tmp_path: Path) -> None:
    document = instance(seed)
    converted = convert(document, tmp_path)
    plan = planner.solve(converted.scenario, method="exhaustive")
    schedule = json.loads(plan.export("saga").text)
    where = {task["name"]: node for node, tasks in schedule["mapping"].items() for task in tasks}
    end = max(task["end"] for tasks in schedule["mapping"].values() for task in tasks)
    best = min(
        makespan(document, dict(zip(("T0", "T1", "T2", "T3"), nodes, strict=True)))
        for nodes in product(("N0", "N1", "N2"), repeat=4)
    )
    assert end == pytest.approx(makespan(document, where), rel=1e-9)
    assert end == pytest.approx(best, rel=1e-9)
    assert plan.sources["samples"].delay_s == pytest.approx(best, rel=1e-8)
    assert planner.simulate(converted.scenario, plan).to_dict()["sources"]["samples"]["mean_delay_s"] == pytest.approx(
        best, rel=1e-9
    )
    again = convert(schedule, tmp_path).scenario.instance.any_profile("saga")  # a schedule holds its instance
    assert again.blocks == converted.scenario.instance.any_profile("some-chain").blocks


def test_sizes_that_are_whole_numbers_stay(tmp_path: Path) -> None:
    document = instance()
    for edge in document["task_graph"]["dependencies"]:
        edge["size"] = 1000.0
    profile = convert(document, tmp_path).scenario.instance.any_profile("some-chain")
    assert profile.cut_bytes == (0, 1000, 1000, 1000, 0)


def test_what_a_scenario_cannot_hold_is_told(tmp_path: Path) -> None:
    document = instance()
    document["network"]["edges"] = [edge for edge in document["network"]["edges"] if edge["target"] != "N1"]
    document["network"]["edges"][0]["speed"] = 1e9
    document["task_graph"]["tasks"][0]["cost"] = 0
    document["colour"] = "red"
    told = " ".join(convert(document, tmp_path).notes)
    for words in ("1 of 3 pairs", "between two tasks on one node", "times of 0", "not used: colour"):
        assert words in told


def without_link(document: Document) -> Document:
    """N0 and N1 are joined by N2 alone, which is slow; N0 is fast but for the last task's data."""
    document["network"]["edges"] = [edge for edge in document["network"]["edges"] if edge["target"] != "N1"]
    return document


def test_data_through_a_third_node_is_no_schedule_of_saga(tmp_path: Path) -> None:
    plan = planner.solve(
        convert(without_link(instance()), tmp_path).scenario,
        method="exhaustive",
        pins={"samples": {0: "N0", 1: "N0", 2: "N1", 3: "N1"}},
    )
    with pytest.raises(InterchangeError, match="third worker"):
        plan.export("saga")


def edited(*place: Any, seed: int = 0) -> Document:
    *outer, key, value = place
    document = instance(seed)
    entry: Any = document
    for step in outer:
        entry = entry[step]
    if value is None:
        del entry[key]
    elif isinstance(entry, list) and key == len(entry):
        entry.append(value)
    else:
        entry[key] = value
    return document


EDGES = ("task_graph", "dependencies")


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (edited("network", None), "network"),
        (edited("task_graph", "tasks", 1, "cost", "long"), "task_graph.tasks[1].cost"),
        (edited("task_graph", "tasks", 1, "cost", -1), "task_graph.tasks[1].cost"),
        (edited("task_graph", "tasks", 1, "cost", float("nan")), "instance.json"),
        (edited("task_graph", "tasks", 1, "name", "T0"), "task_graph.tasks[3].name"),
        (edited("task_graph", "tasks", []), "task_graph.dependencies[0].source"),
        (edited(*EDGES, 3, {"source": "T0", "target": "T3", "size": 1}), "dependencies[3]"),
        (edited(*EDGES, 3, {"source": "T3", "target": "T0", "size": 1}), "task_graph"),
        (edited(*EDGES, 1, "target", "T9"), "dependencies[1].target"),
        (edited(*EDGES, 1, None), "task_graph"),
        (edited("network", "nodes", 0, "speed", 0), "network.nodes[0].speed"),
        (edited("network", "nodes", []), "network.nodes"),
        (edited("network", "edges", 1, "target", "N9"), "network.edges[1].target"),
        (edited("network", "edges", 6, {"source": "N1", "target": "N0", "speed": 9.0}), "network.edges[6].speed"),
        ([], "instance.json"),
    ],
)
def test_bad_files_are_named_with_place(document: Any, place: str, tmp_path: Path) -> None:
    with pytest.raises(InterchangeError) as found:
        convert(document, tmp_path)
    (fault,) = found.value.faults
    assert str(fault.where).endswith(place)
    assert fault.expected
    assert not (tmp_path / "out").exists()


def test_workers_that_differ_by_more_than_a_speed_are_refused(tmp_path: Path) -> None:
    from tests.interchange.test_pipeedge import documents, write

    converted = planner.convert("pipeedge", write(tmp_path / "in", *documents()), tmp_path / "out")
    with pytest.raises(InterchangeError, match="differ block by block"):
        planner.solve(converted.scenario, method="local").export("saga")
