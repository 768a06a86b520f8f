"""Members that start at the same time discover each other; awaited members are queried again."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.probe.survey import Inquirer
from planner.execution.wire import presence
from planner.execution.wire.frames import VERSION
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.transport import OnFrame, OnPresence, Transport
from planner.execution.wire.zenoh import free_port, zenoh_connect
from tests.execution.memory_network import MemoryNetwork

ROUNDS = 15
NAMES = (COORDINATOR, "a", "b", "c", "d")


class Meeting:
    """Members that start at once, and which others each has seen."""

    def __init__(self) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        self._changed = threading.Condition()
        self._seen: dict[str, set[str]] = {name: set() for name in NAMES}

    def come(self, name: str) -> Transport:
        listen, connect = (self._address, []) if name == COORDINATOR else (None, [self._address])

        def see(other: str, present: bool) -> None:  # noqa: FBT001 - the protocol's signature
            with self._changed:
                (self._seen[name].add if present else self._seen[name].discard)(other)
                self._changed.notify()

        return zenoh_connect(name, listen=listen, connect=connect)(lambda _frame: None, see)

    def forget(self) -> None:
        """Forget which members have been seen."""
        with self._changed:
            for seen in self._seen.values():
                seen.clear()

    def complete(self) -> bool:
        """Wait until every member has seen every other."""
        with self._changed:
            return self._changed.wait_for(lambda: all(len(seen) == len(NAMES) - 1 for seen in self._seen.values()), 20)


def test_members_that_start_at_once_all_discover_each_other() -> None:
    with ThreadPoolExecutor(len(NAMES)) as pool:
        for _ in range(ROUNDS):
            meeting = Meeting()
            members = list(pool.map(meeting.come, NAMES))
            try:
                assert meeting.complete()
            finally:
                for member in members:
                    member.close()


def test_a_query_reports_the_present_members_again() -> None:
    meeting = Meeting()
    members = [meeting.come(name) for name in NAMES]
    try:
        assert meeting.complete()
        meeting.forget()
        for member in members:
            member.query_presence()
        assert meeting.complete()
    finally:
        for member in members:
            member.close()


def test_an_agent_whose_arrival_was_missed_is_discovered() -> None:
    network = MemoryNetwork()
    agent = network.connect("a")(lambda _frame: None, lambda _member, _present: None)
    heard = itertools.count()

    def connect(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
        def once_deaf(member: str, present: bool) -> None:  # noqa: FBT001 - the protocol's signature
            if next(heard):
                on_presence(member, present)

        return network.connect(COORDINATOR)(on_frame, once_deaf)

    with Coordinator(connect) as coordinator:
        assert coordinator.absent(["a"])
        coordinator.await_agents(["a"], 30.0)
        with pytest.raises(ExecuteError, match=r"did not connect within 0.1 s; found 'b'"):
            coordinator.await_agents(["a", "b"], 0.1)
    assert next(heard) >= 2
    agent.close()


def test_agents_of_another_version_are_named_instead_of_used(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    with monkeypatch.context() as patch:
        patch.setattr(presence, "VERSION", 9)
        other = zenoh_connect("a", listen=address, connect=[])(lambda _frame: None, lambda _member, _present: None)
    told = f"a: another version of the wire format; found 9; expected {VERSION}; install the same version of planner"
    try:
        with (
            Coordinator(zenoh_connect(COORDINATOR, listen=None, connect=[address])) as coordinator,
            pytest.raises(ExecuteError, match=f"worker {told}"),
        ):
            coordinator.await_agents(["a"], 30.0)
        with Inquirer(zenoh_connect(COORDINATOR, listen=None, connect=[address])) as inquirer:
            assert inquirer.ask(inquirer.find(["a"], 30.0)) == []
            (warning,) = inquirer.unlike
            assert warning.startswith(f"agent {told}")
            with pytest.raises(ExecuteError, match=f"worker {told}"):
                inquirer.claim(["a"])
    finally:
        other.close()
