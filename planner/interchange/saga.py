"""SAGA's instances, a task graph with a network, in; its schedules out.

SAGA (Coleman and Krishnamachari, Scheduling Algorithms Gathered) has no units. A task takes its cost divided by the
speed of its node, and data takes its size divided by the speed of the link between two nodes. The value of a schedule
is its makespan. Here costs are seconds at speed 1, sizes bytes, and speeds of links bytes per second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from planner.base import FrozenModel
from planner.errors import Fault, InterchangeError
from planner.interchange.case import Case, Chain, Device, Link, note_zero_times
from planner.interchange.peer_files import NonNegative, PeerModel, Positive, read_json, unread
from planner.interchange.routes import only_route
from planner.plan.types import PlanSpec, Route
from planner.scenario.instance import Instance

LARGEST_EXACT: Final = 2.0**52
"""Sizes are scaled until the largest is about this, if they are not whole numbers."""

SAME_NODE_SPEED: Final = 1e300
"""Speed of the link of a node to itself: SAGA writes an infinite one as null, which it cannot read."""

UTILISATION: Final = 1e-9
"""Utilisation of the converted scenario: a schedule is for one sample, which waits for no other."""

CLASS: Final = "speed-1"


class Options(FrozenModel):
    """SAGA's files leave nothing to choose."""


class Task(PeerModel):
    """A task and its cost."""

    name: str
    cost: NonNegative


class Dependency(PeerModel):
    """Data that one task hands to another."""

    source: str
    target: str
    size: NonNegative


class TaskGraph(PeerModel):
    """Tasks with their dependencies."""

    tasks: list[Task]
    dependencies: list[Dependency]


class Node(PeerModel):
    """A node and its speed."""

    name: str
    speed: Positive


class Edge(PeerModel):
    """A link, the same in both directions, or the way from a node to itself; null is infinitely fast."""

    source: str
    target: str
    speed: NonNegative | None


class Network(PeerModel):
    """Nodes and their links."""

    nodes: list[Node]
    edges: list[Edge]


class ProblemInstance(PeerModel):
    """An instance, or a schedule of one, whose mapping is not read."""

    name: str = "saga"
    task_graph: TaskGraph
    network: Network


def read(files: Sequence[Path], _options: BaseModel) -> Case:
    """Read an instance whose task graph is a chain.

    Raises
    ------
    InterchangeError
        If the file is malformed, or its task graph is no chain.
    """
    if len(files) != 1:
        expected = "the file of one instance, as ProblemInstance.model_dump_json writes it"
        raise InterchangeError("an instance of SAGA is one file", where="FILE", value=len(files), expected=expected)
    file = files[0]
    instance = read_json(file, ProblemInstance, "an instance of SAGA", "name, task_graph and network")
    notes = list(unread(file, instance))
    order, sizes = _chain(instance.task_graph, file)
    nodes = _nodes(instance.network, file)
    links = _links(instance.network, nodes, file)
    scale = _scale(sizes)
    if scale != 1:
        notes.append(
            f"sizes and speeds of links are multiplied by {scale:.0f} = 2^{math.log2(scale):.0f}: sizes are whole bytes"
        )
    _note_network(instance.network, nodes, links, sum(sizes), notes)
    costs = [task.cost for task in order]
    note_zero_times(costs, notes)
    notes.append("a schedule is for one sample; neither its input nor its result is sent")
    slowest = min(nodes.values())
    longest_s = sum(costs) / slowest + sum(sizes) / min(links.values(), default=math.inf)
    return Case(
        origin=f"SAGA's {file.name}",
        chains=[
            Chain(
                name=instance.name,
                layers=[task.name for task in order],
                cut_bytes=[0, *(round(size * scale) for size in sizes), 0],
                times_s={CLASS: costs},
                weight_bytes=[0] * len(order),
                activation_bytes=[0] * len(order),
            )
        ],
        devices={name: Device(CLASS, 2**30, speed) for name, speed in nodes.items()},
        links=[Link(ends, speed * scale) for ends, speed in links.items()],
        home=next(iter(nodes)),
        rate_per_s=max(UTILISATION / max(longest_s, 1e-12), 1e-12),
        goal="delay",
        batch=1,
        provenance="estimated",
        notes=notes,
    )


