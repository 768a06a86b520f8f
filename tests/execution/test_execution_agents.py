"""Agents with real sessions over an in-memory transport: equal outputs, replayable logs."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.agent.agent import Agent
from planner.execution.agent.block_cache import BlockCache
from planner.execution.coordinator.run_result import RunResult
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.wire.claims import this_process
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import COORDINATOR, BlockFile, Claim, Claimed, Deploy, Missing, Refused
from planner.execution.wire.transport import CONTROL
from planner.policy.registry import POLICIES, make_policy
from planner.runtime.input_pool import input_pool
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import Complete, RunBlock, Send
from planner.worker.worker import Worker
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import (
    BLOCKS,
    FILES,
    HASHES,
    MODEL,
    SPLIT,
    agents_in_threads,
    small_deployment,
    small_instance,
    small_plan,
)

ROUTES = dict[tuple[str, int], list[tuple[str, int]]]


def routes(records: Iterable[Record]) -> ROUTES:
    """For each sample, which worker ran which block, in order."""
    found: ROUTES = defaultdict(list)
    for record in sorted((r for r in records if isinstance(r, BlockRecord)), key=lambda r: r.start_s):
        found[record.source, record.sample].append((record.worker, record.block))
    return found


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def measurement(policy: str, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    instance = small_instance()
    deployment = small_deployment(instance, SPLIT, policy, EmulatedNetwork(instance))
    with agents_in_threads(instance.workers, tmp_path_factory.mktemp("agents")) as coordinator:
        return coordinator.run(deployment, ready_timeout_s=30.0)


def test_every_sample_completes_once(measurement: RunResult) -> None:
    instance = small_instance()
    ended = [
        (r.source, r.sample) for r in measurement.records if isinstance(r, SampleRecord) and r.status == "completed"
    ]
    assert sorted(ended) == sorted((s, k) for s in instance.sources for k in range(instance.samples(s)))
    assert measurement.duplicates == 0
    assert measurement.left == []


def test_outputs_are_those_of_the_whole_model(measurement: RunResult) -> None:
    instance = small_instance()
    whole = BlockSession(MODEL.stage_model(0, BLOCKS - 1))
    assert len(measurement.outputs) == sum(instance.samples(source) for source in instance.sources)
    for index, source in enumerate(instance.sources):
        pool = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=index, samples=instance.samples(source))
        for sample in range(instance.samples(source)):
            expected = whole.run(pool[sample % len(pool)])
            np.testing.assert_allclose(measurement.outputs[source, sample]["t3"], expected["t3"], rtol=1e-4)


def test_every_sample_runs_its_blocks_in_order_and_on_the_simulated_route(measurement: RunResult, policy: str) -> None:
    found = routes(measurement.records)
    assert all([block for _, block in taken] == list(range(BLOCKS)) for taken in found.values())
    # Under the other policies routes depend on how long things take, which differs from run to run.
    if policy in {"planned", "local"}:
        predicted, _ = simulate(small_instance(), policy=policy, plan=SPLIT, seed=3)
        assert found == routes(predicted)


def test_replaying_the_log_of_an_agent_reproduces_its_decisions(measurement: RunResult, policy: str) -> None:
    instance = small_instance()
    assert set(measurement.steps) == set(instance.workers)
    assert sum(len(steps) for steps in measurement.steps.values()) > 4 * BLOCKS
    for name, steps in measurement.steps.items():
        worker = Worker(name, instance, make_policy(policy, instance, SPLIT))
        for step in steps:
            assert worker.step(step.now_s, step.event) == step.effects


def test_unpaced_agents_complete_and_can_run_again(tmp_path: Path) -> None:
    instance = small_instance(samples=5)
    deployment = small_deployment(instance, SPLIT)
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        for _ in range(2):
            measured = coordinator.run(deployment, ready_timeout_s=30.0)
            assert len(measured.outputs) == 10
    assert sorted(path.stem for path in (tmp_path / "a").iterdir()) == sorted(set(HASHES))


def test_a_cache_that_is_changed_or_removed_while_its_agent_lives_is_filled_again(tmp_path: Path) -> None:
    instance = small_instance(samples=2)
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        for _ in range(2):
            measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0)
            assert len(measured.outputs) == 4
            for worker in instance.workers:
                assert all(BlockCache(tmp_path / worker).has(sha256) for sha256 in HASHES)
            damaged = BlockCache(tmp_path / "b").path(HASHES[1])
            whole, times = damaged.read_bytes(), damaged.stat()
            damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
            shutil.rmtree(tmp_path / "a")


def test_a_damaged_or_unannounced_block_is_refused(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    with pytest.raises(ExecuteError, match="damaged"):
        cache.add(HASHES[0], FILES[0] + b"x")
    assert not cache.has(HASHES[0])
    cache.path(HASHES[1]).write_bytes(FILES[1][:-1])
    assert not cache.has(HASHES[1])
    cache.add(HASHES[1], FILES[1])
    assert BlockCache(tmp_path).has(HASHES[1])
    network = MemoryNetwork()
    said: list[Frame] = []
    transport = network.connect(COORDINATOR)(said.append, lambda _member, _present: None)
    agent = Agent("a", network.connect("a"), cache)
    transport.send("a", Frame(BlockFile(run="r", sha256="0" * 64)), CONTROL)
    agent.close()
    agent.serve()
    (refused,) = (frame.body for frame in said)
    assert isinstance(refused, Refused)
    assert "not announced" in refused.what


def test_a_coordinator_names_agents_that_are_missing_or_at_fault(tmp_path: Path) -> None:
    instance = small_instance()
    broken = small_deployment(instance, SPLIT)
    broken = type(broken)(**{**vars(broken), "policy": "best"})
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        with pytest.raises(ExecuteError, match=r"within 0\.1 s; found 'd'"):
            coordinator.await_agents([*instance.workers, "d"], 0.1)
        with pytest.raises(ExecuteError, match=r"agent [abc]: .*unknown policy"):
            coordinator.run(broken, ready_timeout_s=30.0)


def test_missing_files_are_requested_one_by_one(tmp_path: Path) -> None:
    network = MemoryNetwork()
    said: list[Frame] = []
    transport = network.connect(COORDINATOR)(said.append, lambda _member, _present: None)
    agent = Agent("a", network.connect("a"), BlockCache(tmp_path))
    instance = small_instance()
    deployment = small_deployment(instance, SPLIT)
    deploy = Deploy(
        run="r", instance=instance, plan=SPLIT, policy="planned", seed=3, models=dict(deployment.models),
        resident={}, paced=True,
    )  # fmt: skip
    transport.send("a", Frame(Claim(run="r", holder=this_process())), CONTROL)
    transport.send("a", Frame(deploy), CONTROL)
    agent.close()
    agent.serve()
    assert [frame.body for frame in said] == [
        Claimed(run="r", worker="a"),
        Missing(run="r", worker="a", sha256=HASHES[0]),
    ]


def test_a_host_slower_than_the_workers_it_emulates_is_refused(tmp_path: Path) -> None:
    workers = small_instance().scenario.workers
    fast = {
        name: spec.model_copy(update={"speed": 1e4 if name == "c" else spec.speed}) for name, spec in workers.items()
    }
    instance = small_instance()
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"workers": fast})})
    deployment = small_deployment(instance, SPLIT, emulation=EmulatedNetwork(instance))
    with (
        agents_in_threads(instance.workers, tmp_path) as coordinator,
        pytest.raises(ExecuteError, match=r"workers\.c\.speed: this host is too slow to emulate the worker"),
    ):
        coordinator.run(deployment, ready_timeout_s=30.0)


def test_a_slow_worker_slows_admission_and_samples_in_flight_stay_bounded(tmp_path: Path) -> None:
    instance = small_instance(samples=30, rate_per_s=3000.0)
    sources = {name: source.model_copy(update={"in_flight": 3}) for name, source in instance.scenario.sources.items()}
    instance = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0)
    assert len(measured.outputs) == 60
    on_way = {"urgent": 0, "other": 0}
    started: set[tuple[str, int]] = set()
    most = 0
    for step in measured.steps["a"]:  # the home of both sources
        for effect in step.effects:
            if isinstance(effect, RunBlock | Send) and effect_key(effect) not in started:
                started.add(effect_key(effect))
                on_way[effect_key(effect)[0]] += 1
            elif isinstance(effect, Complete):
                on_way[effect.key.source] -= 1
        most = max(most, *on_way.values())
    assert 1 <= most <= 3


def effect_key(effect: RunBlock | Send) -> tuple[str, int]:
    source, sample, _ = effect.key if isinstance(effect, RunBlock) else effect.message.key
    return source, sample


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_that_two_homes_tell_each_other_is_refused(policy: str, tmp_path: Path) -> None:
    one = small_instance()
    sources = one.scenario.sources | {"other": one.scenario.sources["other"].model_copy(update={"worker": "b"})}
    scenario = one.scenario.model_copy(update={"sources": sources})
    instance = Instance(scenario=scenario, profiles=one.profiles, paths=one.paths)
    there = small_plan([("b", 0, 1), ("c", 2, 2)]).sources["other"]
    plan = SPLIT.model_copy(update={"sources": SPLIT.sources | {"other": there}})
    deployment = small_deployment(instance, plan, policy, EmulatedNetwork(instance))
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        measurement = coordinator.run(deployment, ready_timeout_s=30.0)
    ended = [record.status for record in measurement.records if isinstance(record, SampleRecord)]
    assert ended == ["completed"] * sum(map(instance.samples, instance.sources))
    assert measurement.incidents == []
