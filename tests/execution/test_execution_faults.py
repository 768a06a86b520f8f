"""Runs in which workers die, come back, lose links or fail: every sample ends once, completed or failed by name."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.execution.agent.driver import Driver
from planner.execution.agent.model_blocks import Held
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import COORDINATOR, DeployedModel, Ended, Load, Output, Stop
from planner.execution.wire.transport import CONTROL
from planner.policy.registry import POLICIES, make_policy
from planner.policy.types import SampleKey
from planner.runtime.providers import Provider
from planner.runtime.runner import Tensor
from planner.scenario.instance import Instance
from planner.scenario.types import PaceParameters
from planner.trace.records import SampleRecord, TransferRecord
from planner.worker.events import Arrived, BlockEnded, FailureMessage, Joined, Left, Received, Replanned
from planner.worker.worker import Worker
from tests.execution.fleet import After, Live, assert_accounted, deployment_for, fleet, ran_at, said, warmed
from tests.execution.rig import BLOCKS, FILES, MODEL, SPLIT, line_of_three, small_instance, small_plan
from tests.instances import make_instance, make_profile

SAMPLES = 40


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_dies_costs_no_sample(policy: str, tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        after = After((15, lambda: agents.kill("c")))
        measured = coordinator.run(deployment_for(instance, policy=policy), ready_timeout_s=30.0, observer=after)
    assert assert_accounted(instance, measured) == {}
    assert len(measured.outputs) == 2 * SAMPLES
    assert measured.left == ["c"]
    # It is missed during the run, or at the end, where all samples have ended before.
    assert said(measured)[0] in {("c", "left"), ("c", "left before it reported")}


def test_what_a_stranger_sends_is_refused_and_listed_and_costs_no_sample(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        stranger = agents.network.connect("x")(lambda _frame: None, lambda _member, _present: None)

        def meddle() -> None:
            for _ in range(100):
                stranger.send("a", Frame(Stop(run="r")), CONTROL)
                stranger.send(COORDINATOR, Frame(Stop(run="r")), CONTROL)

        after = After((15, meddle))
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0, observer=after)
        stranger.close()
    assert assert_accounted(instance, measured) == {}
    (refused,) = {what for worker, what in said(measured) if worker == "x" and "more were refused" not in what}
    assert refused == f"was refused: sender: this member may not send 'stop'; found 'x'; expected {COORDINATOR}"
    assert 2 <= len(said(measured)) < 100


def test_ends_of_samples_that_are_not_its_own_are_not_taken_from_a_worker(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        b = agents.agent("b")

        def forge() -> None:
            assert b._runs.last is not None
            for source, sample in (("urgent", SAMPLES - 1), ("nobody's", 0), ("other", SAMPLES)):
                record = SampleRecord(source, sample, 0.0, 0.0, "failed", "forged")
                b._report(Frame(Ended(run=b._runs.last.id, worker="b", samples=(record,))))
                b._report(Frame(Output(run=b._runs.last.id, source=source, samples=(sample,)), {"t3": np.zeros(4)}))

        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0, observer=After((15, forge)))
    assert assert_accounted(instance, measured) == {}
    told = [what for worker, what in said(measured) if worker == "b"]
    assert told[0] == "was refused: ended of samples that are not its own: urgent"
    assert len(told) == 3


def test_the_plan_is_solved_again_and_what_agents_did_with_it_can_be_replayed(tmp_path: Path) -> None:
    instance = small_instance(samples=3 * SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        after = After((15, lambda: agents.kill("c")))
        measured = coordinator.run(warmed(deployment_for(instance)), ready_timeout_s=30.0, observer=after)
    assert any(worker == "" and what.startswith("new plan by ") for worker, what in said(measured))
    steps = measured.steps["a"]
    (replanned,) = (step for step in steps if isinstance(step.event, Replanned))
    assert isinstance(replanned.event, Replanned)
    routes = [route for own in replanned.event.plan.sources.values() for route in own.routes]
    assert all(stage.worker != "c" for route in routes for stage in route.stages)
    for name in ("a", "b"):
        worker = Worker(name, instance, make_policy("planned", instance, SPLIT))
        for step in measured.steps[name]:
            assert worker.step(step.now_s, step.event) == step.effects


@pytest.mark.alone
@pytest.mark.parametrize("policy", ["planned", "adaptive"])
def test_a_worker_that_becomes_slow_is_listed_and_planned_for_anew(policy: str, tmp_path: Path) -> None:
    instance = small_instance(samples=100, rate_per_s=30.0, slow=PaceParameters().slow)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        c = agents.agent("c")

        def slow_down() -> None:
            assert c._runs.last is not None
            blocks = c._runs.last._models["small"]
            run = blocks.run

            def slowly(
                block: int, tensors: Held, last: int | None = None, *, goes_on: bool = False
            ) -> dict[str, Tensor]:
                time.sleep(0.01)  # by its profile it takes 1 ms
                return run(block, tensors, last, goes_on=goes_on)

            blocks.run = slowly  # type: ignore[method-assign]

        measured = coordinator.run(
            warmed(deployment_for(instance, policy=policy)), ready_timeout_s=30.0, observer=After((30, slow_down))
        )
    assert assert_accounted(instance, measured) == {}
    assert len(measured.outputs) == 200
    told = [one for one in measured.incidents if one.worker == "c"]  # a busy host may slow down others too
    assert told[0].what.endswith("x slower than profiled")
    new_plans = [one.at_s for one in measured.incidents if one.what.startswith("new plan by ")]
    replanned_s = min(at_s for at_s in new_plans if at_s >= told[0].at_s)
    before, after = (
        [r for name in "abc" for r in ran_at(measured, name, after_s) if r.start_s < until_s]
        for after_s, until_s in ((0.0, replanned_s), (replanned_s + 0.5, np.inf))
    )
    assert sum(r.worker == "c" for r in after) / len(after) < 0.5 * sum(r.worker == "c" for r in before) / len(before)


def test_a_worker_that_comes_back_works_again(tmp_path: Path) -> None:
    instance = small_instance(samples=10)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        session = Live(coordinator, stop_after=30)
        session.when_left = lambda: agents.come("c")
        session.at = {10: lambda: agents.kill("c")}
        measured = coordinator.run(deployment_for(instance, live=True), ready_timeout_s=30.0, observer=session)
    assert measured.left == []
    told = [what for worker, what in said(measured) if worker == "c"]
    assert told == ["left", "connected", "joined the run"]
    assert session.ended_once()


def two_homes(samples: int) -> Instance:
    """One source at a, the other at b."""
    cut_bytes = [cut.bytes for cut in MODEL.chain.cuts]
    sources = {
        "urgent": {"rate_per_s": 60.0, "priority": 8.0, "samples": samples, "worker": "a"},
        "other": {"rate_per_s": 60.0, "priority": 1.0, "samples": samples, "worker": "b"},
    }
    return make_instance(
        profiles=[make_profile("small", block_s=[0.004] * BLOCKS, cut_bytes=cut_bytes)],
        workers={"a": 1.0, "b": 2.0, "c": 4.0},
        sources=sources,
    )


def test_samples_of_a_home_that_dies_fail_by_name_and_those_after_its_return_complete(tmp_path: Path) -> None:
    instance = two_homes(100)
    lost: list[SampleKey] = []
    back = threading.Event()

    class Watch(Observer):
        """Replaces the home of "other" while one of its samples is at a, which then waits for the home's return."""

        def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:  # noqa: ARG002
            run_at_a = agents.agent("a")._runs.last
            assert run_at_a is not None
            blocks, ran = run_at_a._models["small"], count(1)
            run = blocks.run

            def held(block: int, tensors: Held, last: int | None = None, *, goes_on: bool = False) -> dict[str, Tensor]:
                assert run_at_a._driver is not None
                sample = run_at_a._driver.running
                if not lost and next(ran) > 10 and sample is not None and sample.source == "other":
                    lost.append(sample)
                    agents.kill("b")
                    agents.come("b")
                    assert back.wait(120.0)
                return run(block, tensors, last, goes_on=goes_on)

            blocks.run = held  # type: ignore[method-assign]

        def on_joined(self, worker: str) -> None:  # noqa: ARG002
            back.set()

    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0, observer=Watch())
    reasons = assert_accounted(instance, measured)
    assert set(reasons) <= {"b left", "b was absent"}
    failed = {(one.source, one.sample) for one in measured.records if isinstance(one, SampleRecord) and one.reason}
    assert {source for source, _ in failed} == {"other"}
    assert next((key.source, key.sample) for key in lost) in failed
    arrived = {
        (step.event.source, step.event.sample) for step in measured.steps["b"] if isinstance(step.event, Arrived)
    }
    assert failed.isdisjoint(arrived)


