"""Survey of running agents: their properties, and the network between them.

1. The latency of a direction is half the shortest of several round trips, by the sender's clock.
2. The bandwidth of a direction is the number of bytes received per second, by the receiver's clock, while nothing else
   is sent.
3. Two directions share a medium if they carry much less when loaded at the same time than one after the other. Their
   senders and receivers are chosen to differ, since two streams into or out of a device always share its interface.
4. A pair whose two directions share a medium is half-duplex; half-duplex pairs that share a medium form a shared
   network. All other pairs are point-to-point links.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType, UnionType
from typing import Final, TypeVar

from planner.errors import ExecuteError, Fault
from planner.execution.wire.claims import Claims
from planner.execution.wire.diagnosis import in_words
from planner.execution.wire.diagnostics import About, Ask, Flood, Flooded, Ping, Pinged
from planner.execution.wire.frames import Frame, unlike_version
from planner.execution.wire.messages import COORDINATOR, Claimed, Held, Refused, Taken, WorkerFault
from planner.execution.wire.presence import refuse_shared, refuse_unlike, settle
from planner.execution.wire.transport import CONTROL, PRESENCE_PERIOD_S, Connect
from planner.execution.wire.whereabouts import Whereabouts

_LOG = logging.getLogger(__name__)

PINGS: Final = 20
SHARING: Final = 1.4
"""Maximum sum of the relative rates of two directions in one medium, when both are loaded.

It is 1 in theory, and 2 for directions that share nothing.
"""

_ANSWER_S: Final = 10.0
_SILENT: Final = "it did not answer in time"

Direction = tuple[str, str]
"""Sender and receiver."""

Progress = Callable[[int, int], None]
"""Called with the number of finished measurements, and the expected total."""

_Answer = TypeVar("_Answer", Flooded, Pinged, Claimed | Held)


@dataclass(frozen=True)
class Medium:
    """A shared medium, or a link whose directions are independent.

    Parameters
    ----------
    pairs
        Pairs of members that it joins; a link has one.
    """

    pairs: tuple[Direction, ...]
    shared: bool

    @property
    def members(self) -> tuple[str, ...]:
        """All members, in order."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.pairs)))

    @property
    def complete(self) -> bool:
        """Whether every pair of its members is joined."""
        return len(self.pairs) == len(self.members) * (len(self.members) - 1) // 2

    @property
    def directions(self) -> list[Direction]:
        """Both directions of each pair."""
        return [direction for a, b in self.pairs for direction in ((a, b), (b, a))]


@dataclass(frozen=True)
class Survey:
    """Measurements of the network between agents."""

    workers: tuple[str, ...]
    latency_s: dict[Direction, float]
    bytes_per_s: dict[Direction, float]
    media: tuple[Medium, ...]


@dataclass(frozen=True)
class AgentState:
    """The description of an agent, and where it runs."""

    whereabouts: Whereabouts
    about: About


def _is_of(members: set[str], answer: Claimed | Held) -> bool:
    return answer.worker in members


