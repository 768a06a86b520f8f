"""The unit of time: where everything takes a factor longer and comes as much less often, plans are the same."""

from __future__ import annotations

import pytest

from planner.scenario.instance import Instance, NetworkPath
from planner.scenario.types import NetworkSpec
from planner.solvers import solve
from tests.instances import random_instance

FACTORS = {"delay": 0, "throughput": 0, "makespan": 1, "energy": 0}
"""The power of time in the objective of each goal: delays are relative to work, loads and watts have no seconds."""


def longer(instance: Instance, factor: float) -> Instance:
    """Return an instance in which blocks and transfers take ``factor`` times as long and samples come as much later."""
    profiles = {
        model: {
            device: profile.model_copy(
                update={
                    "stage_overhead_s": profile.stage_overhead_s * factor,
                    "blocks": tuple(
                        block.model_copy(update={"mean_s": block.mean_s * factor, "std_s": block.std_s * factor})
                        for block in profile.blocks
                    ),
                }
            )
            for device, profile in by_class.items()
        }
        for model, by_class in instance.profiles.items()
    }

    def slow(network: NetworkSpec) -> NetworkSpec:
        bandwidth, latency_s = network.bandwidth_bytes_per_s, network.latency_s
        return network.model_copy(update={"bandwidth_bytes_per_s": bandwidth / factor, "latency_s": latency_s * factor})

    def slow_path(path: NetworkPath) -> NetworkPath:
        hops = (
            hop.model_copy(update={"bytes_per_s": hop.bytes_per_s / factor, "latency_s": hop.latency_s * factor})
            for hop in path.hops
        )
        return NetworkPath(hops=tuple(hops))

    scenario = instance.scenario.model_copy(
        update={
            "networks": {name: slow(network) for name, network in instance.scenario.networks.items()},
            "sources": {
                name: source.model_copy(update={"rate_per_s": (source.rate_per_s or 0.0) / factor})
                for name, source in instance.scenario.sources.items()
            },
        }
    )
    paths = {
        sender: {receiver: slow_path(path) for receiver, path in to.items()} for sender, to in instance.paths.items()
    }
    return instance.model_copy(update={"scenario": scenario, "profiles": profiles, "paths": paths})


@pytest.mark.parametrize("factor", [1e-7, 1e7])
@pytest.mark.parametrize("method", ["milp", "convex", "colgen"])
@pytest.mark.parametrize("goal", sorted(FACTORS))
def test_plans_are_as_good_in_any_unit_of_time(goal: str, method: str, factor: float) -> None:
    instance = random_instance(5, sources=2, workers=3, blocks=3, goal=goal)
    known = solve(instance, method=method, rank="surrogate", time_limit_s=30).plan
    found = solve(longer(instance, factor), method=method, rank="surrogate", time_limit_s=30).plan
    assert known is not None
    assert found is not None
    unit = factor ** FACTORS[goal]
    assert found.objective == pytest.approx(known.objective * unit, rel=1e-3)
    assert found.bound == pytest.approx(known.bound * unit, rel=1e-2)
    assert found.bound <= found.objective * (1 + 1e-6)
