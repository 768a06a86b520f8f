"""Members that come at the same time find each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from planner.execute.messages import COORDINATOR
from planner.execute.transport import Transport
from planner.execute.wire import free_port, zenoh_connect

ROUNDS = 15
NAMES = (COORDINATOR, "a", "b", "c", "d")


class Meeting:
    """Members that all come at once, and who has seen whom."""

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

    def complete(self) -> bool:
        """Wait until everybody has seen everybody else."""
        with self._changed:
            return self._changed.wait_for(lambda: all(len(seen) == len(NAMES) - 1 for seen in self._seen.values()), 20)


def test_members_that_come_at_once_all_see_each_other() -> None:
    with ThreadPoolExecutor(len(NAMES)) as pool:
        for _ in range(ROUNDS):
            meeting = Meeting()
            members = list(pool.map(meeting.come, NAMES))
            try:
                assert meeting.complete()
            finally:
                for member in members:
                    member.close()
