"""What must hold in every run of the campaign, after each step and at the end."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import NoReturn

from planner.plan.types import PlanSpec, Route
from planner.policy.candidate_routes import extended_candidate_routes
from planner.policy.costs import CostTable
from planner.policy.types import SampleKey, Task, Waiting
from planner.policy.urgency import aged_priority
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord
from planner.worker.events import (
    AnswerMessage,
    BlockEnded,
    BlockFailed,
    Complete,
    Discard,
    Effect,
    Event,
    FailureMessage,
    Received,
    RequestMessage,
    ResultMessage,
    RunBlock,
    Send,
    TaskMessage,
    Tell,
)
from planner.worker.worker import Worker
from tests.campaign.case import Case
from tests.campaign.faulty import FaultySimulator

BY_PRIORITY = frozenset(("planned", "pa-mdi"))


class ViolationError(AssertionError):
    """An invariant does not hold; :attr:`rule` names it."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


def run_case(case: Case) -> int:
    """Run a case; return the number of steps.

    Raises
    ------
    ViolationError, Exception
        An invariant does not hold, or a worker failed.
    """
    checks = _Checks(case)
    simulator = FaultySimulator(case, sink=checks.take, look=checks.look)
    checks.simulator = simulator
    simulator.run()
    checks.at_end()
    return checks.steps