def _chain(graph: TaskGraph, file: Path) -> tuple[list[Task], list[float]]:
    """Return the tasks in order, and the size of what each hands to the next."""
    place = f"{file}: task_graph"
    tasks: dict[str, Task] = {}
    for index, task in enumerate(graph.tasks):
        if task.name in tasks:
            where = f"{place}.tasks[{index}].name"
            raise InterchangeError("this task is already there", where=where, value=task.name, expected="each once")
        tasks[task.name] = task
    following: dict[str, Dependency] = {}
    targets: dict[str, str] = {}
    for index, edge in enumerate(graph.dependencies):
        where = f"{place}.dependencies[{index}]"
        for key, name in (("source", edge.source), ("target", edge.target)):
            if name not in tasks:
                expected = f"one of {', '.join(list(tasks)[:10])}"
                raise InterchangeError("unknown task", where=f"{where}.{key}", value=name, expected=expected)
        if edge.source in following or edge.target in targets:
            fork = edge.source in following
            what = f"a scenario has chains only, and task {edge.source if fork else edge.target} has several "
            raise InterchangeError(
                what + ("successors" if fork else "predecessors"),
                where=where,
                value=[edge.source, edge.target],
                expected="a task graph that is a chain",
            )
        following[edge.source], targets[edge.target] = edge, edge.source
    starts = [name for name in tasks if name not in targets]
    if len(starts) != 1:
        what = "the task graph has a cycle" if tasks and not starts else f"the task graph has {len(starts)} chains"
        raise InterchangeError(what, where=place, value=starts[:5] or None, expected="one chain of tasks")
    order, sizes = [tasks[starts[0]]], []
    while edge_on := following.get(order[-1].name):
        sizes.append(edge_on.size)
        order.append(tasks[edge_on.target])
    if len(order) < len(tasks):
        missed = next(name for name in tasks if name not in {task.name for task in order})
        raise InterchangeError("the task graph has a cycle", where=place, value=missed, expected="one chain of tasks")
    return order, sizes


def _nodes(network: Network, file: Path) -> dict[str, float]:
    nodes: dict[str, float] = {}
    for index, node in enumerate(network.nodes):
        where = f"{file}: network.nodes[{index}]"
        if node.name in nodes:
            raise InterchangeError("this node is already there", where=where, value=node.name, expected="each once")
        if not 1e-9 <= node.speed <= 1e9:
            expected = "a speed between 1e-9 and 1e9"
            raise InterchangeError("speed out of range", where=f"{where}.speed", value=node.speed, expected=expected)
        nodes[node.name] = node.speed
    if not nodes:
        raise InterchangeError("the network has no nodes", where=f"{file}: network.nodes", expected="one or more")
    return dict(sorted(nodes.items()))


def _links(network: Network, nodes: Mapping[str, float], file: Path) -> dict[tuple[str, str], float]:
    """Return the speed of each link between two nodes over which data can be sent."""
    links: dict[tuple[str, str], float] = {}
    for index, edge in enumerate(network.edges):
        where = f"{file}: network.edges[{index}]"
        for key, name in (("source", edge.source), ("target", edge.target)):
            if name not in nodes:
                expected = f"one of {', '.join(list(nodes)[:10])}"
                raise InterchangeError("unknown node", where=f"{where}.{key}", value=name, expected=expected)
        if edge.source == edge.target:
            continue
        if edge.speed is None:
            expected = "a number; only the link of a node to itself is infinitely fast"
            raise InterchangeError("the link has no speed", where=f"{where}.speed", expected=expected)
        ends = (min(edge.source, edge.target), max(edge.source, edge.target))
        if links.setdefault(ends, edge.speed) != edge.speed:
            what, expected = "this link is already there with another speed", "one speed for both directions"
            raise InterchangeError(what, where=f"{where}.speed", value=edge.speed, expected=expected)
    return {ends: speed for ends, speed in sorted(links.items()) if speed > 0}


def _scale(sizes: Sequence[float]) -> float:
    """Return the power of two by which sizes become whole numbers, to 16 digits of the largest."""
    largest = max(sizes, default=0.0)
    if largest <= LARGEST_EXACT and all(size == int(size) for size in sizes):
        return 1.0
    return float(2.0 ** (math.log2(LARGEST_EXACT) - math.ceil(math.log2(largest))))


def _note_network(
    network: Network,
    nodes: Mapping[str, float],
    links: Mapping[tuple[str, str], float],
    data: float,
    notes: list[str],
) -> None:
    pairs = len(nodes) * (len(nodes) - 1) // 2
    if len(links) < pairs:
        notes.append(
            f"{pairs - len(links)} of {pairs} pairs of nodes have no link: samples may pass through others here, which "
            "SAGA does not know, and such a plan cannot be written as its schedule"
        )
    own = [edge.speed for edge in network.edges if edge.source == edge.target and edge.speed is not None]
    if own and data:
        lost = f"at most {data / min(own):.3g} s in all" if min(own) > 0 else "without end, as their speed is 0"
        notes.append(f"data between two tasks on one node takes no time here; in SAGA {lost}")


