"""Look around among running agents: what they are, and what the network between them gives.

1. Latency of a way is half the shortest of some round trips, by the clock of the one that asked.
2. Bandwidth of a direction is what came in a second, by the clock of the one that received, when nothing else is sent.
3. Two ways share a medium if, loaded at the same time, they give much less together than one after the other. They are
   compared in such directions that neither their senders nor their receivers are the same, since two streams into or
   out of one device share its own interface whatever lies behind it.
4. A pair whose two directions share a medium is half-duplex; half-duplex pairs that share it belong to one shared
   network. All others are point-to-point links.
"""

from __future__ import annotations

import itertools
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

from planner.errors import ExecuteError
from planner.execution.wire.diagnostics import About, Ask, Flood, Flooded, Ping, Pinged
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import Body, Refused, WorkerFault
from planner.execution.wire.transport import CONTROL, PRESENCE_PERIOD_S, Connect

PINGS: Final = 20
SHARING: Final = 1.4
"""Two ways that share nothing give 2 of their own rates at the same time, two in one medium give 1."""

_ANSWER_S: Final = 10.0

Way = tuple[str, str]
"""Sender and receiver."""

Progress = Callable[[int, int], None]
"""Called with the number of measurements done, and of all that are known of so far."""

_Answer = TypeVar("_Answer", About, Flooded, Pinged)