class _Checks:
    def __init__(self, case: Case) -> None:
        self.simulator: FaultySimulator | None = None
        self.steps = 0
        self._case = case
        self._instance = case.instance()
        self._running: dict[str, tuple[Worker, SampleKey, int]] = {}
        self._stores: dict[Worker, dict[SampleKey, int]] = defaultdict(dict)
        """The cut whose tensors a worker has of an attempt, as an agent stores them."""
        self._asked: dict[tuple[str, str, SampleKey], Task] = {}
        """The last task for which a worker was asked, by that worker and who asked."""
        self._cleared: set[tuple[str, str, SampleKey, int]] = set()
        self._ended: Counter[tuple[str, int]] = Counter()
        self._most_entries = 250
        if case.policy == "adaptive":  # knows the legs of each route, and what is booked on each resource
            routes = sum(map(len, extended_candidate_routes(self._instance, case.plan()).values()))
            booked = self._instance.scenario.policy.adaptive.most_bookings
            resources = len(case.workers) + len(self._instance.resources)
            self._most_entries += 100 * routes + 8 * booked * resources
        self._arrived = {source: self._instance.samples(source) for source in self._instance.sources}

    # ---- after each step --------------------------------------------------------------------------------------------

    def look(self, worker: Worker, now_s: float, event: Event, effects: list[Effect]) -> None:
        """Check one step."""
        self.steps += 1
        if isinstance(event, (BlockEnded, BlockFailed)):
            self._running.pop(worker.name, None)
        self._store(worker, event)
        for effect in effects:
            if isinstance(effect, RunBlock):
                self._begin(worker, now_s, effect)
            self._use(worker, effect)
        waiting = _waiting(worker)
        if worker._running is None and waiting:
            self._fail("idle with work", f"{worker.name} has {len(waiting)} tasks and runs none")
        self._check_in_flight(worker)
        self._check_backlog(worker, waiting)
        self._check_clearance(worker, event, effects)
        self._check_size(worker, waiting)

    def _begin(self, worker: Worker, now_s: float, run: RunBlock) -> None:
        before = self._running.get(worker.name)
        if before is not None and before[0] is worker:
            self._fail("two blocks at once", f"{worker.name} runs {before[1:]} and {run.key}, {run.block}")
        for name, (other, key, block) in self._running.items():
            same = (key, block) == (run.key, run.block) and self._there(name) is other
            if same and self._case.faults.duplicates == 0:
                self._fail("a block runs twice at once", f"{run.key}, {run.block} at {name} and {worker.name}")
        self._running[worker.name] = worker, run.key, run.block
        served = worker._running
        if served is None:
            self._fail("two blocks at once", f"{worker.name} runs a block that it does not know")
        chosen = worker._policy.looks_between_blocks or not served.begun  # else its task goes on unasked
        for other_task in _waiting(worker) if chosen else ():
            if self._urgency(other_task, now_s) > self._urgency(served, now_s):
                self._fail("priority", f"{worker.name} runs {served.task.key} before {other_task.task.key}")

    def _store(self, worker: Worker, event: Event) -> None:
        store = self._stores[worker]
        if isinstance(event, BlockEnded):
            store[event.key] = event.block + 1
        elif isinstance(event, Received):
            message = event.message
            if isinstance(message, TaskMessage):
                store[message.key] = message.task.next_block
            elif isinstance(message, ResultMessage):
                store[message.key] = message.cut

    def _use(self, worker: Worker, effect: Effect) -> None:
        """Check that a worker has the tensors that it computes with or sends; drop those that it needs no more."""
        store, wanted = self._stores[worker], None
        if isinstance(effect, RunBlock):
            wanted = effect.block
        elif isinstance(effect, Send) and not isinstance(effect.message, FailureMessage):
            wanted = effect.cut
        elif isinstance(effect, (Discard, Complete)):
            store.pop(effect.key, None)
        if wanted is not None and isinstance(effect, (RunBlock, Send)) and self._case.faults.duplicates == 0:
            key = effect.key if isinstance(effect, RunBlock) else effect.message.key
            found = store.get(key, 0 if self._case.sources[key.source].home == worker.name else None)
            if found != wanted:
                self._fail("tensors", f"{worker.name} has those of cut {found} of {key}, and needs cut {wanted}")

    def _urgency(self, waiting: Waiting, now_s: float) -> float:
        """Return what the policy serves first; 0 where other things decide."""
        task = waiting.task
        if self._case.policy in BY_PRIORITY:
            return task.priority
        if self._case.policy == "adaptive" and self._case.goal == "makespan":
            return -task.key.sample / max(self._arrived[task.key.source], 1)
        if self._case.policy == "adaptive":
            return aged_priority(task, now_s, self._instance.scenario.policy.adaptive.ageing_s)
        return 0.0

    def _check_in_flight(self, worker: Worker) -> None:
        pending = worker._home._pending
        started = Counter(source for (source, _), sample in pending.items() if sample.started)
        for source, number in worker._state.in_flight.items():
            limit = self._instance.scenario.sources[source].in_flight
            if number != started[source] or (limit is not None and number > limit):
                self._fail("in flight", f"{number} of {source}, {started[source]} started, limit {limit}")

    def _check_backlog(self, worker: Worker, waiting: list[Waiting]) -> None:
        known = worker._view.backlog_s
        running = worker._running
        expected = Counter(entry.task.priority for entry in waiting)
        if running is not None and running.next_block < running.last_block:
            expected[running.task.priority] += 1
        if known.keys() != expected.keys():
            self._fail("backlog", f"{worker.name} expects {dict(known)} and has {dict(expected)}")

    def _check_clearance(self, worker: Worker, event: Event, effects: list[Effect]) -> None:
        """Check that the highest priority is cleared, and that a task is sent to no worker that did not clear it."""
        if isinstance(event, Received) and isinstance(event.message, RequestMessage):
            self._asked[worker.name, event.sender, event.message.key] = event.message.task
        answered = []
        for effect in effects:
            if isinstance(effect, Tell) and isinstance(effect.message, AnswerMessage):
                clears = effect.message.completion_s is not None
                task = self._asked[worker.name, effect.to, effect.message.key]
                answered.append((task.priority, clears))
                if clears:
                    self._cleared.add((worker.name, effect.to, task.key, task.next_block))
            elif isinstance(effect, Send) and isinstance(effect.message, TaskMessage):
                task = effect.message.task
                asked = effect.message.last_block is not None
                if asked and (effect.to, worker.name, task.key, task.next_block) not in self._cleared:
                    self._fail("clearance", f"{effect.to} did not clear {task.key} from block {task.next_block} on")
        cleared = [priority for priority, clear in answered if clear]
        if len(cleared) > 1 or (cleared and cleared[0] < max(priority for priority, _ in answered)):
            self._fail("clearance", f"{worker.name} cleared {cleared} of {answered}")

    def _check_size(self, worker: Worker, waiting: list[Waiting]) -> None:
        """Hold what a worker keeps against what is under way: a fixed number of entries for each."""
        state, workers = worker._state, len(self._instance.workers)
        held = len(worker._home._pending)
        offered = sum(self._arrived[source] for source, spec in self._case.sources.items() if spec.home == worker.name)
        if held > offered:
            self._fail("memory", f"{worker.name} keeps {held} of {offered} samples")
        members = {
            "cut": (len(state.cut), workers**2),
            "statuses": (len(state.statuses), workers),
            "slowness": (len(state.slowness), workers**2),
            "until": (len(worker._pace._until_s), workers**2),
            "queues": (len(worker._queues._heaps), len(waiting) + 64),
        }
        for name, (size, most) in members.items():
            if size > most:
                self._fail("memory", f"{worker.name} keeps {size} {name}, at most {most} expected")

    def take(self, record: Record) -> None:
        """Count the end of a sample."""
        if isinstance(record, SampleRecord):
            self._ended[record.source, record.sample] += 1
            if self._ended[record.source, record.sample] > 1:
                self._fail("ends twice", f"sample {record.sample} of {record.source}: {record.reason}")
            if "never ended" in record.reason or (self._case.lossless and "time-outs" in record.reason):
                self._fail("no progress", f"sample {record.sample} of {record.source}: {record.reason}")

    # ---- at the end -------------------------------------------------------------------------------------------------

    def at_end(self) -> None:
        """Check that every sample has ended, and that nobody holds anything."""
        offered = {(source, sample) for source, number in self._arrived.items() for sample in range(number)}
        if self._ended.keys() != offered:
            self._fail("does not end", f"{sorted(offered - self._ended.keys())}")
        assert self.simulator is not None
        for worker in self.simulator.workers.values():
            left: dict[str, object] = {
                "running": worker._running,
                "waiting": _waiting(worker),
                "pending": worker.pending,
                "asking": worker._handshake._open,
                "requests": worker._handshake._requests,
                "reserved": worker._handshake._reserved,
                "backlog": dict(worker._view.backlog_s),
                "tensors": self._stores[worker],
            }
            if kept := {name: value for name, value in left.items() if value}:
                self._fail("left behind", f"{worker.name} keeps {kept}")
            if (kept_entries := entries(worker)) > self._most_entries:
                self._fail(
                    "memory", f"{worker.name} keeps {kept_entries} entries, at most {self._most_entries} expected"
                )

    def _there(self, name: str) -> Worker | None:
        return self.simulator.workers.get(name) if self.simulator is not None else None

    def _fail(self, rule: str, detail: str) -> NoReturn:
        at_s = self.simulator.now_s if self.simulator is not None else 0.0
        raise ViolationError(rule, f"{detail}, at {at_s:.4f} s")


def _waiting(worker: Worker) -> list[Waiting]:
    return [waiting for heap in worker._queues._heaps.values() for _, waiting in heap]


def entries(worker: Worker) -> int:
    """Return the number of entries of all containers that a worker and its policy hold, at any depth."""
    shared = (Instance, CostTable, PlanSpec, Route)
    seen: set[int] = set()
    number, todo = 0, [*vars(worker).values()]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, (*shared, str, int, float, type(None))):
            continue
        seen.add(id(found))
        if isinstance(found, Mapping):
            number += len(found)
            todo += found.values()
        elif isinstance(found, (list, tuple, set, frozenset, deque)):
            number += len(found)
            todo += found
        elif type(found).__module__.startswith("planner."):
            slots = (name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ()))
            todo += [*getattr(found, "__dict__", {}).values(), *(getattr(found, name, None) for name in slots)]
    return number
