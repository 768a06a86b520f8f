"""A member that says whatever it likes to real agent processes, over real Zenoh."""

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

from planner.execution.wire.diagnostics import About, Ask
from planner.execution.wire.fragments import split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import COORDINATOR, Body, Refused
from planner.execution.wire.security import inbox
from planner.execution.wire.transport import CONTROL
from planner.execution.wire.zenoh import ZenohTransport, zenoh_connect

_Kind = TypeVar("_Kind", bound=Body)


class Raw:
    """A member whose messages are not checked before they go out."""

    def __init__(
        self, name: str, *, listen: str | None = None, connect: str | None = None, cert_dir: Path | None = None
    ) -> None:
        self.name = name
        self._came: queue.SimpleQueue[Frame | tuple[str, bool]] = queue.SimpleQueue()
        connect_all = zenoh_connect(name, listen=listen, connect=[connect] if connect else [], cert_dir=cert_dir)
        transport = connect_all(self._came.put, lambda member, present: self._came.put((member, present)))
        assert isinstance(transport, ZenohTransport)
        self.transport = transport

    def wait_for(self, member: str) -> None:
        while self._next() != (member, True):
            pass

    def put(self, to: str, attachment: bytes, payload: bytes = b"", sender: str | None = None) -> None:
        """Send any bytes, as any member."""
        self.transport._session.put(
            inbox(to, sender or self.name),
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
        """Give the next message of one of these kinds."""
        until_s = time.monotonic() + wait_s
        while True:
            item = self._next(until_s - time.monotonic())
            if isinstance(item, Frame) and isinstance(item.body, kinds):
                return item.body

    def refused(self) -> str:
        return self.expect(Refused).what

    def alive(self, agent: str) -> About:
        """Ask an agent about itself: it lives and takes messages."""
        self.send(agent, Frame(Ask()))
        return self.expect(About)

    def close(self) -> None:
        self.transport.close()

    def _next(self, wait_s: float = 30.0) -> Any:
        return self._came.get(timeout=max(wait_s, 0.001))


@contextmanager
def raw_member(name: str = COORDINATOR, **options: Any) -> Iterator[Raw]:
    member = Raw(name, **options)
    try:
        yield member
    finally:
        member.close()


@contextmanager
def agent_process(name: str, *options: str, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """``planner agent`` as a process, gone when its standard input closes; ``before`` comes before the command."""
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
