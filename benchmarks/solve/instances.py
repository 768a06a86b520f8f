"""Public classes of instances: those on which other projects were measured, and random ones with several sources.

``bottleneck``: one source, goal ``throughput``, devices of unlike speed with point-to-point links, the problem of
PipeEdge (DSD 2022). ``memory``: one sample's delay where memory holds 1.6 models, the problem of distilp. ``classes``:
24 devices of three classes with room for 152 of 80 layers, the single cluster of Helix (ASPLOS 2025). ``random``:
several sources with priorities. Everything is drawn from a seed; other seeds give other instances of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from planner.profiling.types import Profile
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from tests.instances import make_instance, make_profile, random_instance

MBIT_BYTES: Final = 1024 * 1024 / 8
"""A megabit of PipeEdge."""
LAYER_BYTES: Final = 50 * 2**20
OVERHEAD: Final = 1.15
"""Memory of a layer over that of its weights."""
TIGHTNESS: Final = 1.6
"""Room for layers in all devices together, in models."""
HOUR_S: Final = 3600.0


def bottleneck(layers: int, devices: int, seed: int) -> Instance:
    """Return one source whose samples pass through unlike devices at the largest rate.

    At one sample per second the objective is the seconds that a sample takes at the bottleneck.
    """
    random = np.random.default_rng(1000 * layers + devices + 7 * seed)
    base_s = random.uniform(0.05, 0.5, layers)
    speed = np.sort(np.exp(random.uniform(np.log(1), np.log(10), devices)))[::-1]
    mbit_per_s = random.choice([100, 200, 300, 500, 1000], devices)
    outputs = random.integers(50_000, 750_000, layers)
    weights_mib = random.uniform(10, 40, layers)
    names = [f"d{device:02d}" for device in range(devices)]
    links: dict[int, list[tuple[str, str]]] = {}
    for late in range(devices):
        for early in range(late):
            links.setdefault(int(min(mbit_per_s[early], mbit_per_s[late])), []).append((names[early], names[late]))
    return make_instance(
        profiles=[
            make_profile(
                block_s=base_s.tolist(),
                cut_bytes=[1, *(4 * outputs[:-1]).tolist(), 1],
                weight_bytes=(weights_mib * 2**20).astype(int).tolist(),
                activation_bytes=0,
            )
        ],
        workers=_workers(names, speed, dict.fromkeys(names, 2.0**36)),
        networks={
            f"n{rate}": NetworkSpec(
                kind="point-to-point", links=tuple(pairs), bandwidth_bytes_per_s=rate * MBIT_BYTES, latency_s=0.0
            )
            for rate, pairs in links.items()
        },
        sources={"s": {"worker": names[0], "rate_per_s": 1.0}},
        objective=ObjectiveSpec(goal="throughput"),
    )


def memory(layers: int, devices: int, seed: int) -> Instance:
    """Return one source with few samples, whose equal layers fill most of the memory."""
    random = np.random.default_rng(100 * layers + devices + seed)
    speed = np.exp(random.uniform(0, np.log(10), devices))
    part = random.uniform(0.5, 1.5, devices)
    room = np.maximum(2, np.floor(part / part.sum() * TIGHTNESS * layers)).astype(int)
    weight = int(OVERHEAD * LAYER_BYTES)
    names = [f"d{device:02d}" for device in range(devices)]
    return make_instance(
        profiles=[_uniform("reference", layers, 0.1, weight, [1] * (layers + 1))],
        workers=_workers(
            names, speed, {name: weight * int(count) + 10.0 for name, count in zip(names, room, strict=True)}
        ),
        networks=_mesh(names, 1.25e9, 0.5e-3),
        sources={"s": {"worker": names[0], "rate_per_s": 1 / HOUR_S}},
        objective=ObjectiveSpec(goal="delay"),
    )


def classes(_seed: int) -> Instance:
    """Return one source whose host holds no layer, and 24 devices of three classes."""
    layers, weight = 80, 100 * 2**20
    cuts = [4, *[16384] * (layers - 1), 4]
    # Devices, room in layers, and layers per second.
    kinds: Mapping[str, tuple[int, int, float]] = {
        "a100": (4, 12, 952.1 * 12),
        "l4": (8, 7, 531.7 * 7),
        "t4": (12, 4, 757.9 * 4),
    }
    profiles = [_uniform("host", layers, 1.0, weight, cuts)]
    profiles += [_uniform(kind, layers, 1 / rate, weight, cuts) for kind, (_, _, rate) in kinds.items()]
    workers: dict[str, dict[str, Any]] = {"host": {"device_class": "host", "memory_bytes": weight / 80 + 10}}
    for kind, (count, room, _) in kinds.items():
        own = {"device_class": kind, "memory_bytes": room * weight + 10.0}
        workers |= {f"{kind}-{number}": own for number in range(count)}
    return make_instance(
        profiles=profiles,
        workers={name: {"base_memory_bytes": 0.0, **worker} for name, worker in workers.items()},
        networks=_mesh(list(workers), 1.25e8, 1e-3),
        sources={"s": {"worker": "host", "rate_per_s": 1.0}},
        objective=ObjectiveSpec(goal="throughput"),
    )


def several(goal: str, sources: int, workers: int, blocks: int, seed: int) -> Instance:
    """Return several sources with priorities, at 60 % of the summed speeds for the goal ``delay``."""
    return random_instance(seed, sources=sources, workers=workers, blocks=blocks, load=0.6, goal=goal)


def _classes() -> Iterable[tuple[str, Callable[[int], Instance]]]:
    for layers, devices in ((48, 14), (96, 8), (96, 12), (96, 16), (96, 32), (200, 16), (200, 32)):
        yield f"bottleneck {layers} x {devices}", partial(bottleneck, layers, devices)
    yield "memory 200 x 32", partial(memory, 200, 32)
    yield "classes 80 x 24", classes
    for goal in ("delay", "throughput", "makespan"):
        for size in ((2, 16, 20), (8, 16, 20)):
            yield f"{goal} {' x '.join(map(str, size))}", partial(several, goal, *size)
    yield "bottleneck 12 x 4", partial(bottleneck, 12, 4)
    yield "memory 20 x 4", partial(memory, 20, 4)
    yield "delay 2 x 4 x 8", partial(several, "delay", 2, 4, 8)


CLASSES: Final[Mapping[str, Callable[[int], Instance]]] = dict(_classes())
"""Instances by class and seed. The last three are small, to try the tool."""
SMALL: Final = ("bottleneck 12 x 4", "memory 20 x 4", "delay 2 x 4 x 8")


def _workers(names: list[str], speed: Any, memory_bytes: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    return {
        name: {"speed": float(own), "memory_bytes": memory_bytes[name], "base_memory_bytes": 0.0}
        for name, own in zip(names, speed, strict=True)
    }


def _uniform(device_class: str, layers: int, layer_s: float, weight_bytes: int, cuts: list[int]) -> Profile:
    return make_profile(
        device_class=device_class,
        block_s=[layer_s] * layers,
        cut_bytes=cuts,
        weight_bytes=weight_bytes,
        activation_bytes=0,
    )


def _mesh(names: list[str], bytes_per_s: float, latency_s: float) -> dict[str, NetworkSpec]:
    links = tuple((early, late) for number, early in enumerate(names) for late in names[number + 1 :])
    return {
        "lan": NetworkSpec(kind="point-to-point", links=links, bandwidth_bytes_per_s=bytes_per_s, latency_s=latency_s)
    }
