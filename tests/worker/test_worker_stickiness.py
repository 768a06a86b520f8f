"""Runs of a sequence go where its state is, under every policy, in workers joined by hand and over random courses."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import POLICIES, make_policy
from planner.scenario.instance import Instance
from planner.worker.events import (
    Arrived,
    BlockEnded,
    Complete,
    Effect,
    Event,
    Left,
    Received,
    Replanned,
    RunBlock,
    Send,
    SetTimer,
    Tell,
    TimedOut,
)
from planner.worker.stickiness import MAX_SEQUENCES
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

BLOCKS = 3
LATENCY_S = 0.001
SLOW_FROM_S = 0.5
"""From when on worker c is slow."""


def _instance() -> Instance:
    return make_instance(
        profiles=[make_profile(block_s=[0.01] * BLOCKS)],
        workers={"a": 1.0, "b": 1.5, "c": 2.0},
        sources={
            "urgent": {"rate_per_s": 20.0, "priority": 8.0, "worker": "a"},
            "other": {"rate_per_s": 20.0, "priority": 1.0, "worker": "b"},
        },
    )


def _plan(*routes: list[tuple[str, int, int]]) -> PlanSpec:
    built = tuple(
        Route(
            share=1 / len(routes),
            model="m",
            stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
        )
        for stages in routes
    )
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=built)
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": own, "other": own}, workers={}, networks={},
    )  # fmt: skip


SHARED = _plan([("a", 0, 0), ("b", 1, 2)], [("a", 0, 1), ("c", 2, 2)], [("c", 0, 2)])


@dataclass
class World:
    """Workers that exchange messages and run blocks in virtual time."""

    instance: Instance
    policy: str
    plan: PlanSpec = SHARED
    now_s: float = 0.0
    ran: dict[tuple[str, int], list[tuple[str, int]]] = field(default_factory=dict)
    """Worker and block of everything that ran, by source and sample."""
    ended: set[tuple[str, int]] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        names = self.instance.workers
        self.workers = {
            name: Worker(name, self.instance, make_policy(self.policy, self.instance, self.plan)) for name in names
        }
        self._agenda: list[tuple[float, int, str, Event]] = []
        self._count = 0

    def at(self, time_s: float, worker: str, event: Event) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (time_s, self._count, worker, event))

    def run(self, until_s: float = float("inf")) -> None:
        while self._agenda and self._agenda[0][0] <= until_s:
            self.now_s, _, name, event = heapq.heappop(self._agenda)
            if name not in self.gone:
                for effect in self.workers[name].step(self.now_s, event):
                    self._carry_out(name, effect)

    def _carry_out(self, name: str, effect: Effect) -> None:
        if isinstance(effect, RunBlock):
            self.ran.setdefault(effect.key[:2], []).append((name, effect.block))
            slowness = 6.0 if name == "c" and self.now_s > SLOW_FROM_S else 1.0
            block_s = slowness * float(self.instance.block_s("m", name)[effect.block])
            self.at(self.now_s + block_s, name, BlockEnded(effect.key, effect.block, block_s))
        elif isinstance(effect, Send | Tell):
            self.at(self.now_s + LATENCY_S, effect.to, Received(name, effect.message))
        elif isinstance(effect, SetTimer) and effect.timer.purpose != "result":
            self.at(effect.at_s, name, TimedOut(effect.timer))
        elif isinstance(effect, Complete):
            self.ended.add(effect.key[:2])


def _course(policy: str, seed: int) -> tuple[World, Mapping[tuple[str, int], int]]:
    """Let sequences and other samples of both sources come at random times; return the sequence of each sample."""
    random = np.random.default_rng(seed)
    world = World(_instance(), policy)
    sequences: dict[tuple[str, int], int] = {}
    for source, home in (("urgent", "a"), ("other", "b")):
        for sample, at_s in enumerate(np.cumsum(random.exponential(0.03, 60)).tolist()):
            sequence = int(random.integers(0, 5)) if random.random() < 0.8 else None
            if sequence is not None:
                sequences[source, sample] = sequence
            world.at(at_s, home, Arrived(source, sample, sequence=sequence))
    world.run()
    return world, sequences


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_all_runs_of_a_sequence_take_the_way_of_its_first(policy: str, seed: int) -> None:
    world, sequences = _course(policy, seed)
    assert len(world.ended) == 120
    ways: dict[tuple[str, int], set[tuple[tuple[str, int], ...]]] = {}
    for (source, sample), sequence in sequences.items():
        ways.setdefault((source, sequence), set()).add(tuple(world.ran[source, sample]))
    assert len(ways) == 10
    assert {len(of_sequence) for of_sequence in ways.values()} == {1}


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in {"local", "mdi"}])
def test_other_samples_still_take_several_ways(policy: str) -> None:
    ways = set()
    for seed in range(3):
        world, sequences = _course(policy, seed)
        ways |= {tuple(ran) for key, ran in world.ran.items() if key not in sequences}
    assert len(ways) > 2


@pytest.mark.parametrize("policy", ["planned", "adaptive", "ddi", "pa-mdi"])
def test_a_sequence_takes_another_way_when_its_worker_leaves(policy: str) -> None:
    world = World(_instance(), policy)
    world.at(0.0, "a", Arrived("urgent", 0, sequence=7))
    world.run()
    lost = {worker for worker, _ in world.ran["urgent", 0]} - {"a"}
    world.gone |= lost
    for survivor in {"a", "b", "c"} - lost:
        for worker in lost:
            world.at(world.now_s + 0.01, survivor, Left(worker))
    world.at(world.now_s + 0.02, "a", Arrived("urgent", 1, sequence=7))
    world.at(world.now_s + 0.5, "a", Arrived("urgent", 2, sequence=7))
    world.run()
    assert {("urgent", 1), ("urgent", 2)} <= world.ended
    assert lost.isdisjoint(worker for worker, _ in world.ran["urgent", 1])
    assert world.ran["urgent", 1] == world.ran["urgent", 2]


def test_a_new_plan_keeps_sequences_on_routes_that_it_has() -> None:
    only_c = _plan([("c", 0, 2)])
    world = World(_instance(), "planned")
    for sample, sequence in enumerate((1, 2, 3)):
        world.at(0.2 * sample, "a", Arrived("urgent", sample, sequence=sequence))
    world.run()
    world.at(1.0, "a", Replanned(only_c))
    for sample, sequence in enumerate((1, 2, 3), start=3):
        world.at(1.0 + 0.2 * sample, "a", Arrived("urgent", sample, sequence=sequence))
    world.run()
    on_c = [("c", block) for block in range(BLOCKS)]
    assert sorted(map(str, world.ran.values())).count(str(on_c)) == 4
    assert [world.ran["urgent", sample] for sample in (3, 4, 5)] == [on_c] * 3


def test_a_worker_remembers_a_bounded_number_of_sequences() -> None:
    world = World(_instance(), "planned", _plan([("a", 0, 2)], [("c", 0, 2)]))
    routes = []
    for sample in range(MAX_SEQUENCES + 2):
        world.at(float(sample), "a", Arrived("urgent", sample, sequence=sample))
        world.run()
        routes.append(world.ran["urgent", sample])
    known = world.workers["a"]._stickiness
    assert known.route("urgent", 0) is None
    assert known.route("urgent", MAX_SEQUENCES + 1) is not None