@dataclass(frozen=True)
class Medium:
    """A shared medium, or a link whose directions are independent.

    Parameters
    ----------
    pairs
        Whom it joins; one pair on a link.
    """

    pairs: tuple[Way, ...]
    shared: bool

    @property
    def members(self) -> tuple[str, ...]:
        """All that it joins, in order."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.pairs)))

    @property
    def complete(self) -> bool:
        """Whether each two of its members are joined."""
        return len(self.pairs) == len(self.members) * (len(self.members) - 1) // 2


@dataclass(frozen=True)
class Survey:
    """What the network between agents gives."""

    workers: tuple[str, ...]
    latency_s: dict[Way, float]
    bytes_per_s: dict[Way, float]
    media: tuple[Medium, ...]


class Inquirer:
    """The coordinator of inquiries; use it as a context manager."""

    def __init__(self, connect: Connect) -> None:
        self._inbox: queue.SimpleQueue[Frame | tuple[str, bool]] = queue.SimpleQueue()
        self._present: set[str] = set()
        self._transport = connect(self._inbox.put, lambda member, present: self._inbox.put((member, present)))

    def __enter__(self) -> Inquirer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def find(self, names: Sequence[str], wait_s: float) -> tuple[str, ...]:
        """Wait for these agents; without names, for all that come in the time.

        Raises
        ------
        ExecuteError
            One of them, or any at all, did not come in time.
        """
        until_s = time.monotonic() + wait_s
        while (left_s := until_s - time.monotonic()) > 0 and not (names and self._present.issuperset(names)):
            try:
                self._take(min(left_s, PRESENCE_PERIOD_S))
            except TimeoutError:
                self._transport.query_presence()
        absent = [name for name in names if name not in self._present]
        if absent or not self._present:
            what = f"no such agents within {wait_s:g} s" if absent else f"no agents within {wait_s:g} s"
            raise ExecuteError(what, where="agents", value=", ".join(absent) or None, expected="agents that run")
        return tuple(names or sorted(self._present))

    def ask(self, names: Iterable[str]) -> dict[str, About]:
        """Ask agents about themselves."""
        asked = list(names)
        for name in asked:
            self._transport.send(name, Frame(Ask()), CONTROL)
        told = [self._answer(About, _ANSWER_S) for _ in asked]
        return {about.worker: about for about in sorted(told, key=lambda about: asked.index(about.worker))}

    def latency_s(self, way: Way, times: int = PINGS) -> float:
        """Measure how long a small message takes, in seconds."""
        self._transport.send(way[0], Frame(Ping(to=way[1], times=times)), CONTROL)
        return min(self._answer(Pinged, _ANSWER_S).round_trip_s) / 2

    def bytes_per_s(self, ways: Sequence[Way], duration_s: float) -> list[float]:
        """Load some ways at the same time, and measure what each gives."""
        floods = {uuid.uuid4().hex: way for way in ways}
        for flood, (sender, to) in floods.items():
            self._transport.send(sender, Frame(Flood(flood=flood, to=to, duration_s=duration_s)), CONTROL)
        # On a slow link what is on its way at the end takes a while.
        came = [self._answer(Flooded, 3 * duration_s + 6 * _ANSWER_S) for _ in floods]
        rates = {floods[one.flood]: one.size_bytes / one.took_s if one.took_s else 0.0 for one in came}
        return [rates[way] for way in ways]

    def _answer(self, kind: type[_Answer], wait_s: float) -> _Answer:
        until_s = time.monotonic() + wait_s
        while True:
            try:
                body = self._take(until_s - time.monotonic())
            except TimeoutError:
                raise ExecuteError("an agent did not answer in time", where="agents", value=f"{wait_s:g} s") from None
            if isinstance(body, Refused | WorkerFault):
                raise ExecuteError(body.what, where=f"agent {body.worker}")
            if isinstance(body, kind):
                return body

    def _take(self, wait_s: float) -> Body | None:
        try:
            item = self._inbox.get(timeout=max(wait_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(item, Frame):
            return item.body
        member, present = item
        (self._present.add if present else self._present.discard)(member)
        return None


def survey(
    inquirer: Inquirer, workers: Sequence[str], *, duration_s: float = 1.5, progress: Progress | None = None
) -> Survey:
    """Measure all ways between these agents, and which of them share a medium.

    Parameters
    ----------
    duration_s
        How long each way is loaded, in seconds.

    Raises
    ------
    ExecuteError
        An agent is in a run, or did not answer.
    """
    seen = {name: about.present for name, about in inquirer.ask(workers).items()}
    pairs = [(a, b) for a, b in itertools.combinations(workers, 2) if b in seen[a] and a in seen[b]]
    ways = [way for a, b in pairs for way in ((a, b), (b, a))]
    steps = itertools.count(1)
    # Two measurements for each way, one for its two directions, and about one for each pair and medium.
    known = 2 * len(ways) + 2 * len(pairs)

    def step() -> None:
        if progress is not None:
            progress(min(next(steps), known), known)

    latency_s: dict[Way, float] = {}
    alone: dict[Way, float] = {}
    for way in ways:
        latency_s[way] = inquirer.latency_s(way)
        step()
        (alone[way],) = inquirer.bytes_per_s([way], duration_s)
        step()

    def share(first: Way, second: Way) -> bool:
        rates = inquirer.bytes_per_s([first, second], duration_s)
        step()
        return sum(rate / max(alone[way], 1.0) for rate, way in zip(rates, (first, second), strict=True)) < SHARING

    return Survey(tuple(workers), latency_s, alone, _media(pairs, share))


def _media(pairs: Sequence[Way], share: Callable[[Way, Way], bool]) -> tuple[Medium, ...]:
    """Group pairs by what they share."""
    groups: list[list[Way]] = []
    links: list[Way] = []
    for pair in pairs:
        if not share(pair, pair[::-1]):
            links.append(pair)
            continue
        home = next((group for group in groups if share(*_apart(group[0], pair))), None)
        if home is None:
            groups.append([pair])
        else:
            home.append(pair)
    shared = [Medium(tuple(group), shared=True) for group in groups]
    return (*shared, *(Medium((pair,), shared=False) for pair in links))


def _apart(first: Way, second: Way) -> tuple[Way, Way]:
    """Turn two pairs so that neither senders nor receivers are the same."""
    if first[0] == second[0] or first[1] == second[1]:
        second = second[::-1]
    return first, second
