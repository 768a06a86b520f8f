"""Agent processes over Zenoh that are killed, stopped and started while a run is on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire import zenoh as wire_zenoh
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.trace.records import TransferRecord
from tests.execution.fleet import After, Live, Threads, assert_accounted, deployment_for, said
from tests.execution.processes import Processes
from tests.execution.rig import line_of_three, small_instance, small_plan

INSTANCE = small_instance(samples=60)


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    found = Processes(INSTANCE.workers, tmp_path_factory.mktemp("blocks"))
    try:
        found.complete()
        yield found
    finally:
        found.close()


@contextmanager
def new_coordinator(agents: Processes) -> Iterator[Coordinator]:
    """One of several that follow each other at one address, where the agents find each of them."""
    agents.complete()
    with Coordinator(zenoh_connect(COORDINATOR, listen=agents.address, connect=[])) as found:
        found.await_agents(INSTANCE.workers, 60.0)
        yield found


@pytest.fixture
def coordinator(agents: Processes) -> Iterator[Coordinator]:
    with new_coordinator(agents) as found:
        yield found


def test_kill_9_costs_no_sample(agents: Processes, coordinator: Coordinator) -> None:
    after = After((20, lambda: agents.kill("c")))
    measured = coordinator.run(deployment_for(INSTANCE), ready_timeout_s=60.0, observer=after)
    assert assert_accounted(INSTANCE, measured) == {}
    assert said(measured)[0] == ("c", "left")


def test_a_killed_agent_that_is_started_again_joins_the_run(
    agents: Processes, coordinator: Coordinator, tmp_path: Path
) -> None:
    # The one that follows is a thread, for a process takes seconds to start on a busy machine.
    following = Threads(tmp_path)
    live = Live(coordinator, stop_after=30)
    live.when_left = lambda: following.start("c", zenoh_connect("c", listen=None, connect=[agents.address]))
    live.at = {10: lambda: agents.kill("c")}
    try:
        measured = coordinator.run(deployment_for(INSTANCE, live=True), ready_timeout_s=60.0, observer=live)
    finally:
        following.close()
    assert measured.left == []
    assert [what for worker, what in said(measured) if worker == "c"] == ["left", "connected", "joined the run"]
    assert live.ended_once()


def test_a_silent_agent_is_gone_and_comes_back_when_it_speaks_again(
    agents: Processes, coordinator: Coordinator
) -> None:
    live = Live(coordinator, stop_after=30)
    stopped = agents.running["c"]
    live.at = {10: lambda: stopped.send_signal(signal.SIGSTOP)}
    live.when_left = lambda: stopped.send_signal(signal.SIGCONT)
    measured = coordinator.run(deployment_for(INSTANCE, live=True), ready_timeout_s=60.0, observer=live)
    assert measured.left == []
    assert [what for worker, what in said(measured) if worker == "c"] == ["left", "connected", "joined the run"]
    assert live.ended_once()


def test_an_agent_that_may_write_no_file_works_from_memory(agents: Processes) -> None:
    agents.kill("c")
    agents.start("c", "sh", "-c", 'ulimit -f 0; exec "$@"', "sh", cache="full")
    with new_coordinator(agents) as coordinator:
        measured = coordinator.run(deployment_for(INSTANCE), ready_timeout_s=60.0)
    agents.kill("c")
    assert assert_accounted(INSTANCE, measured) == {}
    assert {worker for worker, _ in said(measured)} == {"c"}
    assert all("keeping it in memory: File too large" in what for _, what in said(measured))


def test_agents_outlive_a_coordinator_that_is_killed(agents: Processes) -> None:
    agents.complete()
    dying = subprocess.run([sys.executable, "-c", DYING_COORDINATOR, agents.address], timeout=120.0, check=False)
    assert dying.returncode == -signal.SIGKILL
    with new_coordinator(agents) as following:
        measured = following.run(deployment_for(INSTANCE), ready_timeout_s=60.0)
    assert assert_accounted(INSTANCE, measured) == {}
    assert measured.duplicates == 0
    assert said(measured) == []


DYING_COORDINATOR = """
import os, signal, sys
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from tests.execution.fleet import After, deployment_for
from tests.execution.test_execution_killed import INSTANCE

with Coordinator(zenoh_connect(COORDINATOR, listen=sys.argv[1], connect=[])) as coordinator:
    coordinator.await_agents(INSTANCE.workers, 60.0)
    die = After((20, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    coordinator.run(deployment_for(INSTANCE), ready_timeout_s=60.0, observer=die)
"""


def test_a_worker_that_hardly_gets_to_run_stays_and_costs_no_sample(
    agents: Processes, coordinator: Coordinator
) -> None:
    process = agents.running["c"]
    done = threading.Event()

    def hold_up() -> None:
        while not done.is_set():  # a tenth of its speed, in pauses far shorter than it takes to count as gone
            process.send_signal(signal.SIGSTOP)
            done.wait(0.09)
            process.send_signal(signal.SIGCONT)
            done.wait(0.01)

    holding = threading.Thread(target=hold_up)
    try:
        after = After((20, holding.start))
        deployment = deployment_for(INSTANCE, policy="adaptive")
        measured = coordinator.run(deployment, ready_timeout_s=60.0, observer=after)
    finally:
        done.set()
        if holding.ident is not None:
            holding.join()
        process.send_signal(signal.SIGCONT)
    assert assert_accounted(INSTANCE, measured) == {}


def test_frames_go_hop_by_hop_where_agents_are_joined_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = wire_zenoh._configuration
    without_gossip = {"scouting/gossip/enabled": False}  # members have links only to those they connect to
    monkeypatch.setattr(wire_zenoh, "_configuration", lambda *arguments: configuration(*arguments) | without_gossip)
    instance = line_of_three(20)
    plan = small_plan([("a", 0, 0), ("c", 1, 2)], [("c", 0, 2)])
    addresses = {name: f"127.0.0.1:{free_port()}" for name in (COORDINATOR, "a", "b", "c")}
    joins = {"a": [COORDINATOR], "b": [COORDINATOR, "a"], "c": [COORDINATOR, "b"]}
    line = Threads(tmp_path)
    hub = zenoh_connect(COORDINATOR, listen=addresses[COORDINATOR], connect=[])
    with Coordinator(hub) as coordinator:
        try:
            for name, others in joins.items():
                connect = [addresses[other] for other in others]
                line.start(name, zenoh_connect(name, listen=addresses[name], connect=connect))
            coordinator.await_agents(instance.workers, 60.0)
            measured = coordinator.run(deployment_for(instance, plan), ready_timeout_s=60.0)
        finally:
            line.close()
    assert assert_accounted(instance, measured) == {}
    crossed = [record.resource for record in measured.records if isinstance(record, TransferRecord)]
    assert {name: crossed.count(name) for name in sorted(set(crossed))} == dict.fromkeys(
        ("ab:a>b", "ab:b>a", "bc:b>c", "bc:c>b"), 40
    )
