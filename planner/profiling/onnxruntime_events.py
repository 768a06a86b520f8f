"""Times in the trace that onnxruntime writes with ``SessionOptions.enable_profiling``.

Each run of a node is an event. A node that was not changed has its own name, or ``<operator>_<number>`` without one. A
fused node has the name of a node or tensor of the model and an ending. The fields depend on the version: the number
of a node is ``node_index`` from 1.14 on, ``graph_index`` from 1.3 to 1.13, and absent before.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from planner.errors import ProfileError
from planner.profiling.layers import NOT_IN_MODEL, Layer, ModelNode, by_name, seconds
from planner.profiling.timing import robust_std

KERNEL_SUFFIX: Final = "_kernel_time"
US: Final = 1e-6
INLINED: Final = re.compile(r"_inlfunc_|_inline_")
"""Start of the names of nodes that functions brought in, by version 1.17 and later, and by 1.16."""
ADDRESSED: Final = re.compile(r"_0x[0-9a-f]+_")
"""The same by versions up to 1.15: an address in memory. Only the number tells which node it is."""
NAMELESS: Final = ((("Gemm", "FusedGemm"), True), (("FusedMatMul",), False))
"""Operators fused from a MatMul whose name versions up to 1.18 drop, and whether an Add follows it."""
UNTOLD: Final = "nodes of inlined functions that cannot be told apart"


@dataclass(frozen=True)
class _Event:
    """One run of a node."""

    name: str
    operator: str
    number: int | None
    provider: str
    thread: tuple[object, object]
    start_us: float
    time_s: float


def read_layers(
    entries: Sequence[Mapping[str, Any]], nodes: Sequence[ModelNode], where: str
) -> tuple[list[Layer], dict[str, Any]]:
    """Return the layers, and the environment in which they were timed.

    Raises
    ------
    ProfileError
        If an event is malformed, or none is the run of a node.
    """
    events = [
        _event(entry, f"{where}: [{index}]")
        for index, entry in enumerate(entries)
        if entry.get("cat") == "Node" and str(entry.get("name")).endswith(KERNEL_SUFFIX)
    ]
    if not events:
        raise ProfileError("no event is the run of a node", where=where, expected=f"names that end in {KERNEL_SUFFIX}")
    runs_of: defaultdict[tuple[str, int | None, str], list[_Event]] = defaultdict(list)
    providers: defaultdict[str, float] = defaultdict(float)
    for event in _outermost(events):
        runs_of[event.name, event.number, event.operator].append(event)
        providers[event.provider] += event.time_s
    rounds = sum(entry.get("name") == "model_run" for entry in entries) or max(map(len, runs_of.values()))
    found = _find([runs[0] for runs in runs_of.values()], nodes)
    layers = [_layer(runs, rounds, node) for runs, node in zip(runs_of.values(), found, strict=True)]
    provider = max(providers, key=lambda name: providers[name]).removesuffix("ExecutionProvider").lower()
    return layers, {"tool": "onnxruntime", "provider": provider or "unknown", "rounds": rounds}


def _event(entry: Mapping[str, Any], where: str) -> _Event:
    args = entry.get("args", {})
    if not isinstance(args, dict):
        raise ProfileError("malformed event", where=f"{where}.args", value=args, expected="an object")
    number = args.get("node_index", args.get("graph_index"))
    if number is not None and not str(number).isdecimal():
        raise ProfileError("malformed event", where=f"{where}.args", value=number, expected="the number of a node")
    thread = (entry.get("pid"), entry.get("tid"))
    if not all(part is None or isinstance(part, int | str) for part in thread):
        raise ProfileError("malformed event", where=where, value=thread, expected="the numbers of process and thread")
    start_us = entry.get("ts")
    if not isinstance(start_us, int | float) or isinstance(start_us, bool):
        raise ProfileError("malformed event", where=f"{where}.ts", value=start_us, expected="a number of microseconds")
    return _Event(
        name=entry["name"].removesuffix(KERNEL_SUFFIX).removeprefix("fused "),
        operator=str(args.get("op_name", "")),
        number=None if number is None else int(number),
        provider=str(args.get("provider", "")),
        thread=thread,
        start_us=start_us,
        time_s=seconds(entry.get("dur"), US, f"{where}.dur"),
    )


def _outermost(events: Sequence[_Event]) -> Iterator[_Event]:
    """Yield the events that lie in no other event of their thread.

    The time of a node with bodies (If, Loop, Scan) contains that of the nodes in them.
    """
    end_us: dict[object, float] = {}
    for event in sorted(events, key=lambda event: (event.start_us, -event.time_s)):
        if event.start_us >= end_us.get(event.thread, event.start_us):
            end_us[event.thread] = event.start_us + event.time_s / US
            yield event


def _layer(runs: Sequence[_Event], rounds: int, node: ModelNode | None) -> Layer:
    # A node runs once a round. More runs are nodes of one name, or steps of a loop.
    share = len(runs) / rounds
    times_s = [run.time_s for run in runs]
    mean_s, std_s = share * float(np.median(times_s)), sqrt(share) * float(robust_std(times_s))
    name, provider = runs[0].name or f"unnamed {runs[0].operator}", runs[0].provider
    if node is not None:
        return Layer(name, mean_s, std_s, (node.block,))
    if provider and name.startswith(provider):
        return Layer(name, mean_s, std_s, (), f"parts of the model that {provider} compiled", compiled=True)
    inlined = INLINED.match(name) or ADDRESSED.match(name)
    return Layer(name, mean_s, std_s, (), UNTOLD if inlined else NOT_IN_MODEL)


def _find(events: Sequence[_Event], nodes: Sequence[ModelNode]) -> list[ModelNode | None]:
    """Return the node that each event is a run of, by its name, its number or the order of execution."""
    named, numbered = _known(events, nodes)
    found = [_named(event, named, numbered) for event in events]
    ran = {id(node) for node in found}
    products = [node for node in nodes if node.operator == "MatMul" and id(node) not in ran]
    for operators, adds in NAMELESS:
        fused = [index for index, event in enumerate(events) if found[index] is None and event.operator in operators]
        candidates = [node for node in products if ("Add" in node.feeds) is adds]
        if len(fused) == len(candidates):
            for index, node in zip(fused, candidates, strict=True):
                found[index] = node
    return found


def _known(
    events: Sequence[_Event], nodes: Sequence[ModelNode]
) -> tuple[dict[str, ModelNode], dict[int | None, ModelNode]]:
    """Return the nodes by the names and by the numbers that they have in a profile.

    Both follow for inlined nodes from the order in which onnxruntime inlines functions. Some versions inline or count
    more than these: then some name is unknown, or its number is another, and none of them says anything.
    """
    inlined = {name: node for node in nodes if node.runtime for name in node.runtime.inlined}
    numbers = {name: node.runtime.index for name, node in inlined.items() if node.runtime}
    trusted = all(event.number in (None, numbers.get(event.name, event.number)) for event in events) and all(
        any(prefix in inlined for prefix in _prefixes(event.name)) for event in events if INLINED.match(event.name)
    )
    return by_name(nodes) | (inlined if trusted else {}), {
        node.runtime.index: node for node in nodes if node.runtime and (trusted or not node.runtime.inlined)
    }


def _named(event: _Event, named: Mapping[str, ModelNode], numbered: Mapping[int | None, ModelNode]) -> ModelNode | None:
    if event.name not in named and event.number is not None:
        node = numbered.get(event.number)
        if node is not None and node.operator == event.operator:
            return node
    return next((named[prefix] for prefix in _prefixes(event.name) if prefix in named), None)


def _prefixes(name: str) -> Iterator[str]:
    """Yield a name and its prefixes, longest first: onnxruntime appends ``_nchwc``, ``/MatMulAddFusion`` and so on."""
    yield name
    for match in reversed(list(re.finditer("[_/]", name))):
        yield name[: match.start()]
