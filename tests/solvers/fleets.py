"""Random tiny scenarios with kinds of devices to add."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec, PowerSpec
from planner.solvers.sizing.fleet import Counts, Kind
from tests.instances import MIB, make_instance, make_profile

Fleet = Callable[[Counts], Instance]


def fleets(seed: int, *, goal: str = "delay", links: bool = False, deadlines: bool = False) -> tuple[Fleet, list[Kind]]:
    """Return a random scenario of one or two sources at one worker, and two kinds of devices to add."""
    random = np.random.default_rng(seed)
    blocks = 2
    profile = make_profile(
        block_s=random.uniform(0.02, 0.05, size=blocks).tolist(),
        cut_bytes=[50_000, *random.integers(10_000, 100_000, size=blocks - 1).tolist(), 1000],
        weight_bytes=random.integers(1, 3, size=blocks).tolist(),
        stage_overhead_s=1e-3,
    )
    sources = {
        f"s{index}": {
            "rate_per_s": float(random.uniform(3.0, 16.0)),
            "priority": float(random.choice([1.0, 5.0])),
            "max_mean_delay_s": float(random.uniform(0.03, 0.2)) if deadlines else None,
        }
        for index in range(int(random.integers(1, 3)))
    }
    kinds = {
        "cheap": {"speed": float(random.uniform(0.5, 1.5)), "price": float(random.integers(1, 5)), "most": 2},
        "dear": {"speed": float(random.uniform(1.5, 4.0)), "price": float(random.integers(3, 12)), "most": 1},
    }
    usable = random.choice([0.4, 1.0], size=3)

    def fleet(counts: Counts) -> Instance:
        power = PowerSpec(idle_w=1.0, busy_w=5.0)
        workers: dict[str, dict[str, Any]] = {"home": {"max_utilisation": float(usable[0])}}
        for index, (name, kind) in enumerate(kinds.items()):
            for copy in range(counts.get(name, 0)):
                workers[f"{name}-{copy + 1}"] = {"speed": kind["speed"], "max_utilisation": float(usable[1 + index])}
        pairs = tuple(itertools.combinations(workers, 2))
        networks = {
            "net": NetworkSpec(kind="point-to-point", links=pairs, bandwidth_bytes_per_s=3e6, latency_s=1e-3)
            if links
            else NetworkSpec(kind="shared", members=tuple(workers), bandwidth_bytes_per_s=3e6, latency_s=1e-3)
        }
        return make_instance(
            profiles=[profile],
            workers={name: {"memory_bytes": 300 * MIB, "power": power, **worker} for name, worker in workers.items()},
            sources=sources,
            networks=networks,
            objective=ObjectiveSpec(goal=goal),  # type: ignore[arg-type]  # checked by pydantic
        )

    return fleet, [Kind(name, kind["price"], int(kind["most"]), f"{name}-1") for name, kind in kinds.items()]
