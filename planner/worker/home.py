"""The samples of a worker's own sources, from their arrival until they end: rules 2, 3 and 8 of the worker."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from planner.plan.types import Route
from planner.policy.candidate_routes import whole_model_at_home
from planner.policy.state_moves import choose
from planner.policy.types import (
    RUN_STRIDE,
    Decoding,
    Policy,
    Progress,
    Refuse,
    SampleKey,
    Task,
    WorkerState,
)
from planner.trace.records import Origin
from planner.worker.events import Arrived, Complete, Discard, Fail, FailureMessage, SetTimer, StepOutput, Timer
from planner.worker.lateness import Lateness
from planner.worker.patience import Delays, Patience
from planner.worker.stickiness import MAX_SEQUENCES, Stickiness


@dataclass(slots=True)
class _Pending:
    """A sample whose result is not back yet."""

    created_s: float
    priority: float | None = None
    """Its own priority; None for that of its source."""
    latest_s: float | None = None
    """Latest time at which one of its blocks may start; None without a limit of its own."""
    sequence: int | None = None
    """Number of the sequence that it continues; None for other samples."""
    decoding: Decoding | None = None
    progress: Progress | None = None
    """How far the sequence is."""
    started_s: float = 0.0
    attempt: int = 0
    time_outs: int = 0
    via: frozenset[str] | None = frozenset()
    """Workers that may have it, beside its own; None: any other."""
    started: bool = False
    """Whether it is in flight; it waits in the reservoir otherwise."""

    def may_be_with(self, worker: str) -> bool:
        """Return whether a worker, not its own, may have it."""
        return self.via is None or worker in self.via


def _priority(pending: _Pending, of_source: float) -> float:
    return of_source if pending.priority is None else pending.priority


class Home:
    """Keeps each sample until its result is back, and starts it again where that may never come.

    Parameters
    ----------
    state
        Its ``in_flight`` is kept here, and nowhere else.
    output
        Takes what the driver is to do.
    place
        Places the first task of an attempt.
    """

    def __init__(
        self,
        state: WorkerState,
        policy: Policy,
        patience: Patience,
        output: StepOutput,
        place: Callable[[Task], None],
        *,
        lateness: Lateness,
        stickiness: Stickiness,
    ) -> None:
        self._state = state
        self._lateness = lateness
        self._stickiness = stickiness
        self._policy = policy
        self._patience = patience
        self._timed = patience.first_s < inf
        self._output = output
        self._place = place
        sources = state.instance.scenario.sources
        self._reservoirs: dict[str, deque[int]] = {
            source: deque() for source, spec in sources.items() if spec.worker == state.worker
        }
        self._limits = {source: sources[source].in_flight or inf for source in self._reservoirs}
        self._in_flight = state.in_flight
        self._in_flight.update(dict.fromkeys(self._reservoirs, 0))
        self._asked_again_s = dict.fromkeys(self._reservoirs, -inf)
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._early: OrderedDict[tuple[str, int], FailureMessage] = OrderedDict()
        """What has failed before it was known that it had begun: runs begun by the worker of the last block."""
        self._delays = {source: Delays(patience) for source in self._reservoirs}
        self.slowness: Mapping[str, float] = {}
        """How slow workers are by which the plan was made again."""
        self.starts = 0
        """Number of attempts that have started."""

    @property
    def pending(self) -> dict[SampleKey, float]:
        """Samples that have not ended, with the time of their arrival."""
        return {SampleKey(*identity, sample.attempt): sample.created_s for identity, sample in self._pending.items()}

    def owns(self, source: str) -> bool:
        """Return whether the samples of a source arrive here."""
        return source in self._reservoirs

    def holds(self, source: str, sample: int) -> bool:
        """Return whether a sample has arrived and not ended."""
        return (source, sample) in self._pending

    def arrived(self, event: Arrived) -> None:
        """Take a new sample, with a priority and a limit of time of its own if it has them."""
        now_s, source, sample = self._state.now_s, event.source, event.sample
        latest_s = None if event.within_s is None else now_s + event.within_s
        self._pending[source, sample] = _Pending(
            now_s, event.priority, latest_s, event.sequence, event.decoding, event.progress
        )
        self._reservoirs[source].insert(self._place_in_reservoir(source, event.priority), sample)
        self._admit(source)
        self._limit_wait(source, sample)

    def _place_in_reservoir(self, source: str, priority: float | None) -> int:
        """Return the place of a new sample: behind all of its priority and above."""
        reservoir = self._reservoirs[source]
        place = len(reservoir)
        if priority is not None:
            own = self._state.priorities[source]
            while place and _priority(self._pending[source, reservoir[place - 1]], own) < priority:
                place -= 1
        return place

    def admit(self) -> None:
        """Start the next sample of each source, where the policy and ``in_flight`` allow it."""
        for source, reservoir in self._reservoirs.items():
            if reservoir:
                self._admit(source)

    def sent(self, key: SampleKey, worker: str) -> None:
        """Record that a task was sent on from here.

        Where that worker is not on its sample's route, any worker may have the sample from now on. Tasks of earlier
        attempts say nothing of where the last one is.
        """
        pending = self._pending.get((key.source, key.sample))
        if pending is not None and pending.attempt == key.attempt and not pending.may_be_with(worker):
            pending.via = None

    def due(self, source: str) -> None:
        """Start all samples of a source that the policy lets go now, at the time for which it asked to be asked."""
        while self._admit(source):
            pass

    def finish(self, key: SampleKey, origin: Origin | None, *, goes_on: bool = False) -> None:
        """Take a result (rule 3); ``goes_on`` if the next run of its sequence is under way."""
        pending = self._end((key.source, key.sample))
        if pending is None:
            self._output.effects.append(Discard(key))
            return
        self._stickiness.moved(key.source, pending.sequence)
        if self._timed and pending.attempt == 0:
            self._delays[key.source].back(self._state.now_s, pending.started_s)
        self._output.effects.append(Complete(key, pending.created_s, origin, goes_on))
        if goes_on:
            self._go_on(key, pending)
        self.admit()

    def _go_on(self, key: SampleKey, before: _Pending) -> None:
        """Take the next run of a sequence, which the worker of the last block has begun, as one in flight.

        It starts here once more where it is not sure to get on: its route is broken, or is not the last attempt's.
        """
        now_s, identity = self._state.now_s, (key.source, key.sample + RUN_STRIDE)
        failure = self._early.pop(identity, None)
        if identity in self._pending:
            return
        self._pending[identity] = pending = _Pending(
            now_s,
            before.priority,
            sequence=before.sequence,
            decoding=None if before.decoding is None else before.decoding.after(),
            progress=None if before.progress is None else before.progress.after(),
            started_s=now_s,
            started=True,
        )
        route = self._stickiness.route(key.source, before.sequence)
        pending.via = None if route is None else route.workers
        self._in_flight[key.source] += 1
        if self._timed:
            self._set_timer(SampleKey(*identity, 0), pending)
        if failure is not None:
            self.failed(failure)
        elif key.attempt != before.attempt or route is None or not self._state.view.passable(self._state.worker, route):
            self._retry(identity)

    def failed(self, message: FailureMessage) -> None:
        """End a sample that was dropped, or whose block could not be run; start one again that was turned back."""
        identity = (message.key.source, message.key.sample)
        pending = self._pending.get(identity)
        if pending is None and message.key.sample >= RUN_STRIDE:
            self._early[identity] = message
            while len(self._early) > MAX_SEQUENCES:
                self._early.popitem(last=False)
        if pending is None or not pending.started or pending.attempt != message.key.attempt:
            return
        if message.broken is None:
            self._give_up(identity, message.reason, dropped=message.dropped, late_s=message.late_s)
        else:
            self._retry(identity)

    def look(self, key: SampleKey) -> None:
        """Start a sample again whose result is overdue."""
        pending = self._pending.get((key.source, key.sample))
        if pending is None or pending.attempt != key.attempt or not pending.started:
            return
        if self._state.now_s < self._delays[key.source].due_s(pending.started_s, pending.time_outs):
            self._set_timer(key, pending)
        else:
            pending.time_outs += 1
            self._retry((key.source, key.sample))

    def latest(self, key: SampleKey) -> None:
        """Drop a sample that is still in the reservoir, if it had to leave by now."""
        pending = self._pending.get((key.source, key.sample))
        if pending is None or pending.started:
            return
        if self._state.now_s >= self._lateness.latest_start_s(key.source, pending.created_s, pending.latest_s):
            self._drop((key.source, key.sample), self._lateness.late_start_s(key.source, pending.created_s))
            self.admit()

    def left(self, worker: str) -> None:
        """Start every sample again that a worker that left may have had (rule 8)."""
        lost = [identity for identity, pending in self._pending.items() if pending.may_be_with(worker)]
        for identity in lost:
            self._retry(identity)

    def _admit(self, source: str) -> bool:
        """Start the next sample of a source where that is allowed; return whether it was started."""
        reservoir, view = self._reservoirs[source], self._state.view
        route = self._next_route(source)
        if isinstance(route, float):
            self._ask_again(source, route)
        if route is None or isinstance(route, float):
            return False
        if not view.passable(view.worker, route):
            route = whole_model_at_home(view.instance, source)
        sample = reservoir[0]
        pending = self._pending[source, sample]
        self.starts += 1
        pending.via = route.workers
        self._stickiness.take_route(source, pending.sequence, route)
        task = Task(
            key=SampleKey(source, sample, pending.attempt),
            model=route.model,
            operating_point=route.operating_point,
            priority=_priority(pending, self._policy.priority(view, source)),
            created_s=pending.created_s,
            next_block=0,
            stages=route.stages,
            latest_s=pending.latest_s,
            sequence=pending.sequence,
            decoding=pending.decoding,
            again=route.stages if self._fed_back(route) else (),
            state_at=self._stickiness.state_at(source, pending.sequence),
        )
        if self._state.now_s > self._lateness.latest_s(task, 0):  # along this route, even if not along the fastest
            self._drop((source, sample), self._lateness.late_s(task, 0))
            return True
        pending.started_s = self._state.now_s
        if self._timed:
            self._set_timer(task.key, pending)
        self._place(task)
        reservoir.popleft()
        pending.started = True
        self._in_flight[source] += 1
        return True

    def _fed_back(self, route: Route) -> bool:
        """Return whether the worker of a route's last block begins the next run of a sequence."""
        return route.loop == "last" and route.stages[-1].worker != self._state.worker

    def _next_route(self, source: str) -> Route | float | None:
        """Return the route of the next sample's sequence, or what the policy says of the next one it does not refuse.

        It is None if there is none to start.
        """
        reservoir, view = self._reservoirs[source], self._state.view
        while True:
            self._drop_late(source)
            if not reservoir or self._in_flight[source] >= self._limits[source]:
                return None
            sticky = self._stickiness.route(source, self._pending[source, reservoir[0]].sequence)
            if sticky is not None and view.passable(view.worker, sticky):
                return sticky
            route = self._policy.route(view, source)
            if isinstance(route, Route):
                route = self._with_state(source, reservoir[0], route)
                if route is not None:
                    return route
            elif not isinstance(route, Refuse):
                return route
            else:
                self._drop((source, reservoir[0]), route.late_s, refused=True)

    def _with_state(self, source: str, sample: int, route: Route) -> Route | None:
        """Return the route of a sample, which its sequence may stay on or move to; None if that has to start again."""
        pending = self._pending[source, sample]
        progress, old = pending.progress, self._stickiness.last_route(source, pending.sequence)
        begins = progress is not None and progress.past == 0
        if old is None or begins or old.stages == route.stages:
            return route
        choice = choose(self._state.view, source, old, route, progress=progress, slowness=self.slowness)
        if choice == "stay":
            return old
        if choice == "move":
            self._stickiness.move(source, pending.sequence, old.stages)
        if choice == "move" or progress is None:  # it may begin with this run
            return route
        self._end((source, sample))
        reason = "its sequence starts again on a new route"
        self._output.effects.append(Fail(SampleKey(source, sample, pending.attempt), pending.created_s, reason))
        return None

    def _ask_again(self, source: str, at_s: float) -> None:
        """Ask for the route of the next sample at a time, unless it is asked for before."""
        if not self._state.now_s < self._asked_again_s[source] <= at_s:
            self._asked_again_s[source] = at_s
            self._output.effects.append(
                SetTimer(Timer("route", SampleKey(source, self._reservoirs[source][0], 0)), at_s)
            )

    def _set_timer(self, key: SampleKey, pending: _Pending) -> None:
        look_s = self._delays[key.source].look_s(self._state.now_s, pending.started_s, pending.time_outs)
        self._output.effects.append(SetTimer(Timer("result", key), look_s))

    def _retry(self, identity: tuple[str, int]) -> None:
        pending = self._pending[identity]
        pending.attempt += 1
        if pending.time_outs >= self._patience.max_attempts:
            self._give_up(identity, f"no result after {pending.time_outs} time-outs")
        else:
            source, sample = identity
            pending.via, pending.started = frozenset(), False
            self._in_flight[source] -= 1
            self._reservoirs[source].appendleft(sample)
            self._admit(source)
            self._limit_wait(source, sample)

    def _limit_wait(self, source: str, sample: int) -> None:
        """Have a sample looked at again that waits in the reservoir and may not wait for ever."""
        pending = self._pending.get((source, sample))
        if pending is not None and not pending.started:
            latest_s = self._lateness.latest_start_s(source, pending.created_s, pending.latest_s)
            if latest_s < inf:
                self._output.effects.append(
                    SetTimer(Timer("latest", SampleKey(source, sample, pending.attempt)), latest_s)
                )

    def _drop_late(self, source: str) -> None:
        """Drop the first samples in the reservoir that have waited too long."""
        reservoir = self._reservoirs[source]
        while reservoir:
            first = self._pending[source, reservoir[0]]
            if self._state.now_s <= self._lateness.latest_start_s(source, first.created_s, first.latest_s):
                return
            self._drop((source, reservoir[0]), self._lateness.late_start_s(source, first.created_s))

    def _drop(self, identity: tuple[str, int], late_s: float | None, *, refused: bool = False) -> None:
        """End a sample in the reservoir as dropped."""
        pending = self._end(identity)
        if pending is not None:
            reason = self._lateness.reason(
                identity[0], pending.created_s, late_s, own_s=pending.latest_s, refused=refused
            )
            key = SampleKey(*identity, pending.attempt)
            self._output.effects.append(Fail(key, pending.created_s, reason, dropped=True, late_s=late_s))

    def _give_up(
        self, identity: tuple[str, int], reason: str, *, dropped: bool = False, late_s: float | None = None
    ) -> None:
        pending = self._end(identity)
        if pending is not None:
            key = SampleKey(*identity, pending.attempt)
            self._output.effects.append(Fail(key, pending.created_s, reason, dropped, late_s))
            self.admit()

    def _end(self, identity: tuple[str, int]) -> _Pending | None:
        """Forget a sample, which an earlier attempt may have ended while it waits again; None if it has ended."""
        pending = self._pending.pop(identity, None)
        if pending is not None:
            source, sample = identity
            if pending.started:
                self._in_flight[source] -= 1
            else:
                self._reservoirs[source].remove(sample)
        return pending
