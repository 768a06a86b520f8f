"""A small model, and its deployment on agents in threads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planner.execution.agent.agent import Agent
from planner.execution.agent.block_cache import BlockCache
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Deployment, Emulation
from planner.execution.wire.messages import COORDINATOR, DeployedModel
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.candidate_routes import resident_blocks
from planner.scenario.instance import Instance
from planner.scenario.paths import find_paths
from planner.scenario.types import NetworkSpec, PaceParameters, PolicySpec
from tests.execution.memory_network import MemoryNetwork
from tests.instances import make_instance, make_profile
from tests.profiling.small_chain import SmallModel

BLOCKS = 3
MODEL = SmallModel(BLOCKS)
FILES = [MODEL.block_model(index) for index in range(BLOCKS)]
HASHES = tuple(hashlib.sha256(data).hexdigest() for data in FILES)


def small_instance(
    samples: int = 12, rate_per_s: float = 60.0, slow: float = 1000.0, block_s: float = 0.004
) -> Instance:
    """Return an instance with two sources at the first of three workers, whose blocks take ``block_s`` there.

    A worker counts as slow from ``slow`` times the profiled time on: by default never, however busy the host is.
    """
    cut_bytes = [cut.bytes for cut in MODEL.chain.cuts]
    return make_instance(
        profiles=[make_profile("small", block_s=[block_s] * BLOCKS, cut_bytes=cut_bytes)],
        workers={"a": 1.0, "b": 2.0, "c": 4.0},
        sources={
            "urgent": {"rate_per_s": rate_per_s, "priority": 8.0, "samples": samples},
            "other": {"rate_per_s": rate_per_s, "priority": 1.0, "samples": samples},
        },
        policy=PolicySpec(pace=PaceParameters(slow=slow)),
    )


def line_of_three(samples: int) -> Instance:
    """Return an instance whose worker a reaches c only through b."""
    instance = small_instance(samples=samples)
    links = {
        name: NetworkSpec(kind="point-to-point", links=((name[0], name[1]),), bandwidth_bytes_per_s=1e8)
        for name in ("ab", "bc")
    }
    scenario = instance.scenario.model_copy(update={"networks": links})
    return Instance(scenario=scenario, profiles=instance.profiles, paths=find_paths(scenario))


def small_plan(*routes: list[tuple[str, int, int]]) -> PlanSpec:
    """Return a plan with these routes for both sources, in equal shares."""
    built = tuple(
        Route(
            share=1 / len(routes),
            model="small",
            stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
        )
        for stages in routes
    )
    source = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=built)
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": source, "other": source}, workers={}, networks={},
    )  # fmt: skip


SPLIT = small_plan([("a", 0, 0), ("b", 1, 1), ("c", 2, 2)], [("a", 0, 1), ("c", 2, 2)])


def small_deployment(
    instance: Instance, plan: PlanSpec, policy: str = "planned", emulation: Emulation | None = None
) -> Deployment:
    return Deployment(
        instance=instance,
        plan=plan,
        policy=policy,
        seed=3,
        models={
            "small": DeployedModel(
                cuts=tuple(cut.tensors for cut in MODEL.chain.cuts),
                block_sha256=HASHES,
                block_bytes=tuple(map(len, FILES)),
            ),
        },
        blocks=dict(zip(HASHES, FILES, strict=True)),
        resident=resident_blocks(instance, policy, plan),
        paced=emulation is not None,
        emulation=emulation,
    )


@contextmanager
def agents_in_threads(names: tuple[str, ...], folder: Path) -> Iterator[Coordinator]:
    """Run real agents with real sessions, each in a thread, over an in-memory transport."""
    network = MemoryNetwork()
    with Coordinator(network.connect(COORDINATOR)) as coordinator:
        agents = [Agent(name, network.connect(name), BlockCache(folder / name)) for name in names]
        threads = [threading.Thread(target=agent.serve, name=name) for name, agent in zip(names, agents, strict=True)]
        for thread in threads:
            thread.start()
        try:
            coordinator.await_agents(names, 10.0)
            yield coordinator
        finally:
            for agent in agents:
                agent.close()
            for thread in threads:
                thread.join(10.0)
        assert not any(thread.is_alive() for thread in threads)
