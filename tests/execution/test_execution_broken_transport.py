"""With a transport that refuses fragments, no frame is lost, duplicated or reordered, or the failure is reported."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zenoh

from planner.errors import ExecuteError, explain
from planner.execution.wire import lane as sending
from planner.execution.wire.diagnostics import Ask, Chunk, Echo
from planner.execution.wire.fragments import Fragment
from planner.execution.wire.frames import Frame
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import COORDINATOR, Refused, WorkerFault
from planner.execution.wire.transport import LEVELS, OnAcknowledged, Transport
from planner.execution.wire.zenoh import free_port, zenoh_connect
from tests.execution.raw import raw_member

FRAMES = 60

BROKEN_AGENT = """
import sys
import zenoh
from planner.cli import main
from planner.execution.wire import lane as sender
from planner.execution.wire import zenoh as wire

put = wire.ZenohTransport.send_fragment

def send_fragment(self, to, fragment, level):
    if b'"fault"' not in fragment.header or sys.argv[1] == "mute":
        raise zenoh.ZError("no buffers")
    put(self, to, fragment, level)

wire.ZenohTransport.send_fragment = send_fragment
sender._PAUSES_S = (0.01, 0.01)
main(sys.argv[2:])
"""


class Refusing:
    """A transport that raises on chosen calls, either without sending the fragment or after sending it."""

    def __init__(self, transport: Transport, refuses: Callable[[str, int], bool], *, sends: bool) -> None:
        self._transport = transport
        self._refuses = refuses
        self._sends = sends
        self._calls = 0
        self.refused = 0

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        self._calls += 1
        refuses = self._refuses(to, self._calls)
        if self._sends or not refuses:
            self._transport.send_fragment(to, fragment, level)
        if refuses:
            self.refused += 1
            raise zenoh.ZError("no buffers")

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        self._transport.on_acknowledged(call)


class Member:
    """A member of a real network, with its inbound frames."""

    def __init__(self, name: str, **places: str) -> None:
        self.came: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._seen: queue.SimpleQueue[str] = queue.SimpleQueue()
        connect = [places["connect"]] if "connect" in places else []
        self.transport = zenoh_connect(name, listen=places.get("listen"), connect=connect)(
            self.came.put, lambda member, _present: self._seen.put(member)
        )

    def wait_for(self, member: str) -> None:
        while self._seen.get(timeout=30.0) != member:
            pass


@contextmanager
def pair() -> Iterator[tuple[Member, Member]]:
    address = f"127.0.0.1:{free_port()}"
    members = Member("a", listen=address), Member("b", connect=address)
    try:
        members[0].wait_for("b")
        members[1].transport.limit(2**24)
        yield members
    finally:
        for member in members:
            member.transport.close()


def chunk(number: int, size_bytes: int) -> Frame:
    return Frame(Chunk(flood=str(number)), {"bytes": np.full(size_bytes, number, np.uint8)})


@pytest.mark.parametrize("sends", [False, True], ids=["not sent", "sent"])
def test_frames_that_a_transport_refuses_now_and_then_all_arrive_once_and_in_order(*, sends: bool) -> None:
    with pair() as (a, b):
        refusing = Refusing(a.transport, lambda _to, call: call % 7 < 3, sends=sends)
        sender = Lanes(refusing)
        for number in range(FRAMES):
            sender.send("b", chunk(number, 10 if number % 3 else 300_000), LEVELS)
        sender.close()
        came = [b.came.get(timeout=30.0) for _ in range(FRAMES)]
        sender = Lanes(a.transport)
        sender.send("b", Frame(Echo(number=1)), LEVELS)
        last = b.came.get(timeout=30.0)
        sender.close()
    assert refusing.refused > FRAMES / 3
    assert [frame.body for frame in came] == [Chunk(flood=str(number)) for number in range(FRAMES)]
    assert all((frame.tensors["bytes"] == number).all() for number, frame in enumerate(came))
    assert last.body == Echo(number=1)  # nor was anything refused, or did come twice


def test_a_persistent_failure_is_reported_and_ends_the_lane(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "_PAUSES_S", (0.01, 0.02))
    with pair() as (a, b):
        failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        refusing = Refusing(a.transport, lambda to, _call: to == "b", sends=False)
        sender = Lanes(refusing, on_failure=failures.put)
        sender.send("b", Frame(Echo(number=1)), LEVELS)
        assert explain(failures.get(timeout=30.0)) == "ZError: no buffers"
        sender.send("b", Frame(Echo(number=2)), LEVELS)
        sender.close()
        assert b.came.empty()
    assert refusing.refused == 3
    assert "the thread 'send to b' failed" in caplog.text
    assert "no buffers" in caplog.text


def test_a_fragment_for_a_member_that_leaves_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_PAUSES_S", (3600.0,))
    with pair() as (a, b):
        refusing = Refusing(a.transport, lambda to, _call: to == "gone", sends=False)
        sender = Lanes(refusing)
        sender.route({"gone": "wifi", "b": "wifi"})
        sender.send("gone", chunk(0, 300_000), 3)
        while not refusing.refused:
            time.sleep(0.01)
        sender.send("b", Frame(Echo(number=1)), 1)
        sender.forget("gone")
        assert b.came.get(timeout=30.0).body == Echo(number=1)
        sender.close()
    assert refusing.refused == 1


def test_a_message_that_cannot_be_encoded_is_reported_and_the_next_one_sent() -> None:
    with pair() as (a, b):
        unsent: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        sender = Lanes(a.transport, on_unsent=unsent.put)
        sender.send("b", Frame(Chunk(flood="f"), {"bytes": np.array(["2026-01-01"], "datetime64[D]")}), LEVELS)
        sender.send("b", Frame(Echo(number=1)), LEVELS)
        assert b.came.get(timeout=30.0).body == Echo(number=1)
        sender.close()
    told = unsent.get(timeout=30.0)
    assert isinstance(told, ExecuteError)
    assert "message to b: cannot be encoded; found 'chunk', caused by " in explain(told)


def test_threads_that_start_sending_to_a_member_at_once_share_one_lane() -> None:
    threads, interval_s = 16, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with pair() as (a, b):
            for round_number in range(20):
                sender, together = Lanes(a.transport), threading.Barrier(threads)
                before = set(threading.enumerate())

                def send(number: int, own: Lanes = sender, gate: threading.Barrier = together) -> None:
                    gate.wait()
                    own.send("b", Frame(Echo(number=number)), LEVELS)

                senders = [threading.Thread(target=send, args=(number,)) for number in range(threads)]
                for thread in senders:
                    thread.start()
                for thread in senders:
                    thread.join()
                lanes = set(threading.enumerate()) - before
                sender.close()
                assert len(lanes) == 1, f"round {round_number}"
                came = [b.came.get(timeout=30.0).body for _ in range(threads)]
                assert sorted(body.number for body in came if isinstance(body, Echo)) == list(range(threads))
    finally:
        sys.setswitchinterval(interval_s)


@pytest.mark.parametrize("way", ["told", "mute"])
def test_an_agent_that_cannot_send_reports_it_and_leaves(tmp_path: Path, way: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = ["agent", "--name", "a", "--connect", address, "--cache", str(tmp_path), "--until-stdin-closes"]
    with raw_member(listen=address) as coordinator:
        agent = subprocess.Popen(
            [sys.executable, "-c", BROKEN_AGENT, way, *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            coordinator.wait_for("a")
            coordinator.send("a", Frame(Ask()))
            if way == "told":
                fault = coordinator.expect(WorkerFault)
                assert fault.what == "the agent leaves because it can no longer send: ZError: no buffers"
            assert agent.wait(60.0) == 2
        finally:
            agent.kill()
            _, said = agent.communicate()
    sent = rf"sending to {COORDINATOR}/\S+ failed, trying again: ZError: no buffers"
    assert re.search(sent, said)
    assert f"the thread 'send to {COORDINATOR}' failed: ZError: no buffers" in said
    assert (
        said.splitlines()[-1] == "planner: error: a: the agent left because it can no longer send: ZError: no buffers"
    )


def test_a_message_whose_handler_raises_is_reported_and_the_next_one_handled(caplog: pytest.LogCaptureFixture) -> None:
    address = f"127.0.0.1:{free_port()}"
    came: queue.SimpleQueue[Frame] = queue.SimpleQueue()

    def take(frame: Frame) -> None:
        if frame.body == Echo(number=1):
            raise KeyError("t3")
        came.put(frame)

    def see(member: str, present: bool) -> None:  # noqa: FBT001 - the protocol's signature
        raise KeyError(f"{member} {present}")

    transport = zenoh_connect("b", listen=address, connect=[])(take, see)
    try:
        with raw_member("a", connect=address) as a:
            a.wait_for("b")
            for number in (1, 2):
                a.send("b", Frame(Echo(number=number)))
            first, second = came.get(timeout=30.0), came.get(timeout=30.0)
    finally:
        transport.close()
    assert isinstance(first.body, Refused)
    assert (first.body.sender, first.body.what) == ("a", "a message that cannot be handled: KeyError: 't3'")
    assert second.body == Echo(number=2)
    logged = {explain(record.exc_info[1]) for record in caplog.records if record.exc_info and record.exc_info[1]}
    assert logged >= {"KeyError: 't3'", "KeyError: 'a True'"}
