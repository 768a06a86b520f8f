"""A failing thread of an agent or the coordinator is logged with its cause and ends the run with a clear message."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError, explain
from planner.execution.agent.agent import Agent
from planner.execution.agent.block_cache import BlockCache
from planner.execution.agent.block_loader import BlockLoader
from planner.execution.agent.executor import BlockJob, BlockResult, Executor
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.warm_up import WarmUp
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.wire.claims import this_process
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    COORDINATOR,
    BlockFile,
    Claim,
    Claimed,
    Deploy,
    Missing,
    Ready,
    Transmit,
    WorkerFault,
)
from planner.execution.wire.threads import start_thread, surviving
from planner.execution.wire.transport import CONTROL
from planner.policy.types import SampleKey
from planner.runtime.processors import available_processors
from planner.worker.events import RunBlock
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import FILES, HASHES, SPLIT, agents_in_threads, small_deployment, small_instance

NO_PROCESSOR = [4095]


def test_the_exception_that_ends_a_thread_is_logged_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Exception] = []

    def work() -> None:
        raise KeyError("t3")

    start_thread("work", work, told.append).join()
    assert [explain(error) for error in told] == ["KeyError: 't3'"]
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info and record.exc_info[1]) == ("the thread 'work' failed", told[0])


def test_an_exception_of_a_callback_is_logged_and_not_propagated(caplog: pytest.LogCaptureFixture) -> None:
    def divide(by: int) -> None:
        told.append(1 // by)

    told: list[int] = []
    call = surviving(divide)
    for by in (0, 1):
        call(by)
    assert told == [1]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_a_failing_block_reports_the_message_and_type_of_its_exception() -> None:
    outcomes: queue.SimpleQueue[BlockResult] = queue.SimpleQueue()
    compute = Executor({}, outcomes.put, lambda _error: None)
    compute.submit(BlockJob(RunBlock(SampleKey("s", 0, 0), "none", 0, begins_stage=True), ({},), 0.0, None))
    assert outcomes.get(timeout=30.0).reason == "KeyError: 'none'"
    compute.close()
    compute.join()


@pytest.mark.skipif(not available_processors(), reason="this system does not let a process choose its processors")
def test_an_executor_thread_that_fails_ends_the_run_and_not_the_agent(tmp_path: Path) -> None:
    network, said = MemoryNetwork(), queue.SimpleQueue[Frame]()
    transport = network.connect(COORDINATOR)(said.put, lambda _member, _present: None)
    agent = Agent("a", network.connect("a"), BlockCache(tmp_path), processors=NO_PROCESSOR)
    thread = threading.Thread(target=agent.serve)
    thread.start()
    deployment = small_deployment(small_instance(), SPLIT)
    for run in ("first", "second"):
        deploy = Deploy(
            run=run, instance=deployment.instance, plan=SPLIT, policy="planned", seed=3,
            models=dict(deployment.models), resident={}, paced=False,
        )  # fmt: skip
        transport.send("a", Frame(Claim(run=run, holder=this_process())), CONTROL)
        assert said.get(timeout=30.0).body == Claimed(run=run, worker="a")
        transport.send("a", Frame(deploy), CONTROL)
        while not isinstance(body := said.get(timeout=30.0).body, Ready):
            assert isinstance(body, Missing)
            data = np.frombuffer(FILES[HASHES.index(body.sha256)], np.uint8)
            transport.send("a", Frame(BlockFile(run=run, sha256=body.sha256), {"file": data}), CONTROL)
        fault = said.get(timeout=30.0).body
        assert isinstance(fault, WorkerFault)
        assert (fault.run, fault.what) == (run, "the agent fails: OSError: [Errno 22] Invalid argument")
    agent.close()
    thread.join(30.0)
    assert not thread.is_alive()


def test_a_block_loader_thread_that_fails_is_reported() -> None:
    class Blocks(ModelBlocks):
        @property
        def idle(self) -> frozenset[tuple[int, int]]:
            raise KeyError("t3")

    deployment = small_deployment(small_instance(), SPLIT)
    deploy = Deploy(
        run="r", instance=deployment.instance, plan=SPLIT, policy="planned", seed=3, models=dict(deployment.models),
        resident={}, paced=False,
    )  # fmt: skip
    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    model = Blocks((), (), provider="cpu", threads=1)
    models, problems = {"small": model}, list[str]()
    warm_up = WarmUp(models, {}, problems.append)
    kept = BlockLoader("b", deploy, models, warm_up, on_problem=problems.append, on_failure=failures.put)
    assert explain(failures.get(timeout=30.0)) == "KeyError: 't3'"
    kept.join()


def test_an_emulated_network_that_fails_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    class Failing(EmulatedNetwork):
        def _submit(self, request: Transmit) -> None:
            raise KeyError(request.cut)

    instance = small_instance()
    deployment = small_deployment(instance, SPLIT, emulation=Failing(instance))
    with (
        agents_in_threads(instance.workers, tmp_path) as coordinator,
        pytest.raises(ExecuteError, match=r"coordinator: the run cannot go on: KeyError: \d"),
    ):
        coordinator.run(deployment, ready_timeout_s=30.0)


def test_a_transfer_between_unconnected_members_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    class Forged(EmulatedNetwork):
        def transmit(self, request: Transmit) -> None:
            super().transmit(request)
            if request.transfer == "a/0":
                super().transmit(request.model_copy(update={"to": "nowhere"}))

    instance = small_instance()
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        measured = coordinator.run(small_deployment(instance, SPLIT, emulation=Forged(instance)), ready_timeout_s=30.0)
    assert len(measured.outputs) == sum(instance.samples(source) for source in instance.sources)
    (incident,) = measured.incidents
    assert (incident.worker, incident.what) == ("a", "was refused: transmit: no such path; found 'a > nowhere'")


@pytest.mark.parametrize("changed", [{"at_s": float("nan")}, {"priority": float("inf")}, {"size_bytes": -1}])
def test_an_invalid_transfer_is_refused(changed: dict[str, float]) -> None:
    request = Transmit(
        run="r", transfer="a/0", sender="a", to="b", key=SampleKey("urgent", 0, 0), cut=1, size_bytes=1, priority=1.0,
        at_s=0.0,
    )  # fmt: skip
    with pytest.raises(ExecuteError, match="transmit from a: not a valid transfer; found"):
        EmulatedNetwork(small_instance()).transmit(request.model_copy(update=changed))
