"""Several agents of one name are named with their addresses and refused; one that appears later disturbs no run."""

from __future__ import annotations

import json
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ExecuteError
from planner.execution.agent.agent import Agent
from planner.execution.coordinator import failover
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.probe.survey import Inquirer, survey
from planner.execution.wire import presence
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.presence import Roster
from planner.execution.wire.transport import Connect
from planner.execution.wire.whereabouts import Whereabouts
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.runtime.input_pool import input_pool
from planner.trace.records import Incident, SampleRecord
from tests.cli.command import planner_process
from tests.execution.case import WIDTH, write_case
from tests.execution.fleet import Threads, assert_accounted, deployment_for
from tests.execution.processes import Processes
from tests.execution.rig import MODEL, small_instance

INSTANCE = small_instance(samples=20)
NAMES = tuple(INSTANCE.workers)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the agents here, none that ends is missed for the length of a lease.
    monkeypatch.setattr(presence, "SETTLED_S", 0.3)
    monkeypatch.setattr(failover, "SETTLED_S", 0.3)


class Group(Threads):
    """Agents in threads over real Zenoh, and a coordinator at one address."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.address = f"127.0.0.1:{free_port()}"

    def connect(self, name: str) -> Connect:
        if name == COORDINATOR:
            return zenoh_connect(name, listen=self.address, connect=[])
        return zenoh_connect(name, listen=None, connect=[self.address])

    def come(self, *names: str) -> None:
        for name in names:
            self.start(name, self.connect(name))

    def leave(self, name: str, index: int) -> None:
        """Make the agent leave that was started under this name as the ``index``-th."""
        [agent for agent, _ in self._agents if agent.name == name][index].close()

    def agent(self, name: str) -> Agent:
        """Return the agent of this name that was started last."""
        return next(agent for agent, _ in reversed(self._agents) if agent.name == name)


@contextmanager
def group(folder: Path, *names: str) -> Iterator[tuple[Group, Coordinator]]:
    found = Group(folder)
    with Coordinator(found.connect(COORDINATOR)) as coordinator:
        try:
            found.come(*names)
            yield found, coordinator
        finally:
            found.close()


def eventually(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def answering(coordinator: Coordinator, name: str) -> int:
    """Return how many agents of a name the coordinator sees."""
    return len(coordinator._members._transport.processes(name))


@pytest.mark.parametrize("others", [["c"], ["c", "c"], ["b", "c"]], ids=["two", "three", "two of two names"])
def test_a_run_with_several_agents_of_one_name_is_refused_until_they_are_gone(
    tmp_path: Path, others: list[str]
) -> None:
    with group(tmp_path, *NAMES, *others) as (agents, coordinator):
        eventually(lambda: all(answering(coordinator, name) == 1 + others.count(name) for name in NAMES))
        for act in (
            lambda: coordinator.await_agents(NAMES, 30.0),
            lambda: coordinator.run(deployment_for(INSTANCE), ready_timeout_s=30.0),
        ):
            with pytest.raises(ExecuteError, match="several agents have this name; found") as refused:
                act()
            faults = refused.value.faults
            assert [fault.where for fault in faults] == [f"worker {name}" for name in sorted(set(others))]
            for fault in faults:
                assert str(fault.value).count("127.0.0.1:") == 1 + others.count(str(fault.where)[-1])
        for name in set(others):
            for index in range(others.count(name)):  # whichever was first
                agents.leave(name, index)
        coordinator.await_agents(NAMES, 30.0)
        measured = coordinator.run(deployment_for(INSTANCE), ready_timeout_s=30.0)
    assert assert_accounted(INSTANCE, measured) == {}
    assert (measured.duplicates, measured.left) == (0, [])


class Flow(Observer):
    """Submits a sample for each that ends; stops the run ten samples after an incident of these words."""

    def __init__(self, coordinator: Coordinator, until: str, *actions: Callable[[], None]) -> None:
        self._coordinator = coordinator
        self._until = until
        self._actions = list(actions)
        self._inputs = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=0, samples=1)[0]
        self._left = 10**6
        self.ended: list[int] = []
        self.incidents: list[str] = []

    def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        self._submit = submit
        submit("urgent", 0, self._inputs)

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        np.testing.assert_allclose(outputs["t3"], np.maximum(self._inputs["t0"], 0) + self._inputs["t0"], rtol=1e-4)
        self.ended.append(sample.sample)
        if len(self.ended) % 5 == 0 and self._actions:
            self._actions.pop(0)()
        self._left -= 1
        if self._left > 0:
            self._submit("urgent", len(self.ended), self._inputs)
        else:
            self._coordinator.stop()

    def on_incident(self, incident: Incident) -> None:
        assert incident.worker in {"", "c"}
        if incident.worker:
            self.incidents.append(incident.what.partition(":")[0])
        if incident.what.startswith(self._until):
            self._left = 10

    def run(self, *, most_duplicates: int = 0) -> RunResult:
        result = self._coordinator.run(deployment_for(INSTANCE, live=True), ready_timeout_s=60.0, observer=self)
        assert result.duplicates <= most_duplicates
        assert self.ended == list(range(len(self.ended)))
        return result


def test_one_that_appears_during_a_run_is_an_incident_and_receives_nothing(tmp_path: Path) -> None:
    with group(tmp_path, *NAMES) as (agents, coordinator):
        coordinator.await_agents(NAMES, 30.0)
        flow = Flow(coordinator, "is the name of several", lambda: agents.come("c"))
        result = flow.run()
        newcomer = agents.agent("c")
        assert newcomer._runs.last is None
        assert not newcomer._transport._receiver._assemblers  # type: ignore[attr-defined]
    assert flow.incidents == ["is the name of several agents"]
    assert result.incidents[0].what.count("127.0.0.1:") == 2


def test_one_that_appeared_during_a_run_takes_over_from_the_first(tmp_path: Path) -> None:
    with group(tmp_path, *NAMES) as (agents, coordinator):
        coordinator.await_agents(NAMES, 30.0)
        flow = Flow(coordinator, "joined", lambda: agents.come("c"))
        on_incident = flow.on_incident

        def first_leaves(incident: Incident) -> None:
            on_incident(incident)
            if incident.what.startswith("is the name of several"):
                agents.leave("c", 0)

        flow.on_incident = first_leaves  # type: ignore[method-assign]
        result = flow.run()
    assert sorted(flow.incidents[1:3]) == ["is the name of one agent again", "left"]
    assert flow.incidents[3:] == ["connected", "joined the run"]
    assert result.left == []


def test_an_agent_that_restarts_before_its_predecessor_is_missed_joins_as_after_any_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # here one is
    agents = Group(tmp_path)
    processes = Processes(NAMES, tmp_path)
    processes.address = agents.address
    with Coordinator(agents.connect(COORDINATOR)) as coordinator:
        try:
            processes.complete()
            coordinator.await_agents(NAMES, 60.0)

            def restart() -> None:
                processes.running["c"].send_signal(signal.SIGSTOP)  # its connections stay open, as if it had lost power
                agents.come("c")

            flow = Flow(coordinator, "joined", restart)
            # One sample is in flight: its result may be on its way while its worker is taken for gone, and comes again.
            result = flow.run(most_duplicates=1)
            processes.kill("c")
        finally:
            agents.close()
            processes.close()
    assert flow.incidents == ["left", "connected", "joined the run"]
    assert result.left == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.booleans()), max_size=30))
def test_messages_go_to_the_agent_that_was_there_first(changes: list[tuple[str, int, bool]]) -> None:
    present: dict[str, bool] = {}
    expected: dict[str, list[str]] = {"a": [], "b": []}
    roster = Roster(("x", "own"), present.__setitem__)
    for name, number, comes in changes:
        process, before = str(number), roster.first(name)
        if comes:
            roster.add(name, process, Whereabouts(process_id=number))
            expected[name] += [process] if process not in expected[name] else []
        else:
            roster.remove(name, process)
            expected[name] = [other for other in expected[name] if other != process]
        assert list(roster.processes(name).items()) == [(n, Whereabouts(process_id=int(n))) for n in expected[name]]
        assert roster.first(name) == (expected[name][0] if expected[name] else None)
        assert before is None or comes is False or roster.first(name) == before
        assert present.get(name, False) == bool(expected[name])
        assert roster.shared_names() == {name for name, known in expected.items() if len(known) > 1}


def test_status_names_them_and_run_and_probe_refuse(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, WIDTH), np.float32), pick=np.zeros(1, np.int64))
    agents, namesakes = Group(tmp_path), [Processes(["b"], tmp_path) for _ in range(2)]
    agents.start("a", zenoh_connect("a", listen=agents.address, connect=[]))
    for one in namesakes:
        one.address = agents.address
        one.start("b")
    there = ("--connect", agents.address)
    try:
        with Inquirer(zenoh_connect(COORDINATOR, listen=None, connect=[agents.address])) as inquirer:
            eventually(lambda: len(inquirer._transport.processes("b")) == 2)
            with ThreadPoolExecutor(2) as pool:
                ended = [
                    pool.submit(planner_process, "status", *there, "--wait", "12s", "--json"),
                    pool.submit(planner_process, "run", plan, *there, "--source", f"urgent={tmp_path}"),
                ]
                with pytest.raises(ExecuteError, match="several agents have this name; found"):
                    survey(inquirer, inquirer.find(("a", "b"), 30.0), duration_s=0.3)
                status, run = (command.result() for command in ended)
        states = json.loads(status.stdout)["agents"]
        first = states["b"]
        (other,) = first["namesakes"]
        for state in (first, other):  # each can be reached where it says it is
            host, _, port = state["address"].rpartition(":")
            socket.create_connection((host, int(port)), timeout=20.0).close()
    finally:
        agents.close()
        for one in namesakes:
            one.close()
    running = {one.running["b"].pid for one in namesakes}
    assert {first["process_id"], other["process_id"]} == running
    assert {first["host"], other["host"]} == {platform.node()}
    assert len({first["address"], other["address"], agents.address}) == 3
    assert status.returncode == 0
    assert (run.returncode, run.stdout) == (2, ""), run.stderr
    (refusal,) = [line for line in run.stderr.splitlines() if line.startswith("planner: error: ")]
    assert refusal.startswith("planner: error: worker b: several agents have this name; found '127.0.0.1:")
    for state in (first, other):
        said = f"{state['address']} on {state['host']}, process {state['process_id']}"
        assert said in status.stderr
        assert said in run.stderr


label_parts = st.text(st.characters(exclude_characters="/*$?#"), max_size=20)


@given(st.builds(Whereabouts, label_parts, label_parts, st.integers(0, 2**31)), label_parts)
def test_whereabouts_are_read_back_or_unknown(known: Whereabouts, other: str) -> None:
    read = Whereabouts.from_label(known.label)
    assert read == Whereabouts() or (read.address, read.process_id) == (known.address, known.process_id)
    assert Whereabouts.from_label(Whereabouts("[::1]:7447", other, 3).label).address == "[::1]:7447"
    assert str(Whereabouts.from_label(other)).isprintable()


@pytest.mark.parametrize(
    ("listens", "remote", "expected"),
    [
        ("0.0.0.0:7447", "192.0.2.7:55001", "192.0.2.7:7447 on edge-1, process 812"),
        ("[::]:7447", "[2001:db8::7]:55001", "[2001:db8::7]:7447 on edge-1, process 812"),
        ("192.0.2.7:7447", "192.0.2.7:55001", "192.0.2.7:7447 on edge-1, process 812"),
        ("127.0.0.1:7447", "192.0.2.7:55001", "127.0.0.1:7447 on edge-1 (192.0.2.7), process 812"),
        ("0.0.0.0:7447", "", "0.0.0.0:7447 on edge-1, process 812"),
    ],
)
def test_an_agent_is_named_by_its_own_port_and_the_address_that_reaches_it(
    listens: str, remote: str, expected: str
) -> None:
    assert str(Whereabouts(listens, "edge-1", 812).seen(remote)) == expected


def test_an_agent_says_that_another_one_has_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with group(tmp_path, "b", "b"):
        eventually(lambda: sum("another agent has this name" in text for text in caplog.messages) == 2)
    assert all("127.0.0.1:" in text for text in caplog.messages if "another agent has this name" in text)
