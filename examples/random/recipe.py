"""Random scenarios by a fixed recipe: what a seed draws is written in :func:`draw`, and in the README.

Everything a scenario needs comes from one ``numpy`` generator, so a seed and a load name a scenario for good.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.plan.types import PlanSpec
from planner.profiling.types import BlockCost, ModelReference, Profile
from planner.scenario.instance import Instance
from planner.scenario.paths import find_paths
from planner.scenario.types import ModelSpec, NetworkSpec, ObjectiveSpec, ScenarioSpec, SourceSpec, WorkerSpec
from planner.solvers.solve import solve

DEVICE_CLASS: Final = "reference"
"""All workers are of this one class, at different speeds."""

MBIT: Final = 1e6 / 8


def draw(seed: int) -> Instance:
    """Draw a scenario; its rates are in proportion only, see :func:`at_load`.

    - 3 to 6 workers with speeds from 1 to 8, log-uniform; memory for all models.
    - Half of the scenarios have one shared medium of 50 to 500 Mbit/s, log-uniform, for all. The others have links: a
      ring, so that every worker can be reached, and each other pair with probability 0.5; each link 20 to 400 Mbit/s.
      Latency 0.5 to 3 ms.
    - 2 to 4 sources, each at a random worker with a model of its own, priority 1, 2, 5 or 10. A model takes 20 to
      200 ms at speed 1, log-uniform, in 3 to 8 blocks of 0.5 to 1.5 times the mean block, whose times vary from sample
      to sample by 0 to 30 %. Its input has 20 to 600 kB, log-uniform, its inner cuts 0.1 to 1.5 times that, its
      result 4 kB.
    - Sources ask for work in proportions between 0.5 and 1.5.
    """
    random = np.random.default_rng(seed)
    workers = [f"w{index}" for index in range(random.integers(3, 7))]
    speeds = _log_uniform(random, 1, 8, len(workers))
    networks = _draw_networks(random, workers)
    profiles = [_draw_profile(random, f"m{index}") for index in range(random.integers(2, 5))]
    sources = {
        f"s{index}": SourceSpec(
            worker=str(random.choice(workers)),
            models=(profile.model.name,),
            rate_per_s=float(random.uniform(0.5, 1.5)) / sum(block.mean_s for block in profile.blocks),
            priority=float(random.choice([1, 2, 5, 10])),
        )
        for index, profile in enumerate(profiles)
    }
    scenario = ScenarioSpec(
        models={profile.model.name: ModelSpec(profile=profile.model.name) for profile in profiles},
        workers={
            name: WorkerSpec(device_class=DEVICE_CLASS, memory_bytes=2.0**34, speed=float(speed))
            for name, speed in zip(workers, speeds, strict=True)
        },
        networks=networks,
        sources=sources,
    )
    return Instance(
        scenario=scenario,
        profiles={profile.model.name: {DEVICE_CLASS: profile} for profile in profiles},
        paths=find_paths(scenario),
    )


def capacity(instance: Instance) -> float:
    """Give the factor on all rates at which the best shared routes keep their bottleneck busy all the time."""
    objective = ObjectiveSpec(goal="throughput")
    scenario = instance.scenario.model_copy(update={"objective": objective})
    plan = solved(instance.model_copy(update={"scenario": scenario}), method="convex")
    busy = [use.utilisation for use in plan.workers.values()] + [use.utilisation for use in plan.networks.values()]
    return 1 / max(busy)


def at_load(instance: Instance, load: float, samples: int) -> Instance:
    """Scale the rates to a share of what the best plan can carry, and offer ``samples`` or a few more in one run.

    All sources offer samples for the same time, and each 10 at least.
    """
    factor = load * capacity(instance)
    rates = {name: factor * (spec.rate_per_s or 0.0) for name, spec in instance.scenario.sources.items()}
    length_s = samples / sum(rates.values())
    sources = {
        name: spec.model_copy(
            update={"rate_per_s": rates[name], "samples": max(10, round(rates[name] * length_s))},
        )
        for name, spec in instance.scenario.sources.items()
    }
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})


def solved(instance: Instance, *, method: str = "auto", time_limit_s: float = 5.0) -> PlanSpec:
    """Solve for shared routes."""
    solution = solve(instance, method=method, routes="shared", time_limit_s=time_limit_s)
    if solution.plan is None:
        raise RuntimeError(f"no plan for a scenario of the recipe: {solution.status}, {solution.reasons}")
    return solution.plan


def _draw_networks(random: np.random.Generator, workers: list[str]) -> dict[str, NetworkSpec]:
    if random.random() < 0.5:
        return {
            "wifi": NetworkSpec(
                kind="shared",
                members=tuple(workers),
                bandwidth_bytes_per_s=float(_log_uniform(random, 50, 500)[0]) * MBIT,
                latency_s=float(random.uniform(0.5e-3, 3e-3)),
            )
        }
    ring = [tuple(sorted(pair)) for pair in pairwise([*workers, workers[0]])]
    pairs = [(a, b) for place, a in enumerate(workers) for b in workers[place + 1 :]]
    return {
        f"link-{a}-{b}": NetworkSpec(
            kind="point-to-point",
            links=((a, b),),
            bandwidth_bytes_per_s=float(_log_uniform(random, 20, 400)[0]) * MBIT,
            latency_s=float(random.uniform(0.5e-3, 3e-3)),
        )
        for a, b in pairs
        if (a, b) in ring or random.random() < 0.5
    }


def _draw_profile(random: np.random.Generator, name: str) -> Profile:
    length = int(random.integers(3, 9))
    block_s = random.uniform(0.5, 1.5, length)
    block_s *= float(_log_uniform(random, 20e-3, 200e-3)[0]) / block_s.sum()
    spread = float(random.uniform(0, 0.3))
    input_bytes = float(_log_uniform(random, 20e3, 600e3)[0])
    inner_bytes = input_bytes * random.uniform(0.1, 1.5, length - 1)
    parameters = random.integers(100_000, 4_000_000, length)
    return Profile(
        model=ModelReference(name=name, sha256="0" * 64),
        chain_sha256=f"random-{name}",
        device_class=DEVICE_CLASS,
        provenance="estimated",
        environment={},
        stage_overhead_s=2e-4,
        fusion_saving_s=(),
        blocks=tuple(
            BlockCost(
                name=f"b{index}",
                mean_s=float(mean_s),
                std_s=float(spread * mean_s),
                weight_bytes=4 * int(parameters[index]),
                activation_bytes=int(input_bytes),
                flop=0.0,
                parameters=int(parameters[index]),
                load_s=0.0,
            )
            for index, mean_s in enumerate(block_s)
        ),
        cut_bytes=(int(input_bytes), *(int(size) for size in inner_bytes), 4_000),
    )


def _log_uniform(random: np.random.Generator, low: float, high: float, size: int = 1) -> NDArray[np.float64]:
    return np.exp(random.uniform(np.log(low), np.log(high), size))
