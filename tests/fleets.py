"""Fleets: sites with their own networks that share a backbone, for tests and benchmarks."""

from __future__ import annotations

import numpy as np

from planner.profiling.types import Profile
from planner.scenario.instance import Instance
from planner.scenario.paths import find_paths
from planner.scenario.types import ModelSpec, NetworkSpec, ObjectiveSpec, ScenarioSpec, SourceSpec, WorkerSpec
from tests.instances import make_profile

MODEL_S = 0.08
"""Mean time of a whole model at speed 1, in seconds."""


def make_fleet(
    *,
    sites: int,
    workers_per_site: int,
    sources: int,
    blocks: int,
    seed: int = 0,
    models: int = 4,
    load: float = 0.5,
    wired: bool = False,
    goal: str = "delay",
) -> Instance:
    """Return a random fleet; the first worker of each site is its gateway to the backbone.

    Worker speeds are 1, 2, 4 and 10, priorities 1, 2, 5 and 10. Sources arrive at random workers, so that some sites
    have more work than they can do and others have room.

    Parameters
    ----------
    load
        Work of all sources as a fraction of what all workers can do.
    wired
        Whether a link joins each worker with the gateway of its site; otherwise a site has one shared medium.
    """
    random = np.random.default_rng(seed)
    profiles = [_profile(f"m{index}", blocks, random) for index in range(models)]
    names = [[f"site{site}-w{worker}" for worker in range(workers_per_site)] for site in range(sites)]
    everyone = [name for members in names for name in members]
    speeds = random.choice([1.0, 2.0, 4.0, 10.0], size=len(everyone))
    weights = random.uniform(0.5, 1.5, size=sources)
    rates = load * float(speeds.sum()) / MODEL_S * weights / weights.sum()
    networks = {f"lan{site}": _lan(members, wired=wired) for site, members in enumerate(names)}
    networks["backbone"] = NetworkSpec(
        kind="shared", members=tuple(members[0] for members in names), bandwidth_bytes_per_s=1.25e9, latency_s=0.004
    )
    homes = random.integers(0, len(everyone), size=sources)
    scenario = ScenarioSpec(
        models={f"m{index}": ModelSpec(profile=f"m{index}") for index in range(models)},
        workers={
            name: WorkerSpec(device_class="reference", memory_bytes=1e12, base_memory_bytes=0.0, speed=float(speed))
            for name, speed in zip(everyone, speeds, strict=True)
        },
        networks=networks,
        sources={
            f"s{index}": SourceSpec(
                worker=everyone[homes[index]],
                models=(f"m{int(random.integers(0, models))}",),
                rate_per_s=float(rates[index]),
                priority=float(random.choice([1.0, 2.0, 5.0, 10.0])),
            )
            for index in range(sources)
        },
        objective=ObjectiveSpec(goal=goal),  # type: ignore[arg-type]  # checked by pydantic
    )
    by_class = {profile.model.name: {"reference": profile} for profile in profiles}
    return Instance(scenario=scenario, profiles=by_class, paths=find_paths(scenario))


def _profile(name: str, blocks: int, random: np.random.Generator) -> Profile:
    block_s = random.uniform(0.5, 1.5, size=blocks)
    cuts = random.uniform(0.2, 1.0, size=blocks + 1) * 200e3 * np.linspace(1.0, 0.1, blocks + 1)
    cuts[0], cuts[-1] = 100e3, 4e3
    return make_profile(
        name,
        block_s=(block_s * MODEL_S / block_s.sum()).tolist(),
        cut_bytes=cuts.astype(int).tolist(),
        stage_overhead_s=2e-4,
    )


def _lan(members: list[str], *, wired: bool) -> NetworkSpec:
    if wired:
        links = tuple((members[0], member) for member in members[1:])
        return NetworkSpec(kind="point-to-point", links=links, bandwidth_bytes_per_s=125e6, latency_s=5e-4)
    return NetworkSpec(kind="shared", members=tuple(members), bandwidth_bytes_per_s=125e6, latency_s=5e-4)
