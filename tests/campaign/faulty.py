"""A simulator whose messages, links, blocks and clocks have the faults of a case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import count
from math import inf

import numpy as np
from typing_extensions import override

from planner.plan.types import PlanSpec
from planner.simulation.simulator import DETECTION_S, Simulator
from planner.trace.records import Record
from planner.worker.events import (
    BlockFailed,
    Effect,
    Event,
    Joined,
    Left,
    Received,
    RunBlock,
    SetTimer,
    TimedOut,
)
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.campaign.case import Case, ClockStep, Cut

MOST_STEPS = 60_000
"""Steps after which a run counts as endless; the longest that end take a fifth of it."""

Look = Callable[[Worker, float, Event, list[Effect]], None]


class EndlessError(AssertionError):
    """A run that goes on and on."""


class FaultySimulator(Simulator):
    """Runs a case; shows each worker after each of its steps.

    As in an agent, a worker is told once that another is gone, because it left or because the link to it broke; and
    that it is back when both are mended.
    """

    def __init__(self, case: Case, *, sink: Callable[[Record], None], look: Look) -> None:
        self._case = case
        self._look = look
        self._rng = np.random.default_rng([22, case.seed])
        self._ahead_s = {name: case.offsets_s.get(name, 0.0) for name in case.workers}
        self._read_s: dict[str, float] = defaultdict(float)
        """What each worker's clock read last."""
        self._gone: dict[str, dict[str, set[str]]] = {}
        self._timers: dict[int, tuple[Worker, SetTimer]] = {}
        self._numbers = count()
        self._last_s: dict[tuple[str, str, str], float] = defaultdict(float)
        self._down: set[frozenset[str]] = set()
        self._steps = 0
        self._replanned = 0
        super().__init__(
            case.instance(),
            policy=case.policy,
            plan=case.plan(),
            seed=case.seed,
            sink=sink,
            patience=Patience(first_s=inf) if case.lossless else Patience(),
            replan=self._other_plan if case.replans else None,
        )
        for cut in case.cuts:
            self._heap.at(cut.from_s, partial(self._cut, cut, broken=True))
            self._heap.at(cut.to_s, partial(self._cut, cut, broken=False))
        for step in case.steps:
            self._heap.at(step.at_s, partial(self._step_clock, step))

    @property
    def workers(self) -> dict[str, Worker]:
        """Those that are there."""
        return self._workers

    @property
    def now_s(self) -> float:
        """True time."""
        return self._heap.now_s

    def _other_plan(self, absent: Collection[str], _slowness: Mapping[str, float]) -> PlanSpec | None:
        self._replanned += 1
        plan = self._case.plan(self._replanned, frozenset(absent))
        return plan if plan.sources else None

    # ---- members ----------------------------------------------------------------------------------------------------

    @override
    def _new_worker(self, name: str) -> Worker:
        worker = super()._new_worker(name)
        self._gone[name] = defaultdict(set)
        for pair in self._down:
            if name in pair:
                (other,) = pair - {name}
                self._heap.at(self.now_s, partial(self._member, worker, other, "link", there=False))
        return worker

    @override
    def _step_worker(self, worker: Worker, event: Event) -> None:
        if isinstance(event, (Left, Joined)):
            self._member(worker, event.worker, "run", there=isinstance(event, Joined))
        else:
            self._step_now(worker, event)

    def _member(self, worker: Worker, other: str, cause: str, *, there: bool) -> None:
        if self._workers.get(worker.name, worker) is not worker:
            return
        causes = self._gone[worker.name][other]
        before = bool(causes)
        (causes.discard if there else causes.add)(cause)
        if before != bool(causes):
            self._step_now(worker, Joined(other) if before else Left(other))

    def _cut(self, cut: Cut, *, broken: bool) -> None:
        pair = frozenset(cut.between)
        (self._down.add if broken else self._down.discard)(pair)
        for name, other in (cut.between, cut.between[::-1]):
            worker = self._workers.get(name)
            if worker is not None:
                notice = partial(self._member, worker, other, "link", there=not broken)
                self._heap.at(self.now_s + DETECTION_S * float(self._rng.uniform(0, 2)), notice)

    # ---- clocks -----------------------------------------------------------------------------------------------------

    def _step_now(self, worker: Worker, event: Event) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise EndlessError(f"no end after {MOST_STEPS} steps, at {self.now_s:.3f} s")
        # Never before a timer that is due, nor backwards, by the rounding of sums.
        now_s = max(self.now_s + self._ahead_s[worker.name], self._read_s[worker.name])
        self._read_s[worker.name] = now_s
        effects = worker.step(now_s, event)
        self._events += 1
        self._look(worker, now_s, event, effects)
        for effect in effects:
            handler = self._handlers.get(type(effect))
            if handler is not None:
                handler(worker, effect)

    @override
    def _on_timer(self, worker: Worker, timer: SetTimer) -> None:
        number = next(self._numbers)
        self._timers[number] = worker, timer
        self._heap.at(timer.at_s - self._ahead_s[worker.name], partial(self._time_out, number))

    def _time_out(self, number: int) -> None:
        worker, timer = self._timers.pop(number, (None, None))
        if worker is not None and timer is not None:
            self._read_s[worker.name] = max(self._read_s[worker.name], timer.at_s)
            self._step_same(worker, TimedOut(timer.timer))

    def _step_clock(self, step: ClockStep) -> None:
        """Let a clock jump; what is due by then is due now."""
        self._ahead_s[step.worker] += step.by_s
        for number, (worker, timer) in self._timers.items():
            if worker.name == step.worker:
                self._heap.at(timer.at_s - self._ahead_s[step.worker], partial(self._time_out, number))

    # ---- messages and blocks ----------------------------------------------------------------------------------------

    @override
    def _deliver(self, to: str, received: Received, at_s: float) -> None:
        faults = self._case.faults
        copies = 2 if self._rng.random() < faults.duplicates else 1
        for _ in range(copies):
            if self._rng.random() < faults.loss:
                continue
            late_s = float(self._rng.uniform(0, faults.late_s)) if self._rng.random() < faults.late else 0.0
            due_s = at_s + late_s
            if not faults.reorders:
                lane = received.sender, to, received.message.kind
                due_s = self._last_s[lane] = max(self._last_s[lane], due_s)
            self._heap.at(due_s, partial(self._pass, to, received))

    def _pass(self, to: str, received: Received) -> None:
        if frozenset((to, received.sender)) not in self._down:
            self._step(to, received)

    @override
    def _end_block(self, worker: Worker, run: RunBlock, start_s: float, service_s: float) -> None:
        if self._workers.get(worker.name) is worker and self._rng.random() < self._case.faults.block:
            self._step_worker(worker, BlockFailed(run.key, run.block, "out of memory"))
        else:
            super()._end_block(worker, run, start_s, service_s)
