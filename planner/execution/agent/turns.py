"""Whose block runs next on an agent that has several runs.

An agent runs one block at a time, to its end. Among the coordinators whose runs have a block to run, start-time fair
queueing chooses: each has a virtual time, which grows by the time that its blocks take, divided by its share of the
agent; the least virtual start is next. So each coordinator gets at least its share of the time as long as it has blocks
to run, and what one leaves goes to the others in proportion. One that had nothing to run for a while begins at the
virtual time of the block that runs: it neither saves up time nor pays for what it used while nobody else wanted it.

P. Goyal, H. M. Vin, H. Cheng, "Start-time fair queueing", IEEE/ACM Transactions on Networking 5 (1997),
doi:10.1109/90.649569.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Turns:
    """The turns of an agent's runs; usable from any thread.

    Parameters
    ----------
    clock
        Time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Turn] = []
        """Those that want to run, the one that has waited longest first."""
        self._running: Turn | None = None
        self._virtual_s = 0.0
        """Virtual start of the block that runs, or of the last one."""
        self._ends_s: dict[str, float] = {}
        """Virtual time up to which each coordinator has been served."""

    @property
    def contended(self) -> bool:
        """Whether some run waits for its turn."""
        return bool(self._waiting)

    def turn(self, coordinator: str, share: float) -> Turn:
        """Return the turn of a run, whose coordinator has a share of the agent."""
        return Turn(self, coordinator, share)

    def forget(self, coordinator: str) -> None:
        """Drop what is known of a coordinator that has left."""
        with self._lock:
            self._ends_s.pop(coordinator, None)

    def wait(self, turn: Turn) -> None:
        """Return when it is a run's turn."""
        with self._lock:
            self._enter(turn)
            self._choose()
        turn.granted.acquire()

    def end(self, turn: Turn, *, again: bool) -> None:
        """End a run's turn; if it wants another one at once, wait for that."""
        with self._lock:
            took_s = self._clock() - turn.since_s
            self._ends_s[turn.coordinator] = self._virtual_s + took_s / turn.share
            self._running = None
            if again:
                self._enter(turn)
            self._choose()
        if again:
            turn.granted.acquire()

    def _enter(self, turn: Turn) -> None:
        turn.entered_s = self._virtual_s
        turn.waited = self._running is not None
        self._waiting.append(turn)

    def _choose(self) -> None:
        if self._running is not None or not self._waiting:
            return
        chosen = min(self._waiting, key=self._start_s)
        self._virtual_s = max(self._virtual_s, self._start_s(chosen))
        self._waiting.remove(chosen)
        self._running = chosen
        for other in self._waiting:
            other.waited = True
        chosen.since_s = self._clock()
        chosen.granted.release()

    def _start_s(self, turn: Turn) -> float:
        return max(turn.entered_s, self._ends_s.get(turn.coordinator, 0.0))


class Turn:
    """The right of one run to run blocks, for the thread that does so."""

    def __init__(self, turns: Turns, coordinator: str, share: float) -> None:
        self.coordinator = coordinator
        self.share = share
        self.since_s = 0.0
        """Time at which it began."""
        self.waited = False
        """Whether it began later than it was asked for, since another run had the turn."""
        self.entered_s = 0.0
        """Virtual time at which it was asked for."""
        self.granted = threading.Semaphore(0)
        self._turns = turns

    def take(self) -> None:
        """Wait for the turn."""
        self._turns.wait(self)

    def renew(self) -> None:
        """End the turn, and wait for another one, for a block that is ready to run."""
        self._turns.end(self, again=True)

    def give_way(self) -> None:
        """Let another run that waits have its turn first, if it is to; the next block is ready to run."""
        if self._turns.contended:
            self.renew()
        else:
            self.waited = False

    def end(self) -> None:
        """End the turn; there is nothing to run."""
        self._turns.end(self, again=False)