def test_a_home_that_stays_away_fails_its_samples_and_the_others_go_on(tmp_path: Path) -> None:
    instance = two_homes(SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        after = After((15, lambda: agents.kill("b")))
        deployment = dataclasses.replace(deployment_for(instance), home_timeout_s=0.2)
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=after)
    assert set(assert_accounted(instance, measured)) <= {"b left", "b was absent"}
    assert ("b", "has not come back within 0.2 s; its samples fail") in said(measured)
    assert {source for source, _ in measured.outputs} == {"urgent"}
    assert len(measured.outputs) == SAMPLES


def test_what_an_agent_did_before_it_died_is_known(tmp_path: Path) -> None:
    instance = small_instance(samples=4 * SAMPLES)

    class Watch(Observer):
        told_by_c = 0

        def on_load(self, load: Load) -> None:
            self.told_by_c += load.worker == "c"
            if self.told_by_c == 2:  # after the first of them it told what it had done
                agents.kill("c")

    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0, observer=Watch())
    assert assert_accounted(instance, measured) == {}
    assert measured.left == ["c"]
    ran = [step.event.key for step in measured.steps["c"] if isinstance(step.event, BlockEnded)]
    assert len(ran) >= 1
    assert len(ran_at(measured, "c")) == len(ran)


@pytest.mark.parametrize("method", ["handle", "on_block_end"], ids=["agent's thread", "compute thread"])
def test_an_agent_that_fails_says_what_raised_and_the_others_go_on(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = small_instance(samples=SAMPLES)
    real, calls = getattr(Driver, method), count(1)

    def failing(driver: Driver, *arguments: object) -> None:
        if driver.name == "c" and next(calls) == 5:
            raise ZeroDivisionError("what nobody thought of")
        real(driver, *arguments)

    monkeypatch.setattr(Driver, method, failing)
    with fleet(tmp_path, *instance.workers) as (_, coordinator):
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0)
    assert assert_accounted(instance, measured) == {}
    assert said(measured)[0] == ("c", "the agent fails: ZeroDivisionError: what nobody thought of")
    assert measured.left == ["c"]