class Inquirer:
    """Sends inquiries to agents; use it as a context manager.

    A message that is refused here ends no inquiry, as anybody may have sent it, and an agent of another version sends
    no other. Nor does a fault that an agent reports meanwhile: it is about a run.
    """

    def __init__(self, connect: Connect) -> None:
        self.problems: dict[str, str] = {}
        """What is wrong with members, by name: a message was refused, or an answer did not come."""
        self._inbox: queue.SimpleQueue[Frame | tuple[str, bool]] = queue.SimpleQueue()
        self._present: set[str] = set()
        self._claims: Claims | None = None
        """Once agents are held."""
        self._transport = connect(self._inbox.put, lambda member, present: self._inbox.put((member, present)))

    @property
    def unlike(self) -> list[str]:
        """What to tell about each present agent that speaks another version of the wire format."""
        return [str(unlike_version(f"agent {name}", version)) for name, version in self._unlike().items()]

    def _unlike(self) -> Mapping[str, int]:
        return {name: version for name, version in self._transport.unlike().items() if name in self._present}

    def __enter__(self) -> Inquirer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def find(self, names: Sequence[str], wait_s: float) -> tuple[str, ...]:
        """Wait for these agents, or without names for all that connect in time; return the names.

        Raises
        ------
        ExecuteError
            If one of them, or without names not a single agent, connects in time.
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
            what += in_words(self._transport.unreachable())
            raise ExecuteError(what, where="agents", value=", ".join(absent) or None, expected="running agents")
        return tuple(names or sorted(self._present))

    def ask(self, names: Sequence[str]) -> list[AgentState]:
        """Return the states of all agents that have one of these names, by name; not of those of :attr:`unlike`.

        Raises
        ------
        ExecuteError
            If none answers in time.
        """
        names = [name for name in names if name not in self._unlike()]
        settle(self._transport, names, self._wait)
        waiting = {
            (name, process): known for name in names for process, known in self._transport.processes(name).items()
        }
        states: dict[tuple[str, str], AgentState | None] = dict.fromkeys(waiting)
        for name, process in waiting:
            self._transport.send(f"{name}/{process}", Frame(Ask()), CONTROL)
        until_s = time.monotonic() + _ANSWER_S
        while waiting:
            frame = self._next(until_s)
            if frame is None:
                for name, _ in waiting:
                    self.problems.setdefault(name, _SILENT)
                break
            if isinstance(frame.body, About) and (frame.sender, frame.process) in waiting:
                whereabouts = waiting.pop((frame.sender, frame.process))
                states[frame.sender, frame.process] = AgentState(whereabouts, frame.body)
        answered = [state for state in states.values() if state is not None]
        if waiting and not answered:
            raise self._unanswered(names)
        return answered

    def refuse_shared(self, names: Iterable[str]) -> None:
        """Refuse names that several agents have; see :func:`planner.execution.wire.presence.refuse_shared`."""
        refuse_shared(self._transport, names, self._wait)

    def claim(self, names: Sequence[str], *, take_over: bool = False) -> None:
        """Hold agents until this inquirer leaves, so that no run begins on them.

        Raises
        ------
        ExecuteError
            If a run holds one of them, or one does not answer, or speaks another version of the wire format.
        """
        refuse_unlike(self._transport, names)
        claims = Claims(lambda name, body: self._transport.send(name, Frame(body), CONTROL), take_over=take_over)
        claims.begin(uuid.uuid4().hex)
        self._claims = claims
        for name in sorted(names):  # in an order that all coordinators share
            claims.ask(name)
            while waiting := set(claims.waiting):
                answer: Claimed | Held = self._answer(Claimed | Held, waiting, _ANSWER_S, partial(_is_of, waiting))
                if isinstance(answer, Claimed):
                    claims.on_claimed(answer)
                else:
                    claims.on_held(answer)
            claims.refuse_held()

    def latency_s(self, direction: Direction, times: int = PINGS) -> float:
        """Measure the latency of a direction, in seconds."""
        sender, to = direction
        self._transport.send(sender, Frame(Ping(to=to, times=times)), CONTROL)
        pinged = self._answer(Pinged, {sender}, _ANSWER_S, lambda answer: answer.to == to)
        return min(pinged.round_trip_s) / 2

    def bytes_per_s(self, directions: Sequence[Direction], duration_s: float) -> list[float]:
        """Load directions at the same time, and measure the bandwidth of each."""
        floods = {uuid.uuid4().hex: direction for direction in directions}
        for flood, (sender, to) in floods.items():
            self._transport.send(sender, Frame(Flood(flood=flood, to=to, duration_s=duration_s)), CONTROL)
        # On a slow link, data in flight at the end takes a while to arrive.
        wait_s, members = 3 * duration_s + 6 * _ANSWER_S, set(itertools.chain.from_iterable(directions))
        rates: dict[Direction, float] = {}
        while floods:
            answer = self._answer(Flooded, members, wait_s, lambda answer: answer.flood in floods)
            rates[floods.pop(answer.flood)] = answer.size_bytes / answer.took_s if answer.took_s else 0.0
        return [rates[direction] for direction in directions]

    def _answer(
        self, kind: type[_Answer] | UnionType, members: set[str], wait_s: float, wanted: Callable[[_Answer], bool]
    ) -> _Answer:
        """Return the answer that is wanted; raise :class:`ExecuteError` if a member refuses or does not answer."""
        until_s = time.monotonic() + wait_s
        while (frame := self._next(until_s)) is not None:
            body = frame.body
            if isinstance(body, kind) and wanted(body):
                return body
            if isinstance(body, Refused) and body.worker in members and body.sender == COORDINATOR:
                raise ExecuteError(body.what, where=f"agent {body.worker}")
        raise self._unanswered(members)

    def _unanswered(self, members: Iterable[str]) -> ExecuteError:
        """Return the error of those whose messages were refused; of all if there is none."""
        known = [member for member in members if member in self.problems] or members
        return ExecuteError(Fault(self.problems.get(member, _SILENT), where=f"agent {member}") for member in known)

    def _next(self, until_s: float) -> Frame | None:
        """Return the next message, None if none arrives in time; note whose message was refused here."""
        frame = None
        while frame is None:
            try:
                frame = self._take(until_s - time.monotonic())
            except TimeoutError:
                return None
        body = frame.body
        if isinstance(body, Taken) and self._claims is not None:
            self._claims.on_taken(body)
        if isinstance(body, Refused) and body.worker == COORDINATOR:
            _LOG.info("a message of %s is refused: %s", body.sender, body.what)
            self.problems[body.sender] = f"its message is refused: {body.what}"
        elif isinstance(body, Refused | WorkerFault):
            _LOG.info("%s reports: %s", body.worker, body.what)
        return frame

    def _wait(self, wait_s: float) -> None:
        with suppress(TimeoutError):
            self._take(wait_s)

    def _take(self, wait_s: float) -> Frame | None:
        try:
            item = self._inbox.get(timeout=max(wait_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(item, Frame):
            return item
        member, present = item
        (self._present.add if present else self._present.discard)(member)
        return None


def survey(
    inquirer: Inquirer,
    workers: Sequence[str],
    *,
    duration_s: float = 1.5,
    take_over: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Measure all directions between these agents, and find out which of them share a medium.

    Parameters
    ----------
    duration_s
        Time for which each direction is loaded, in seconds.
    take_over
        Whether to end the runs of agents that are in one.

    Raises
    ------
    ExecuteError
        If an agent is in a run, or does not answer, or several agents have one of the names.
    """
    inquirer.refuse_shared(workers)
    inquirer.claim(workers, take_over=take_over)
    seen = {state.about.worker: state.about.present for state in inquirer.ask(workers)}
    pairs = [(a, b) for a, b in itertools.combinations(workers, 2) if b in seen[a] and a in seen[b]]
    directions = [direction for a, b in pairs for direction in ((a, b), (b, a))]
    steps = itertools.count(1)
    # Two measurements of each direction, one of both directions of a pair, and about one for each pair and medium.
    total = 2 * len(directions) + 2 * len(pairs)

    def step() -> None:
        if progress is not None:
            progress(min(next(steps), total), total)

    latency_s: dict[Direction, float] = {}
    alone: dict[Direction, float] = {}
    for direction in directions:
        latency_s[direction] = inquirer.latency_s(direction)
        step()
        (alone[direction],) = inquirer.bytes_per_s([direction], duration_s)
        step()

    def share(first: Direction, second: Direction) -> bool:
        rates = inquirer.bytes_per_s([first, second], duration_s)
        step()
        relative = (rate / max(alone[direction], 1.0) for rate, direction in zip(rates, (first, second), strict=True))
        return sum(relative) < SHARING

    media = _media(pairs, share)
    inquirer.refuse_shared(workers)  # another agent may have been discovered meanwhile
    return Survey(tuple(workers), latency_s, alone, media)


def _media(pairs: Sequence[Direction], share: Callable[[Direction, Direction], bool]) -> tuple[Medium, ...]:
    """Group pairs by the medium that they share."""
    groups: list[list[Direction]] = []
    links: list[Direction] = []
    for pair in pairs:
        if not share(pair, pair[::-1]):
            links.append(pair)
            continue
        same_medium = next((group for group in groups if share(*_apart(group[0], pair))), None)
        if same_medium is None:
            groups.append([pair])
        else:
            same_medium.append(pair)
    shared = [Medium(tuple(group), shared=True) for group in groups]
    return (*shared, *(Medium((pair,), shared=False) for pair in links))


def _apart(first: Direction, second: Direction) -> tuple[Direction, Direction]:
    """Return a direction of each pair such that neither senders nor receivers are the same."""
    if first[0] == second[0] or first[1] == second[1]:
        second = second[::-1]
    return first, second
