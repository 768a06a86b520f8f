"""All interleavings of a small run: deliveries, ends of blocks, arrivals, timers, and one failure at any moment.

The clock of a worker stands still until one of its timers fires, which may be at any moment, in order of their times;
only a source's patience lasts until nothing else can happen. Messages between two workers arrive in their order, notes
and parcels apart, after any time; members that come and go are noticed after any time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

from planner.plan.types import PlanSpec
from planner.policy.costs import CostTable
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.worker.events import (
    Arrived,
    BlockEnded,
    BlockFailed,
    Complete,
    Effect,
    Event,
    Fail,
    Joined,
    Left,
    Received,
    Send,
    SetTimer,
    Tell,
    TimedOut,
    Timer,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.protocol.locals import Local, Locals

Failure: TypeAlias = Literal["none", "crash", "loss", "block"]

_MEMBERS = ""
"""Sender of news about members."""


class World(NamedTuple):
    """A state of the whole run.

    Parameters
    ----------
    locals
        Number of each worker's state; -1 while it is gone.
    channels
        By sender, receiver and lane: the events under way, as numbers.
    timers
        Time, worker and timer.
    to_come
        Number of the next sample of each source.
    ended
        Samples that ended, sorted.
    failures
        How many failures may still happen.
    """

    locals: tuple[int, ...]
    channels: tuple[tuple[tuple[str, str, str], tuple[int, ...]], ...]
    timers: tuple[tuple[float, str, Timer], ...]
    to_come: tuple[int, ...]
    ended: tuple[tuple[str, int], ...]
    failures: int


class ProtocolViolationError(AssertionError):
    """An invariant does not hold; the message has the steps that lead there."""


class TooManyStatesError(RuntimeError):
    """There are more states than were to be explored."""


@dataclass(frozen=True)
class Explored:
    """How many states and transitions there are, in how many of the states nothing more happens by itself."""

    states: int
    transitions: int
    ends: int
    local_states: int


class Exploration:
    """Explores one small run.

    Parameters
    ----------
    failure
        What may happen once: a worker is killed, and perhaps started again; a message is lost; a block fails.
    """

    def __init__(self, instance: Instance, policy: str, plan: PlanSpec, failure: Failure) -> None:
        self._instance = instance
        self._failure = failure
        self._names = instance.workers
        costs = CostTable(instance)
        # Only where a message may be lost does a source give up waiting.
        patience = Patience(first_s=3.0, max_attempts=2) if failure == "loss" else Patience(first_s=inf)
        self._costs = costs
        self._locals = Locals(lambda name: Worker(name, instance, make_policy(policy, instance, plan), patience, costs))
        self._events: list[Event] = []
        self._event_numbers: dict[str, int] = {}
        self._parents: dict[World, tuple[World | None, str]] = {}

    def run(self, most: int = 2_000_000) -> Explored:
        """Explore everything.

        Parameters
        ----------
        most
            Number of states after which to stop.

        Raises
        ------
        TooManyStatesError
            There are more.
        ProtocolViolationError
            A sample ends twice or never, a block runs twice at once, somebody keeps something for ever, or the run
            can get to where it never ends.
        """
        first = World(
            tuple(self._locals.new(name) for name in self._names),
            (),
            (),
            (0,) * len(self._instance.sources),
            (),
            int(self._failure != "none"),
        )
        self._parents[first] = None, ""
        todo, before, ends, transitions = deque([first]), dict[World, list[World]](), [], 0
        while todo:
            world = todo.popleft()
            goes_on = False
            for what, following, by_itself in self._following(world):
                transitions += 1
                goes_on |= by_itself
                if following not in self._parents:
                    if len(self._parents) >= most:
                        raise TooManyStatesError(f"more than {most} states, all of which keep the rules")
                    self._parents[following] = world, what
                    self._check(following)
                    todo.append(following)
                if by_itself:
                    before.setdefault(following, []).append(world)
            if not goes_on:
                ends.append(world)
                self._check_end(world)
        self._check_all_end(ends, before)
        return Explored(len(self._parents), transitions, len(ends), len(self._locals.states))

    # ---- what may happen --------------------------------------------------------------------------------------------

    def _following(self, world: World) -> Iterator[tuple[str, World, bool]]:
        """Yield what may happen next, the state after it, and whether it happens by itself (is no failure)."""
        for index, source in enumerate(self._instance.sources):
            if world.to_come[index] < self._instance.samples(source):
                yield f"sample of {source}", self._arrive(world, index, source), True
        for channel, under_way in world.channels:
            event = self._events[under_way[0]]
            rest = self._without_first(world, channel)
            yield f"to {channel[1]}: {event}", self._step(rest, channel[1], event), True
            if world.failures and self._failure == "loss" and channel[0] != _MEMBERS:
                yield f"lost to {channel[1]}: {event}", rest._replace(failures=0), False
        for name, number in zip(self._names, world.locals, strict=True):
            running = self._locals.states[number].running if number >= 0 else None
            if running is not None:
                key, block = running
                event = BlockEnded(key, block, self._costs.compute_s("m", name, block, block))
                yield f"at {name}: {event}", self._step(world, name, event), True
                if world.failures and self._failure == "block":
                    broken = BlockFailed(key, block, "out of memory")
                    yield f"at {name}: {broken}", self._step(world._replace(failures=0), name, broken), False
        if world.timers:
            yield from self._time_out(world)
        if self._failure == "crash":
            yield from self._crashes(world)

    def _time_out(self, world: World) -> Iterator[tuple[str, World, bool]]:
        """Fire the first timer of any worker; a source's patience outlasts everything else."""
        idle = not world.channels and not any(self._running(world))
        seen: set[str] = set()
        for index, (at_s, name, timer) in enumerate(world.timers):
            if name not in seen and (idle or timer.purpose != "result"):
                rest = world._replace(timers=world.timers[:index] + world.timers[index + 1 :])
                yield f"at {name}: {timer}", self._step(rest, name, TimedOut(timer), at_s), True
            seen.add(name)

    def _arrive(self, world: World, index: int, source: str) -> World:
        sample = world.to_come[index]
        to_come = (*world.to_come[:index], sample + 1, *world.to_come[index + 1 :])
        world, home = world._replace(to_come=to_come), self._instance.home(source)
        if world.locals[self._names.index(home)] < 0:
            return self._end(world, (source, sample))
        return self._step(world, home, Arrived(source, sample))

    def _crashes(self, world: World) -> Iterator[tuple[str, World, bool]]:
        for index, name in enumerate(self._names):
            if world.locals[index] < 0:
                yield f"{name} starts again", self._start(world, index, name), False
            elif world.failures:
                yield f"{name} is killed", self._kill(world, index, name, lost=False), False
                if any(channel[0] == name for channel, _ in world.channels):
                    yield f"{name} is killed with what it sent", self._kill(world, index, name, lost=True), False

    def _kill(self, world: World, index: int, name: str, *, lost: bool) -> World:
        local = self._locals.states[world.locals[index]]
        world = world._replace(
            locals=(*world.locals[:index], -1, *world.locals[index + 1 :]),
            channels=tuple(
                entry for entry in world.channels if entry[0][1] != name and not (lost and entry[0][0] == name)
            ),
            timers=tuple(entry for entry in world.timers if entry[1] != name),
            failures=0,
        )
        for key in local.pending:
            world = self._end(world, (key.source, key.sample))
        return self._tell_others(world, name, Left(name))

    def _start(self, world: World, index: int, name: str) -> World:
        number = self._locals.new(name)
        world = world._replace(locals=(*world.locals[:index], number, *world.locals[index + 1 :]))
        return self._tell_others(world, name, Joined(name))

    def _tell_others(self, world: World, name: str, event: Event) -> World:
        for other in self._names:
            if other != name:
                world = self._put(world, (_MEMBERS, other, "members"), event)
        return world

    # ---- a step -----------------------------------------------------------------------------------------------------

    def _step(self, world: World, name: str, event: Event, at_s: float = 0.0) -> World:
        index = self._names.index(name)
        if world.locals[index] < 0:
            return world
        number, effects = self._locals.step(world.locals[index], at_s, event)
        world = world._replace(locals=(*world.locals[:index], number, *world.locals[index + 1 :]))
        for effect in effects:
            world = self._carry_out(world, name, effect)
        return world

    def _carry_out(self, world: World, name: str, effect: Effect) -> World:
        if isinstance(effect, (Send, Tell)):
            lane = "parcels" if isinstance(effect, Send) else "notes"
            return self._put(world, (name, effect.to, lane), Received(name, effect.message))
        if isinstance(effect, SetTimer):
            timers = sorted((*world.timers, (effect.at_s, name, effect.timer)))
            return world._replace(timers=tuple(timers))
        if isinstance(effect, (Complete, Fail)):
            return self._end(world, (effect.key.source, effect.key.sample))
        return world

    def _put(self, world: World, channel: tuple[str, str, str], event: Event) -> World:
        number = self._event_numbers.setdefault(repr(event), len(self._events))
        if number == len(self._events):
            self._events.append(event)
        channels = dict(world.channels)
        channels[channel] = (*channels.get(channel, ()), number)
        return world._replace(channels=tuple(sorted(channels.items())))

    @staticmethod
    def _without_first(world: World, channel: tuple[str, str, str]) -> World:
        channels = dict(world.channels)
        rest = channels.pop(channel)[1:]
        if rest:
            channels[channel] = rest
        return world._replace(channels=tuple(sorted(channels.items())))

    @staticmethod
    def _end(world: World, sample: tuple[str, int]) -> World:
        return world._replace(ended=tuple(sorted((*world.ended, sample))))

    def _running(self, world: World) -> Iterator[tuple[SampleKey, int]]:
        for number in world.locals:
            running = self._locals.states[number].running if number >= 0 else None
            if running is not None:
                yield running

    # ---- what must hold ---------------------------------------------------------------------------------------------

    def _check(self, world: World) -> None:
        if len(set(world.ended)) < len(world.ended):
            self._fail(world, f"a sample ends twice: {world.ended}")
        twice = [run for run, times in Counter(self._running(world)).items() if times > 1]
        if twice:
            self._fail(world, f"a block runs twice at once: {twice}")

    def _check_end(self, world: World) -> None:
        """Check a state in which nothing happens any more unless a worker fails or comes back."""
        offered = [
            (source, sample) for source in self._instance.sources for sample in range(self._instance.samples(source))
        ]
        if list(world.ended) != sorted(offered):
            self._fail(world, f"of {offered} only {world.ended} ended")
        for local in self._present(world):
            if local.kept:
                self._fail(world, f"{local.worker} keeps {local.kept}")

    def _present(self, world: World) -> list[Local]:
        return [self._locals.states[number] for number in world.locals if number >= 0]

    def _check_all_end(self, ends: list[World], before: dict[World, list[World]]) -> None:
        """Check that from each state the run can end by itself: none goes round in circles for ever."""
        found, todo = set(ends), list(ends)
        while todo:
            for world in before.get(todo.pop(), ()):
                if world not in found:
                    found.add(world)
                    todo.append(world)
        for world in self._parents:
            if world not in found:
                self._fail(world, "the run never ends from here")

    def _fail(self, world: World, what: str) -> NoReturn:
        steps: list[str] = []
        at: Any = world
        while at is not None:
            at, step = self._parents[at]
            steps.append(step)
        raise ProtocolViolationError("\n  ".join([what, *reversed(steps)]))
