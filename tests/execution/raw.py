"""A member that sends arbitrary messages to real agent processes over real Zenoh."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import zenoh

from planner.execution.wire.claims import this_process
from planner.execution.wire.diagnostics import About, Ask
from planner.execution.wire.fragments import split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import COORDINATOR, Body, Claim, Claimed, Refused
from planner.execution.wire.security import inbox
from planner.execution.wire.transport import CONTROL
from planner.execution.wire.zenoh import ZenohTransport, zenoh_connect

_Kind = TypeVar("_Kind", bound=Body)


class Raw:
    """A member whose messages are not checked before they are sent."""

    def __init__(
        self, name: str, *, listen: str | None = None, connect: str | None = None, cert_dir: Path | None = None
    ) -> None:
        self.name = name
        self._inbound: queue.SimpleQueue[Frame | tuple[str, bool]] = queue.SimpleQueue()
        connect_all = zenoh_connect(name, listen=listen, connect=[connect] if connect else [], cert_dir=cert_dir)
        transport = connect_all(self._inbound.put, lambda member, present: self._inbound.put((member, present)))
        assert isinstance(transport, ZenohTransport)
        self.transport = transport

    def wait_for(self, member: str) -> None:
        while True:
            found = self._next()
            # A coordinator is reported with its process.
            if isinstance(found, tuple) and found[1] and found[0].partition("/")[0] == member:
                return

    def put(self, to: str, attachment: bytes, payload: bytes = b"", sender: str | None = None) -> None:
        """Send any bytes in the name of any member."""
        self.transport._session.put(
            inbox(f"{to}/*", f"{sender or self.name}/raw"),
            payload,
            attachment=attachment,
            priority=zenoh.Priority.REAL_TIME,
            congestion_control=zenoh.CongestionControl.BLOCK,
            express=True,
        )

    def put_frame(self, to: str, frame: Frame, sender: str | None = None, **header: object) -> None:
        """Send a frame with some of its header's entries replaced."""
        text, payload = encode(frame)
        changed = json.dumps(json.loads(text) | header).encode()
        for fragment in split(changed, payload):
            self.put(to, fragment.attachment, bytes(fragment.payload), sender)

    def send(self, to: str, frame: Frame) -> None:
        self.transport.send(to, frame, CONTROL)

    def expect(self, *kinds: type[_Kind], wait_s: float = 30.0) -> _Kind:
        """Return the next message of one of these kinds."""
        until_s = time.monotonic() + wait_s
        while True:
            item = self._next(until_s - time.monotonic())
            if isinstance(item, Frame) and isinstance(item.body, kinds):
                return item.body

    def refused(self) -> str:
        return self.expect(Refused).what

    def hold(self, agent: str) -> None:
        """Claim an agent."""
        self.send(agent, Frame(Claim(run="r", holder=this_process())))
        self.expect(Claimed)

    def alive(self, agent: str) -> About:
        """Request an agent's description, which shows that it still handles messages."""
        self.send(agent, Frame(Ask()))
        return self.expect(About)

    def close(self) -> None:
        self.transport.close()

    def _next(self, wait_s: float = 30.0) -> Any:
        return self._inbound.get(timeout=max(wait_s, 0.001))


@contextmanager
def raw_member(name: str = COORDINATOR, **options: Any) -> Iterator[Raw]:
    member = Raw(name, **options)
    try:
        yield member
    finally:
        member.close()


@contextmanager
def agent_process(name: str, *options: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``planner agent`` as a process until its standard input closes; ``before`` precedes the command."""
    command = [*before, sys.executable, "-m", "planner", "agent", "--name", name, *options, "--until-stdin-closes"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