def test_agents_fall_idle_when_their_coordinator_dies_and_take_the_next(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)

    class DiedError(Exception):
        pass

    def die() -> None:
        raise DiedError

    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        with pytest.raises(DiedError):
            coordinator.run(deployment_for(instance), ready_timeout_s=30.0, observer=After((5, die)))
        agents.kill(COORDINATOR)
        with Coordinator(agents.network.connect(COORDINATOR)) as following:
            following.await_agents(instance.workers, 30.0)
            measured = following.run(deployment_for(instance), ready_timeout_s=30.0)
    assert assert_accounted(instance, measured) == {}
    assert measured.duplicates == 0
    assert said(measured) == []


def test_a_block_that_raises_fails_its_samples_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    picky = picky_block()
    deployment = deployment_for(instance)
    files = [FILES[0], picky, FILES[2]]
    hashes = tuple(hashlib.sha256(file).hexdigest() for file in files)
    model = DeployedModel(cuts=deployment.models["small"].cuts, block_sha256=hashes, block_bytes=tuple(map(len, files)))
    deployment = dataclasses.replace(deployment, models={"small": model}, blocks=dict(zip(hashes, files, strict=True)))
    deployment.warm_up.first["urgent"] = {"t0": np.zeros(MODEL.chain.cuts[0].tensors[0].shape, np.float32)}
    with fleet(tmp_path, *instance.workers) as (_, coordinator):
        measured = coordinator.run(deployment, ready_timeout_s=30.0)
    reasons = assert_accounted(instance, measured)
    assert 0 < sum(reasons.values()) < 2 * SAMPLES
    assert all("block 1: onnxruntime fails to run the block" in reason for reason in reasons)
    assert all(reason.count("block 1") == 1 for reason in reasons)
    assert all(what.startswith("block 1 of small fails: ") for _, what in said(measured))
    assert {worker for worker, _ in said(measured)} == {"a", "b"}


