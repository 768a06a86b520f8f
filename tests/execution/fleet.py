"""Agents that die, return and lose links during a run, and what must hold of every such run."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from planner.execution.agent.agent import Agent
from planner.execution.agent.block_cache import BlockCache
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import Connect
from planner.plan.replan import LiveReplanner, ReplanAnswer, Situation, TakeAnswer
from planner.plan.types import PlanSpec
from planner.runtime.input_pool import input_pool
from planner.runtime.providers import Provider
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.solvers.replan.process import ReplanProcess
from planner.trace.records import BlockRecord, SampleRecord
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import BLOCKS, MODEL, SPLIT, small_deployment

SEED = 3


class Threads:
    """Agents in threads, each with its own folder of block models."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._agents: list[tuple[Agent, threading.Thread]] = []

    def start(self, name: str, connect: Connect, provider: str | Provider = "cpu") -> None:
        agent = Agent(name, connect, BlockCache(self._folder / name), provider=provider)
        thread = threading.Thread(target=agent.serve, daemon=True)
        thread.start()
        self._agents.append((agent, thread))

    def close(self) -> None:
        for agent, _ in self._agents:
            agent.close()
        for _, thread in self._agents:
            thread.join(10.0)
        assert not any(thread.is_alive() for _, thread in self._agents)


class Fleet(Threads):
    """Agents on an in-memory transport, whose links and agents can be removed instantly."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = MemoryNetwork()

    def come(self, *names: str, provider: str | Provider = "cpu") -> None:
        for name in names:
            self.start(name, self.network.connect(name), provider)

    def agent(self, name: str) -> Agent:
        """Return the agent of this name that was started last."""
        return next(agent for agent, _ in reversed(self._agents) if agent.name == name)

    def kill(self, name: str) -> None:
        """Remove an agent from the network without a message from it, as if its process were killed."""
        self.network.leave(name)


@contextmanager
def fleet(folder: Path, *names: str) -> Iterator[tuple[Fleet, Coordinator]]:
    found = Fleet(folder)
    with Coordinator(found.network.connect(COORDINATOR)) as coordinator:
        try:
            found.come(*names)
            coordinator.await_agents(names, 30.0)
            yield found, coordinator
        finally:
            found.close()


def deployment_for(
    instance: Instance, plan: PlanSpec = SPLIT, policy: str = "planned", *, live: bool = False
) -> Deployment:
    """Return a deployment that is re-planned when workers leave."""
    deployment = small_deployment(instance, plan, policy)
    return dataclasses.replace(deployment, replan=partial(ReplanProcess, instance, plan), live=live)


def warmed(deployment: Deployment) -> Deployment:
    """Start the process that re-plans before the run, as if the run had been going on for a while."""
    assert deployment.replan is not None
    answers = queue.SimpleQueue[ReplanAnswer]()
    takers: list[TakeAnswer] = [answers.put]

    def take(answer: ReplanAnswer) -> None:
        takers[-1](answer)

    replanner = deployment.replan(take)
    replanner.request(Situation.of(deployment.instance.workers[:1], {}))
    assert not answers.get(timeout=60.0).failure

    def start(take: TakeAnswer) -> LiveReplanner:
        takers.append(take)
        return replanner

    return dataclasses.replace(deployment, replan=start)


class After(Observer):
    """Performs actions, each when a number of samples have ended."""

    def __init__(self, *actions: tuple[int, Callable[[], None]]) -> None:
        self._actions = list(actions)
        self._ended = 0

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002
        self._ended += 1
        while self._actions and self._ended >= self._actions[0][0]:
            self._actions.pop(0)[1]()


def assert_accounted(instance: Instance, measurement: RunResult) -> dict[str, int]:
    """Check that samples end once, with the outputs of the whole model; return the number of failures by reason."""
    ended = [record for record in measurement.records if isinstance(record, SampleRecord)]
    offered = [(source, sample) for source in instance.sources for sample in range(instance.samples(source))]
    assert sorted((record.source, record.sample) for record in ended) == sorted(offered)
    whole = BlockSession(MODEL.stage_model(0, BLOCKS - 1))
    pools = {
        source: input_pool(MODEL.chain.cuts[0].tensors, seed=SEED, source_index=index, samples=instance.samples(source))
        for index, source in enumerate(instance.sources)
    }
    for (source, sample), outputs in measurement.outputs.items():
        expected = whole.run(pools[source][sample % len(pools[source])])
        np.testing.assert_allclose(outputs["t3"], expected["t3"], rtol=1e-4)
    completed = {(record.source, record.sample) for record in ended if record.status == "completed"}
    assert set(measurement.outputs) <= completed
    assert all(record.reason for record in ended if record.status == "failed")
    return Counter(record.reason for record in ended if record.status == "failed")


def ran_at(measurement: RunResult, worker: str, after_s: float = 0.0) -> list[BlockRecord]:
    return [
        record
        for record in measurement.records
        if isinstance(record, BlockRecord) and record.worker == worker and record.start_s >= after_s
    ]


def said(measurement: RunResult) -> list[tuple[str, str]]:
    return [(incident.worker, incident.what) for incident in measurement.incidents]


class Live(Observer):
    """Submits a sample for each that has ended, until ``stop_after`` have ended after a worker left and returned."""

    def __init__(self, coordinator: Coordinator, *, stop_after: int, in_flight: int = 1) -> None:
        self._coordinator = coordinator
        self._inputs = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=0, samples=1)[0]
        self._left_over = stop_after
        self._in_flight = in_flight
        self._next = 0
        self._back = False
        self._ends: list[SampleRecord] = []
        self.at: dict[int, Callable[[], None]] = {}
        self.when_left: Callable[[], None] = lambda: None

    def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        self._submit = submit
        for _ in range(self._in_flight):
            self._hand_in()

    def _hand_in(self) -> None:
        self._submit("urgent", self._next, self._inputs)
        self._next += 1

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        self._ends.append(sample)
        np.testing.assert_allclose(outputs["t3"], np.maximum(self._inputs["t0"], 0) + self._inputs["t0"], rtol=1e-4)
        action = self.at.pop(len(self._ends), None)
        if action is not None:
            action()
        self._left_over -= self._back
        if self._left_over > 0:
            self._hand_in()
        elif len(self._ends) == self._next:
            self._coordinator.stop()

    def on_left(self, worker: str) -> None:  # noqa: ARG002
        self.when_left()

    def on_joined(self, worker: str) -> None:  # noqa: ARG002
        self._back = True

    @property
    def handed_in(self) -> int:
        return self._next

    def ended_once(self) -> bool:
        return sorted(sample.sample for sample in self._ends) == list(range(self._next))
