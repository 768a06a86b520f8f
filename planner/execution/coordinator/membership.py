"""The members that the coordinator sees, and the queue of their messages.

Where a new plan replaces another, two runs go on for a while, each in a thread of its own. They share the transport
(:class:`Switchboard`); each has its own :class:`Membership`, whose queue gets the messages of its run.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from planner.errors import ExecuteError, explain
from planner.execution.wire.diagnosis import in_words
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import Body, Taken, Transmit
from planner.execution.wire.presence import refuse_shared, refuse_unlike, whereabouts
from planner.execution.wire.transport import CONTROL, PRESENCE_PERIOD_S, Connect


class Switchboard:
    """The transport of a coordinator, and who receives what arrives; usable from any thread."""

    def __init__(self, connect: Connect) -> None:
        self._lock = threading.Lock()
        self._present: set[str] = set()
        self._memberships: tuple[Membership, ...] = ()
        self.transport = connect(self._on_frame, self._on_member)

    def add(self, membership: Membership) -> set[str]:
        """Let a membership receive what arrives from now on; return the members that are present."""
        with self._lock:
            self._memberships = (*self._memberships, membership)
            return set(self._present)

    def remove(self, membership: Membership) -> bool:
        """Let a membership receive nothing more; return whether it was the last one."""
        with self._lock:
            before = self._memberships
            self._memberships = tuple(each for each in before if each is not membership)
            return bool(before) and not self._memberships

    def beside(self, membership: Membership) -> tuple[Membership, ...]:
        """Return the other memberships."""
        return tuple(each for each in self._memberships if each is not membership)

    def _on_frame(self, frame: Frame) -> None:
        run = getattr(frame.body, "run", None)
        for membership in self._memberships:
            if run is None or membership.run in {None, run} or isinstance(frame.body, Taken):
                membership.take(frame)

    def _on_member(self, member: str, present: bool) -> None:  # noqa: FBT001 - the transport's signature
        with self._lock:
            (self._present.add if present else self._present.discard)(member)
            for membership in self._memberships:
                membership.take_member(member, present=present)


class Membership:
    """The agents of a run.

    :meth:`send`, :meth:`call`, :meth:`stop` and :meth:`fail` may be called in any thread, the others only in the
    coordinator's.
    """

    def __init__(self, board: Switchboard) -> None:
        self.run: str | None = None
        """The run whose messages are received; None for all."""
        self.start_unix_s: float | None = None
        """Wall-clock time at which the run's clock reads 0; None before the start."""
        self.stopping = False
        """Whether :meth:`stop` was called."""
        self.abandoned = False
        """Whether :meth:`abandon` was called."""
        self.on_transmit: Callable[[Transmit], None] | None = None
        """Called in any thread with requests to the emulated network, which are too urgent for the queue."""
        self._inbox: queue.SimpleQueue[Frame | Callable[[], None]] = queue.SimpleQueue()
        self._board = board
        self._transport = board.transport
        self.present: set[str] = board.add(self)
        """Connected agents, as of the last :meth:`next`."""

    def another(self) -> Membership:
        """Return the membership of a run beside this one."""
        return Membership(self._board)

    @property
    def beside(self) -> tuple[Membership, ...]:
        """The memberships of the runs beside this one, the oldest first."""
        return self._board.beside(self)

    def take(self, frame: Frame) -> None:
        """Take a frame, in any thread."""
        if isinstance(frame.body, Transmit) and self.on_transmit is not None:
            self.on_transmit(frame.body)
        else:
            self._inbox.put(frame)

    def take_member(self, member: str, *, present: bool) -> None:
        """Take note, in any thread, that an agent has come or gone."""
        self.call(partial(self.present.add if present else self.present.discard, member))

    def send(self, to: str, body: Body, tensors: Tensors | None = None, level: int = CONTROL) -> None:
        """Send a message to an agent."""
        self._transport.send(to, Frame(body, tensors or {}), level)

    def call(self, action: Callable[[], None]) -> None:
        """Make :meth:`next` run a function in the coordinator's thread and return."""
        self._inbox.put(action)

    def stop(self) -> None:
        """Make :meth:`next` set :attr:`stopping` and return."""
        self.call(self._stop)

    def _stop(self) -> None:
        self.stopping = True

    def abandon(self) -> None:
        """Make :meth:`next` set :attr:`stopping` and :attr:`abandoned` and return: nobody waits for results."""
        self.abandoned = True  # at once, for work that looks at it in between
        self.stop()

    def fail(self, error: Exception) -> None:
        """Make :meth:`next` raise, because a thread that the run needs has ended with ``error``."""
        self.call(partial(self._fail, error))

    @staticmethod
    def _fail(error: Exception) -> None:
        raise ExecuteError(f"the run cannot go on: {explain(error)}", where="coordinator") from error

    def next(self, timeout_s: float) -> Frame | None:
        """Return the next frame, or None after a change of members or a function run instead.

        Raises
        ------
        TimeoutError
            If nothing arrives in time.
        ExecuteError
            If :meth:`fail` was called.
        """
        try:
            item = self._inbox.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(item, Frame):
            return item
        item()
        return None

    def wait_for(self, names: Sequence[str], timeout_s: float, expected: str = "running agents") -> None:
        """Wait until all these agents are connected; ``expected`` tells what to do where some are not.

        Raises
        ------
        ExecuteError
            If some do not connect in time, or several agents have one of the names.
        """
        deadline_s = time.monotonic() + timeout_s
        while absent := self.absent(names):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                what = f"agents did not connect within {timeout_s:g} s{in_words(self._transport.unreachable())}"
                raise ExecuteError(what, where="workers", value=", ".join(absent), expected=expected)
            try:
                self.next(min(left_s, PRESENCE_PERIOD_S))
            except TimeoutError:
                self._transport.query_presence()
        self.refuse_shared(names, self._skip)
        refuse_unlike(self._transport, names)

    def unlike(self) -> Mapping[str, int]:
        """Return the agents that speak another version of the wire format, with that version."""
        return self._transport.unlike()

    def _skip(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            self.next(timeout_s)

    def refuse_shared(self, names: Iterable[str], wait: Callable[[float], None]) -> None:
        """Refuse names that several agents have; see :func:`planner.execution.wire.presence.refuse_shared`."""
        refuse_shared(self._transport, names, wait)

    def shared(self, names: Iterable[str]) -> dict[str, str]:
        """Return those of some names that several agents have, with where they are."""
        found = self._transport.shared_names().intersection(names)
        return {name: whereabouts(self._transport, name) for name in sorted(found)}

    def absent(self, names: Iterable[str]) -> list[str]:
        """Return those of these agents that are not connected."""
        return [name for name in names if name not in self.present]

    def gone(self, names: Sequence[str]) -> list[str]:
        """Return those under whose name no agent is, once the change of one of them has been handled.

        Where one of several agents of a name leaves, the name counts as absent until the change to the next is handled.
        """
        return [name for name in names if not self._transport.processes(name)] if self.absent(names) else []

    def close(self) -> None:
        """Receive nothing more; close the connection if no run uses it any more."""
        if self._board.remove(self):
            self._transport.close()