def picky_block() -> bytes:
    """The second block, which looks up a table of one entry beyond its end when an activation is large."""
    graph = onnx.load_from_string(FILES[1]).graph
    nodes = [
        helper.make_node("ReduceMax", ["t1"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["large"]),
        helper.make_node("Cast", ["large"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        *(node for node in graph.node),
        helper.make_node("Add", ["made", "nothing"], ["t2"]),
    ]
    nodes[-2].output[0] = "made"
    numbers = {"limit": np.float32(2.0), "table": np.zeros(1, np.float32)}
    built = helper.make_graph(
        nodes,
        "picky",
        list(graph.input),
        list(graph.output),
        [*graph.initializer, *(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in numbers.items())],
    )
    return bytes(
        helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


BY_B = small_plan([("a", 0, 0), ("b", 1, 1), ("c", 2, 2)], [("a", 0, BLOCKS - 1)])


def test_a_link_that_is_cut_turns_samples_back_and_is_used_again_when_it_is_there(tmp_path: Path) -> None:
    instance = small_instance(samples=4 * SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        after = After((20, lambda: agents.network.cut("b", "c")), (80, lambda: agents.network.mend("b", "c")))
        measured = coordinator.run(deployment_for(instance, BY_B), ready_timeout_s=30.0, observer=after)
    assert assert_accounted(instance, measured) == {}
    assert measured.left == []
    events = [type(step.event) for step in measured.steps["b"] if isinstance(step.event, Left | Joined)]
    assert events == [Left, Joined]
    turned = [
        step.event.message
        for step in measured.steps["a"]
        if isinstance(step.event, Received) and isinstance(step.event.message, FailureMessage)
    ]
    assert turned
    assert {message.broken for message in turned} == {("b", "c")}


def test_frames_go_hop_by_hop_between_workers_that_do_not_reach_each_other(tmp_path: Path) -> None:
    instance = line_of_three(SAMPLES)
    plan = small_plan([("a", 0, 0), ("c", 1, 2)], [("c", 0, 2)])
    with fleet(tmp_path) as (agents, coordinator):
        agents.network.cut("a", "c")
        agents.come(*instance.workers)
        coordinator.await_agents(instance.workers, 30.0)
        measured = coordinator.run(deployment_for(instance, plan), ready_timeout_s=30.0)
    assert assert_accounted(instance, measured) == {}
    assert not ran_at(measured, "b")
    crossed = [record.resource for record in measured.records if isinstance(record, TransferRecord)]
    assert {name: crossed.count(name) for name in sorted(set(crossed))} == dict.fromkeys(
        ("ab:a>b", "ab:b>a", "bc:b>c", "bc:c>b"), 2 * SAMPLES
    )


def test_when_the_relay_dies_the_rest_of_the_samples_stay_at_home(tmp_path: Path) -> None:
    instance = line_of_three(SAMPLES)
    plan = small_plan([("a", 0, 0), ("c", 1, 2)], [("c", 0, 2)])
    with fleet(tmp_path) as (agents, coordinator):
        agents.network.cut("a", "c")
        agents.come(*instance.workers)
        coordinator.await_agents(instance.workers, 30.0)
        after = After((15, lambda: agents.kill("b")))
        measured = coordinator.run(deployment_for(instance, plan), ready_timeout_s=30.0, observer=after)
    assert assert_accounted(instance, measured) == {}
    assert measured.left == ["b"]


def test_tensors_stay_on_a_device_between_blocks_and_results_are_the_same(tmp_path: Path) -> None:
    device = Provider("bound", ("CPUExecutionProvider",), device="cpu")
    instance = small_instance(samples=10)
    with fleet(tmp_path) as (agents, coordinator):
        agents.come(*instance.workers, provider=device)
        coordinator.await_agents(instance.workers, 30.0)
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=30.0)
    assert assert_accounted(instance, measured) == {}
    assert len(measured.outputs) == 20


def test_a_worker_that_comes_late_joins_the_run(tmp_path: Path) -> None:
    instance = small_instance(samples=3 * SAMPLES)
    with fleet(tmp_path, "a", "b") as (agents, coordinator):
        deployment = dataclasses.replace(deployment_for(instance), later=frozenset("c"))
        after = After((20, lambda: agents.come("c")))
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=after)
    assert assert_accounted(instance, measured) == {}
    assert measured.left == []
    told = [what for worker, what in said(measured) if worker == "c"]
    assert told == ["has not connected yet", "connected", "joined the run"]
