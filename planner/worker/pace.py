"""Current speed of workers and links, relative to profiles and scenario: measured here, or told by others.

Its constants are :class:`planner.scenario.types.PaceParameters`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import log

from planner.policy.types import Status, WorkerState
from planner.scenario.types import PaceParameters


class Slowed:
    """Which workers of a run are slow, for whoever plans it anew."""

    def __init__(self, parameters: PaceParameters | None = None) -> None:
        self._parameters = parameters or PaceParameters()
        self.slowness: Mapping[str, float] = {}
        """How many times slower than profiled each slow worker is."""

    def told(self, worker: str, slowness: float) -> bool:
        """Record how many times slower than profiled a worker is; return whether that changes :attr:`slowness`."""
        slow, step = self._parameters.slow, self._parameters.step
        known = self.slowness.get(worker, 1.0)
        if known / slow < slowness < known * slow and (known == 1.0 or slowness >= step):
            return False
        others = {name: factor for name, factor in self.slowness.items() if name != worker}
        before, self.slowness = self.slowness, others | ({worker: slowness} if slowness >= slow else {})
        return self.slowness != before


class Pace:
    """Keeps the slowness of one worker's state."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._parameters = state.instance.scenario.policy.pace
        self._fade = self._parameters.fade
        self._step = self._parameters.step
        self._memory_s = self._parameters.memory_s
        self._enough = self._parameters.enough
        self._expected_s = 0.0
        self._took_s = 0.0
        self._blocks = 0
        self._last_s = 0.0
        self._transfers: dict[str, deque[float]] = {}
        self._until_s: dict[str | tuple[str, str], float] = {}

    @property
    def own(self) -> float:
        """How many times slower than profiled this worker is."""
        return self._state.slowness.get(self._state.worker, 1.0)

    def ran(self, expected_s: float, took_s: float) -> float:
        """Record a block's expected and actual time; return the factor by which expectations change."""
        now_s = self._state.now_s
        own = self.own if self._state.slowness else 1.0
        if now_s - self._last_s > self._memory_s:
            self._expected_s, self._took_s, self._blocks = 0.0, 0.0, 0
        self._last_s = now_s
        self._expected_s = self._fade * self._expected_s + expected_s / own
        self._took_s = self._fade * self._took_s + took_s
        self._blocks += 1
        if self._blocks < self._enough or self._took_s <= 0:
            return 1.0
        ratio = self._took_s / self._expected_s
        if own == 1.0 and 1 / self._step < ratio < self._step:  # as nearly always: a run has millions of blocks
            return 1.0
        self._weigh(self._state.worker, ratio)
        return self.own / own

    def own_at(self, now_s: float) -> float:
        """Return :attr:`own` as it is at a later time."""
        return self.own if self._until_s.get(self._state.worker, 0.0) > now_s else 1.0

    @property
    def links(self) -> tuple[tuple[str, float], ...]:
        """How many times slower than in the scenario links from here are, by receiver, where known."""
        worker = self._state.worker
        return tuple(
            (key[1], factor)
            for key, factor in self._state.slowness.items()
            if isinstance(key, tuple) and key[0] == worker
        )

    def transferred(self, to: str, size_bytes: int, took_s: float) -> None:
        """Record how long a transfer took; the fastest of the last few counts, for others may share the medium."""
        path = self._state.instance.path(self._state.worker, to)
        if path is None or len(path.hops) != 1:
            return
        recent = self._transfers.setdefault(to, deque(maxlen=self._enough))
        recent.append(took_s * path.hops[0].bytes_per_s / size_bytes)
        if len(recent) == self._enough:
            self._weigh((self._state.worker, to), max(min(recent), self._parameters.least))

    def told(self, worker: str, status: Status) -> None:
        """Record what another worker says about itself and its links."""
        stated: dict[str | tuple[str, str], float] = {worker: status.slowness}
        stated |= {(worker, to): slowness for to, slowness in status.links}
        for key, slowness in stated.items():
            if slowness != 1.0 or key in self._until_s:
                self._set(key, slowness)

    def _weigh(self, key: str | tuple[str, str], ratio: float) -> None:
        known = self._state.slowness.get(key, 1.0)
        if not 1 / self._step < ratio / known < self._step:
            self._set(key, self._step ** round(log(ratio, self._step)))
        elif known != 1.0:
            self._until_s[key] = self._state.now_s + self._memory_s

    def forget_old(self) -> float:
        """Drop what is too old; return the factor by which expectations of this worker change."""
        own = self.own
        for key in [key for key, until_s in self._until_s.items() if until_s <= self._state.now_s]:
            self._set(key, 1.0)
        return self.own / own

    def _set(self, key: str | tuple[str, str], slowness: float) -> None:
        if slowness == 1.0:
            self._state.slowness.pop(key, None)
            self._until_s.pop(key, None)
        else:
            self._state.slowness[key] = slowness
            self._until_s[key] = self._state.now_s + self._memory_s