def write(plan: PlanSpec, instance: Instance) -> tuple[str, list[str]]:
    """Return a plan as SAGA's schedule, and what SAGA cannot be told.

    Raises
    ------
    InterchangeError
        If samples take several routes, the workers' times differ by more than a speed, or data passes through a third
        worker.
    """
    _, route = only_route(plan)
    costs, speeds = _costs(route, instance)
    notes = list(_lost(route, instance))
    profile = instance.any_profile(route.model)
    names = _task_names([block.name for block in profile.blocks])
    sizes = profile.cut_bytes[1:-1]
    links = {
        (a, b): instance.paths[a][b].hops[0].bytes_per_s
        for a in instance.workers
        for b in instance.workers
        if a < b and b in instance.paths.get(a, {}) and len(instance.paths[a][b].hops) == 1
    }
    where = [stage.worker for stage in route.stages for _ in range(stage.first_block, stage.last_block + 1)]
    mapping: dict[str, list[dict[str, Any]]] = {worker: [] for worker in instance.workers}
    now = 0.0
    for block, worker in enumerate(where):
        if block and worker != where[block - 1]:
            ends = (min(worker, where[block - 1]), max(worker, where[block - 1]))
            if ends not in links:
                raise InterchangeError(
                    "SAGA sends data over a link only, and the plan sends it through a third worker",
                    where="plan",
                    value=[where[block - 1], worker],
                    expected="a plan whose stages follow links",
                )
            now += sizes[block - 1] / links[ends]
        end = now + costs[block] / speeds[worker]
        mapping[worker].append({"node": worker, "name": names[block], "start": now, "end": end})
        now = end
    document = {
        "task_graph": {
            "tasks": [{"name": name, "cost": cost} for name, cost in zip(names, costs, strict=True)],
            "dependencies": [
                {"source": source, "target": target, "size": float(size)}
                for source, target, size in zip(names, names[1:], sizes, strict=False)
            ],
        },
        "network": {
            "nodes": [{"name": worker, "speed": speeds[worker]} for worker in instance.workers],
            "edges": [
                {"source": a, "target": b, "speed": SAME_NODE_SPEED if a == b else links.get((a, b), 0.0)}
                for a in sorted(instance.workers)
                for b in sorted(instance.workers)
                if a <= b
            ],
        },
        "mapping": mapping,
        "node_constraints": None,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n", notes


def _costs(route: Route, instance: Instance) -> tuple[list[float], dict[str, float]]:
    """Return the cost of each task, and the speed of each worker."""
    classes = {spec.device_class for spec in instance.scenario.workers.values()}
    if len(classes) == 1:
        costs = [block.mean_s for block in instance.any_profile(route.model).blocks]
        return costs, {name: spec.speed for name, spec in instance.scenario.workers.items()}
    times_s = {worker: instance.block_s(route.model, worker) for worker in instance.workers}
    first = times_s[instance.workers[0]]
    speeds = {worker: float(first.sum() / found.sum()) for worker, found in times_s.items()}
    for worker, found in times_s.items():
        off = np.abs(found * speeds[worker] / first - 1)
        if off.max() > 1e-9:
            block = int(off.argmax())
            raise InterchangeError(
                [
                    Fault(
                        "SAGA's nodes differ by a speed only, and the times of the workers differ block by block",
                        f"profile of {route.model} for {worker}: blocks[{block}]",
                        float(found[block]),
                        f"{first[block] / speeds[worker]:g} s, as far from {instance.workers[0]} as on average",
                    )
                ]
            )
    return first.tolist(), speeds


def _task_names(names: Sequence[str]) -> list[str]:
    return list(names) if len(set(names)) == len(names) else [f"{index}-{name}" for index, name in enumerate(names)]


def _lost(route: Route, instance: Instance) -> list[str]:
    """Return what a schedule of SAGA leaves out: a sentence each."""
    scenario, profile = instance.scenario, instance.any_profile(route.model)
    notes = []
    if latencies := [name for name, network in scenario.networks.items() if network.latency_s]:
        notes.append(f"SAGA's links have no latency: that of {', '.join(latencies)} is left out")
    if shared := [name for name, network in scenario.networks.items() if network.kind == "shared"]:
        notes.append(f"SAGA's links are independent: the workers of {', '.join(shared)} share a medium")
    if profile.cut_bytes[0] or profile.cut_bytes[-1]:
        notes.append("the ways of the input to the first worker and of the result back to the source are left out")
    if any(instance.profile(route.model, worker).stage_overhead_s for worker in instance.workers):
        notes.append("the overheads of stages are left out")
    if route.operating_point:
        notes.append("early exits are left out: a schedule runs every task")
    if any(block.weight_bytes for block in profile.blocks):
        notes.append("SAGA knows no memory: the workers' limits are left out")
    return notes
