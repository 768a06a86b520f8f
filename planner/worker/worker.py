"""The worker: a state machine without clock or I/O, driven in virtual time by the simulator and in real time by agents.

The rules, in the order in which :meth:`Worker.step` applies them:

1.  A worker runs one session at a time: a block, or blocks of a stage that the plan has joined. It is idle, or it waits
    for the :class:`BlockEnded` of the session it asked for. Below, a block is any session.
2.  A sample that arrives joins its source's reservoir. At each arrival, and at each end of a task or a sample here, the
    policy is asked once per source for the route of the next one, unless ``in_flight`` of its samples are in flight;
    then its task is placed (rule 4). A sample that it refuses ends as :class:`Fail` with ``dropped``. Where it answers
    with a time, it is asked again then, until it lets none go. A source keeps each sample until its result is back. A
    timer is set; when it expires first, the sample starts again as a new attempt. After ``max_attempts`` time-outs it
    is given up. Every sample ends once: as :class:`Complete` or :class:`Fail`.
3.  The result of *any* attempt completes its sample; a block of the last attempt that could not be run gives it up.
    Whatever comes for a sample that has ended is a duplicate, and is dropped.
4.  A task is placed by the policy: it is computed here, then it waits in a queue that the policy names; or it is sent
    on, then this worker forgets it; or others are asked first (:mod:`planner.worker.clearance_handshake`). A task that
    was cleared beforehand is computed. A task whose next worker cannot be reached is turned back: its source starts it
    again, and avoids the broken hop for a while. Runs of a sequence take the route of its first one, and what was
    decided for that, as long as they can (:mod:`planner.worker.stickiness`): its state is there. Where they cannot, or
    a new plan lacks the route, the sequence stays, moves with its state, or starts again, whichever is cheapest; a task
    whose state is elsewhere waits for that (:mod:`planner.worker.state_transfers`). When a sequence has ended, all to
    whom its tasks were sent drop its state.
5.  An idle worker serves the queue that its policy chooses, and runs the next block of its first task. No block of a
    sample is started, and no task sent on, later than its source allows (:mod:`planner.worker.lateness`): the sample is
    dropped, at the latest possible moment if it waits then, and ends as :class:`Fail` with ``dropped``. Several tasks
    may run as one batch (:mod:`planner.worker.batches`).
6.  When a block ends and its task has blocks left here, the task goes on at once, unless the policy looks between
    blocks: then it joins its queue again, before those that came later, and rule 5 applies. Where it is sure to go on,
    the driver may run further blocks without asking, until it has something else to report.
7.  When a task ends, its result goes home if no block is left; else the rest is placed (rule 4). A task also ends, and
    a result goes home, where the sample leaves at an exit (:mod:`planner.worker.exits`). Of a sequence only the token
    goes home. Where the plan says so, the worker of the last block then begins the next run itself, and tells home that
    it has: home has that run as one of its own in flight. It leaves that to home when the sequence has ended, its route
    is no longer in the plan, or the first block's worker cannot be reached.
8.  When a worker leaves, every sample that it may have had starts again as a new attempt.
9.  When a step has started a sample, or changed what waits or runs here, and with it what a gossiping policy tells
    others, they are told.

An event that does not fit the state raises :class:`~planner.worker.event_checks.ProtocolError` and changes nothing: it
is checked before all else (:mod:`planner.worker.event_checks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final

from planner.policy.costs import CostTable
from planner.policy.types import Ask, Compute, Forward, Policy, SampleKey, Status, Task, Waiting, WorkerState
from planner.profiling.sequences import TOKEN_BYTES
from planner.profiling.types import ExitPoint
from planner.scenario.instance import Instance
from planner.trace.records import Origin
from planner.worker.batches import Batches
from planner.worker.clearance_handshake import ClearanceHandshake, Settled
from planner.worker.event_checks import EventChecks
from planner.worker.events import (
    AnswerMessage,
    Arrived,
    BlockEnded,
    BlockFailed,
    Discard,
    Effect,
    Event,
    FailureMessage,
    FeedBack,
    Forget,
    ForgetMessage,
    Joined,
    Left,
    Received,
    Replanned,
    Reprioritised,
    RequestMessage,
    ResultMessage,
    RunBlock,
    Send,
    SequenceEnded,
    SetTimer,
    StateMessage,
    StateRequest,
    StatusMessage,
    StepOutput,
    TaskMessage,
    Tell,
    TimedOut,
    Timer,
    Transferred,
)
from planner.worker.exits import exit_taken
from planner.worker.home import Home
from planner.worker.lateness import Lateness
from planner.worker.pace import Pace
from planner.worker.patience import Patience
from planner.worker.queues import Queues
from planner.worker.state_transfers import StateTransfers
from planner.worker.stickiness import SequenceRoutes, Stickiness

CUT_S: Final = 5.0
"""How long a hop that was found broken is avoided, before it is tried again."""


class Worker:
    """One worker of a run.

    Parameters
    ----------
    name
        Name of this worker in the instance's scenario.
    policy
        Makes the decisions; belongs to this worker alone.
    costs
        Those of the instance; passed where several workers of one process share them.
    routes
        Those of sequences that a run before has begun.
    """

    def __init__(
        self,
        name: str,
        instance: Instance,
        policy: Policy,
        patience: Patience | None = None,
        costs: CostTable | None = None,
        *,
        routes: SequenceRoutes | None = None,
    ) -> None:
        self.name = name
        """The worker's name in the scenario."""
        self._policy = policy
        priorities = {source: spec.priority for source, spec in instance.scenario.sources.items()}
        self._state = WorkerState(name, instance, costs or CostTable(instance), priorities=priorities)
        self._view = self._state.view
        self._output = StepOutput([])
        self._pace = Pace(self._state)
        self._handshake = ClearanceHandshake(self._state, self._output)
        self._queues = Queues(self._state, policy)
        self._lateness = Lateness(self._state)
        self._batches = Batches(self._state, self._queues, policy, self._lateness, self._output)
        self._stickiness = Stickiness(routes)
        self._transfers = StateTransfers(self._state, self._output)
        self._added: list[Waiting] = []
        self._with_exits = frozenset(model for model in instance.profiles if instance.any_profile(model).exits)
        self._running: Waiting | None = None
        self._home = Home(
            self._state,
            policy,
            patience or Patience(),
            self._output,
            self._place,
            lateness=self._lateness,
            stickiness=self._stickiness,
        )
        self._messages: dict[type, Callable[[str, Any], None]] = {
            TaskMessage: self._on_task,
            ResultMessage: lambda _, message: self._home.finish(message.key, message.origin, goes_on=message.goes_on),
            FailureMessage: lambda _, message: self._on_failure(message),
            StatusMessage: self._on_status,
            RequestMessage: self._handshake.requested,
            AnswerMessage: lambda sender, message: self._settle(self._handshake.answered(sender, message)),
            StateRequest: self._transfers.asked,
            StateMessage: lambda sender, message: self._add_moved(self._transfers.came(sender, message)),
            ForgetMessage: lambda _, message: self._forget(message),
        }
        self._gate = EventChecks(self._view, self._home, policy)
        self._told = Status()
        self._gossiped = (0, 0)
        self._handlers: dict[type, Callable[[Any], None]] = {
            Arrived: self._on_arrived,
            Received: self._on_received,
            BlockEnded: self._on_block_ended,
            BlockFailed: self._on_block_failed,
            TimedOut: self._on_timed_out,
            Transferred: self._on_transferred,
            Left: self._on_left,
            Joined: self._on_joined,
            Replanned: self._on_replanned,
            SequenceEnded: self._forget,
            Reprioritised: self._on_reprioritised,
        }

    @property
    def queued(self) -> int:
        """Number of tasks that wait here, without the running one."""
        return sum(self._state.queued.values())

    @property
    def running(self) -> SampleKey | None:
        """The sample whose block runs here."""
        return self._running.task.key if self._running is not None else None

    def slowness(self, now_s: float) -> float:
        """Return how many times slower than profiled this worker is; 1 where it has not computed lately."""
        return self._pace.own_at(now_s)

    @property
    def pending(self) -> dict[SampleKey, float]:
        """Samples of this worker's own sources that have not ended, with the time of their arrival."""
        return self._home.pending

    def ignores(self, timer: Timer) -> bool:
        """Return whether a timer means nothing any more: the sample whose result was awaited has ended."""
        return timer.purpose == "result" and not self._home.holds(timer.key.source, timer.key.sample)

    def expects(self, sender: str, message: StateMessage) -> bool:
        """Return whether a task here waits for the state that a message brings."""
        return self._transfers.expects(sender, message)

    def step(self, now_s: float, event: Event) -> list[Effect]:
        """Take one event; return what the driver is to do, in order.

        Raises
        ------
        ProtocolError
            The event does not fit the state, which is left as it was.
        """
        self._gate.check(now_s, event, self._running)
        state = self._state
        state.now_s = now_s
        effects: list[Effect] = []
        self._output.effects = effects
        if state.slowness:
            self._queues.rescale(self._pace.forget_old())
        self._handlers[type(event)](event)
        while self._running is None and (waiting := self._queues.take()) is not None:
            if self._batches.on and not self._batches.gather(waiting):
                break
            self._run(waiting)
        if self._added:
            self._limit_waits()
        if self._policy.gossips and (self._home.starts, self._queues.changes) != self._gossiped:
            self._gossip()
        return effects

    # ---- a source's samples, and who is there (rules 2, 3, 8: planner.worker.home) ---------------------------------

    def _on_arrived(self, event: Arrived) -> None:
        self._home.arrived(event)

    def _on_timed_out(self, event: TimedOut) -> None:
        purpose, key = event.timer
        if purpose == "result":
            self._home.look(key)
        elif purpose == "route":
            self._home.due(key.source)
        elif purpose == "latest":
            self._on_latest(key)
        elif purpose == "state":
            self._add_moved(self._transfers.give_up(key))
        elif purpose == "answers":
            self._settle(self._handshake.overdue(key))
        elif purpose == "window":
            self._handshake.close_window()
        elif purpose == "reservation":
            self._handshake.expire(key)

    def _on_transferred(self, event: Transferred) -> None:
        self._pace.transferred(event.to, event.size_bytes, event.took_s)

    def _on_left(self, event: Left) -> None:
        worker = event.worker
        self._state.absent |= {worker}
        self._state.forget(worker)
        for settled in self._handshake.forget(worker):
            self._settle(settled)
        for moved in self._transfers.forget(worker):
            self._add_moved(moved)
        self._home.left(worker)

    def _on_joined(self, event: Joined) -> None:
        self._state.absent -= {event.worker}
        for hop in [hop for hop in self._state.cut if event.worker in hop]:
            del self._state.cut[hop]
        self._told = Status()

    def _on_replanned(self, event: Replanned) -> None:
        self._policy.replanned(self._view, event.plan)
        self._home.slowness = event.slowness
        for source, entry in event.plan.sources.items():
            self._stickiness.keep_routes(source, entry.routes)

    def _forget(self, ended: SequenceEnded | ForgetMessage) -> None:
        """Drop the state of a sequence, and let those drop it to which its tasks were sent."""
        self._output.effects.append(Forget(ended.sequence))
        sent = self._stickiness.forget(ended.source, ended.sequence) - {self.name}
        for worker in self._view.present(sorted(sent & self._state.instance.scenario.workers.keys())):
            self._output.effects.append(Tell(worker, ForgetMessage(ended.source, ended.sequence)))

    def _on_reprioritised(self, event: Reprioritised) -> None:
        self._state.priorities[event.source] = event.priority

    # ---- tasks (rules 4 to 7) -------------------------------------------------------------------------------------

    def _on_received(self, event: Received) -> None:
        self._messages[type(event.message)](event.sender, event.message)

    def _on_task(self, _sender: str, message: TaskMessage) -> None:
        self._handshake.release(message.key)
        if message.last_block is not None:
            self._add(message.task, message.last_block)
        else:
            self._place(message.task)

    def _on_status(self, sender: str, message: StatusMessage) -> None:
        self._state.hear(sender, message.status)
        self._pace.told(sender, message.status)
        self._policy.heard(self._view, message.status)

    def _on_failure(self, message: FailureMessage) -> None:
        if message.broken is not None:
            self._state.cut[message.broken] = self._state.now_s + CUT_S
        self._home.failed(message)

    def _place(self, task: Task) -> None:
        decision = (self._sticky(task) if task.sequence is not None else None) or self._policy.place(self._view, task)
        if isinstance(decision, Ask):
            self._handshake.ask(task, decision)
        else:
            self._follow(task, decision)

    def _sticky(self, task: Task) -> Compute | Forward | None:
        """Return what was done with a task of the same sequence, if that can be done again."""
        decision = self._stickiness.decision(task)
        if isinstance(decision, Forward) and self._view.broken(self.name, decision.worker) is not None:
            return None
        return decision

    def _settle(self, settled: Settled | None) -> None:
        if settled is not None:
            self._follow(settled.task, self._policy.settle(self._view, *settled))

    def _follow(self, task: Task, decision: Compute | Forward) -> None:
        if task.sequence is not None:
            self._stickiness.take_decision(task, decision)
        if isinstance(decision, Compute):
            self._add(task, decision.last_block)
            return
        if self._state.now_s > self._lateness.latest_s(task, task.next_block):
            self._drop(task, task.next_block)
            return
        broken = self._view.broken(self.name, decision.worker)
        if broken is not None:
            self._turn_back(task, broken)
            return
        self._home.sent(task.key, decision.worker)
        size = self._state.costs.cut_bytes[task.model][task.next_block]
        message = TaskMessage(task, decision.last_block)
        self._output.effects.append(Send(decision.worker, message, task.next_block, size, task.priority))
        self._output.effects.append(Discard(task.key))

    def _turn_back(self, task: Task, broken: tuple[str, str]) -> None:
        """Have the task's source send it another way."""
        message = FailureMessage(task.key, "{} does not reach {}".format(*broken), broken)
        self._report(task, message, task.next_block)

    def _report(self, task: Task, message: FailureMessage, cut: int) -> None:
        """Forget a task here, and tell its source what became of it."""
        home = self._state.instance.home(task.key.source)
        self._output.effects.append(Discard(task.key))
        if home == self.name:
            self._on_failure(message)
        else:
            self._output.effects.append(Send(home, message, cut, 0, task.priority))

    def _add(self, task: Task, last_block: int) -> None:
        if not (task.state_at and self._transfers.fetch(task, last_block)):
            self._enqueue(task, last_block)

    def _add_moved(self, moved: tuple[Task, int] | None) -> None:
        """Let a task be computed that has waited for the state of its sequence."""
        if moved is not None:
            self._enqueue(*moved)

    def _enqueue(self, task: Task, last_block: int) -> None:
        latest_s = self._lateness.latest_s(task, task.next_block)
        waiting = self._queues.add(task, last_block, latest_s)
        if latest_s < inf:
            self._added.append(waiting)

    def _limit_waits(self) -> None:
        """Have the tasks looked at again that joined a queue in this step and may not wait for ever."""
        for waiting in self._added:
            if self._queues.limited(waiting.task.key) is waiting:
                self._output.effects.append(SetTimer(Timer("latest", waiting.task.key), waiting.latest_s))
        self._added.clear()

    def _on_latest(self, key: SampleKey) -> None:
        waiting = self._queues.limited(key)
        if waiting is not None and self._state.now_s >= waiting.latest_s:
            ahead_s = self._queues.ahead_s(waiting)
            self._queues.remove(waiting)
            self._drop(waiting.task, waiting.next_block, ahead_s)
            self._home.admit()
        elif waiting is None and self._home.owns(key.source):
            self._home.latest(key)

    def _drop(self, task: Task, next_block: int, ahead_s: float = 0.0) -> None:
        """Drop a task that is too late; ``ahead_s`` is the computation here that would have gone first."""
        late_s = self._lateness.late_s(task, next_block, ahead_s)
        reason = self._lateness.reason(task.key.source, task.created_s, late_s, own_s=task.latest_s)
        self._report(task, FailureMessage(task.key, reason, dropped=True, late_s=late_s), next_block)

    def _run(self, waiting: Waiting) -> None:
        """Run the next block of a task, unless it is too late for that."""
        if self._state.now_s > waiting.latest_s:
            others, waiting.others = waiting.others, ()
            for other in others:
                self._come_back(other)
            self._queues.forget(waiting)
            self._drop(waiting.task, waiting.next_block)
            self._home.admit()
            return
        self._running = waiting
        task, block = waiting.task, waiting.next_block
        self._queues.begin(waiting)
        waiting.unasked = last = self._unasked(waiting)
        decoded = task.decoding is not None and last + 1 == self._state.costs.length(task.model)
        self._output.effects.append(
            RunBlock(
                task.key,
                task.model,
                block,
                not waiting.begun,
                task.operating_point,
                last if last > block else None,
                () if waiting.joined is None else tuple(waiting.session_ends),
                tuple([other.task.key for other in waiting.others]) if waiting.others else (),
                task.decoding if decoded else None,
            )
        )

    def _unasked(self, waiting: Waiting) -> int:
        """Return the last block that is sure to be run next, until another event."""
        policy = self._policy
        limited = any(each.latest_s < inf for each in waiting.batch) if waiting.others else waiting.latest_s < inf
        if limited or policy.gossips or waiting.task.model in self._with_exits:
            return waiting.session_end
        if policy.looks_between_blocks and not policy.keeps_order and self._state.queued:
            return waiting.session_end
        return waiting.last_block

    def _take_running(self) -> Waiting:
        waiting, self._running = self._running, None
        if waiting is None:
            raise AssertionError(f"{self.name} runs nothing, and the gate let the end of a block in")
        self._state.running_until_s = self._state.now_s
        return waiting

    def _on_block_ended(self, event: BlockEnded) -> None:
        waiting = self._take_running()
        for service_s in event.before_s:
            self._queues.rescale(self._pace.ran(self._queues.running_s, service_s))
            waiting.service_s += service_s
            waiting.next_block = waiting.session_end + 1
            if waiting.others:
                self._share(waiting, service_s)
            self._queues.begin(waiting)
        self._queues.rescale(self._pace.ran(self._queues.running_s, event.service_s))
        exit_ = self._exit_taken(waiting, event) if event.confidence else None
        if exit_ is not None:
            waiting.last_block = event.block
        waiting.next_block = event.block + 1
        waiting.service_s += event.service_s
        if waiting.others:
            self._share(waiting, event.service_s)
        self._limit_again(waiting)
        if event.block != waiting.last_block and not self._policy.looks_between_blocks:
            self._run(waiting)
            return
        others, waiting.others = waiting.others, ()
        if event.block == waiting.last_block:
            self._end_task(waiting, exit_, event.token)
        else:
            self._come_back(waiting)
        for other in others:
            if event.block == other.last_block:
                self._end_task(other, None)
            else:
                self._come_back(other)

    def _limit_again(self, waiting: Waiting) -> None:
        """Find until when the next block of a task, and of those that run with it, may start."""
        for each in waiting.batch if waiting.others else (waiting,):
            if each.latest_s < inf:
                each.latest_s = self._lateness.latest_s(each.task, each.next_block)

    def _share(self, waiting: Waiting, service_s: float) -> None:
        """Let those that run with a task get on as it did, and divide the time among all."""
        share_s = service_s / len(waiting.batch)
        waiting.service_s += share_s - service_s
        for other in waiting.others:
            other.next_block = waiting.next_block
            other.service_s += share_s

    def _come_back(self, waiting: Waiting) -> None:
        self._queues.come_back(waiting)
        if waiting.latest_s < inf:
            self._added.append(waiting)

    def _end_task(self, waiting: Waiting, exit_: ExitPoint | None, token: int | None = None) -> None:
        self._policy.ran(self._view, waiting)
        task, cut = waiting.task, waiting.next_block
        if exit_ is not None:
            self._go_home(task, cut, exit_.result_bytes, exit_.name)
        elif cut < self._state.costs.length(task.model):
            self._place(task.at(cut, task.stages[1:]))
        else:
            size_bytes = TOKEN_BYTES if task.decoding else self._state.costs.cut_bytes[task.model][-1]
            following = self._next_run(task, token)
            self._go_home(task, cut, size_bytes, None, goes_on=following is not None)
            if following is not None:
                self._place(following)
        self._home.admit()

    def _next_run(self, task: Task, token: int | None) -> Task | None:
        """Return the next run of a sequence if that begins here: its route stands, and all goes well on the way."""
        decoding = task.decoding
        if not task.again or task.sequence is None or decoding is None or decoding.ends(token):
            return None
        if not self._stickiness.stands(task.key.source, task.sequence, task.again):
            return None
        if self._view.broken(self.name, task.again[0].worker) is not None:
            return None
        following = task.next_run(self._state.now_s)
        self._output.effects.append(FeedBack(following.key, task.key, task.model, task.sequence, decoding.after()))
        return following

    def _exit_taken(self, waiting: Waiting, event: BlockEnded) -> ExitPoint | None:
        """Return the exit at which a sample leaves after a block, or None; count only what is still to be computed."""
        self._queues.drop_rest(waiting)
        exit_ = exit_taken(self._state.instance, waiting.task, event.block, event.confidence)
        if exit_ is None:
            self._queues.expect_rest(waiting)
        return exit_

    def _go_home(self, task: Task, cut: int, size_bytes: int, exit_: str | None, *, goes_on: bool = False) -> None:
        origin = Origin(task.model, task.operating_point, exit_)
        home = self._state.instance.home(task.key.source)
        if home == self.name:
            self._home.finish(task.key, origin)
            return
        message = ResultMessage(task.key, cut, origin, task.decoding is not None, goes_on)
        self._output.effects.append(Send(home, message, cut, size_bytes, task.priority))
        self._output.effects.append(Discard(task.key))

    def _on_block_failed(self, event: BlockFailed) -> None:
        waiting = self._take_running()
        task = waiting.task
        while waiting.session_end < event.block:
            waiting.next_block = waiting.session_end + 1
            self._share(waiting, 0.0)
            self._queues.begin(waiting)
        if waiting.others:
            self._run_alone(waiting)
            return
        self._queues.drop_rest(waiting)
        self._report(task, FailureMessage(task.key, f"{self.name}, block {event.block}: {event.reason}"), event.block)

    def _run_alone(self, waiting: Waiting) -> None:
        """Have the tasks of a batch that failed run by themselves."""
        batch, waiting.others = waiting.batch, ()
        for each in batch:
            each.alone = True
            self._queues.expect_again(each)
            self._come_back(each)

    # ---- gossip (rule 9) ------------------------------------------------------------------------------------------

    def _gossip(self) -> None:
        self._gossiped = self._home.starts, self._queues.changes
        status = self._policy.status(self._view)
        if self._state.slowness:
            status = replace(status, slowness=self._pace.own, links=self._pace.links)
        if status == self._told:
            return
        self._told = status
        for worker in self._view.present(self._policy.listeners(self._view)):
            if worker != self.name:
                self._output.effects.append(Tell(worker, StatusMessage(status)))
