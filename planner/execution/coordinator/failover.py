"""Reaction of the coordinator to workers that leave a run, come back to it, or slow down.

A worker that leaves, on its own or by a fault, is removed from the run: the others are informed, and the plan is solved
again for the remaining workers. An agent of its name that connects during the run is claimed, receives the deployment,
and joins the run as soon as it is ready. A source waits for its worker for a time that the deployment sets. A worker
that runs much slower than profiled stays, but the plan is solved again with its current speed.

Plans are solved in the background. Everything else, including the answers, is handled in the coordinator's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import inf
from statistics import median
from typing import Final, Literal

from planner.errors import printable, shortened
from planner.execution.coordinator.awake_clock import AwakeClock, steady_clock_s
from planner.execution.coordinator.deployment import Deployment
from planner.execution.wire.messages import Body, MembershipChange, Replan, Start, WorkerFault
from planner.execution.wire.presence import SETTLED_S
from planner.plan.replan import LiveReplanner, ReplanAnswer, Situation
from planner.plan.types import PlanSpec
from planner.trace.records import Incident
from planner.units import format_number
from planner.worker.pace import Slowed

_MOST_INCIDENTS: Final = 10_000
"""Maximum number of incidents that are kept, since a live run may never end."""

_MOST_CHARACTERS: Final = 2000
"""Length to which the text of an incident is shortened, which another member may have sent."""


class Failover:
    """Tracks which workers are in a run, and what happened to it.

    Parameters
    ----------
    clock
        Measures how long workers are absent.
    ready_timeout_s
        Maximum time in seconds for an agent that has connected to become ready.
    send
        ``send(worker, body)`` sends a message to an agent.
    claim
        Claims the agent of a worker, to which the run is then deployed.
    call
        Runs a function in the coordinator's thread; may be called in any thread.
    on_incident
        Called with each incident that is kept.
    on_replanned
        Called with each plan that replaces the one before.
    """

    def __init__(
        self,
        deployment: Deployment,
        run: str,
        *,
        clock: AwakeClock,
        ready_timeout_s: float,
        send: Callable[[str, Body], None],
        claim: Callable[[str], None],
        call: Callable[[Callable[[], None]], None],
        on_incident: Callable[[Incident], None],
        on_replanned: Callable[[PlanSpec], None],
    ) -> None:
        self._deployment = deployment
        self._workers = deployment.instance.workers
        self._homes = frozenset(map(deployment.instance.home, deployment.instance.sources))
        self._run = run
        self._clock = clock
        self._ready_timeout_s = ready_timeout_s
        self._send = send
        self._claim = claim
        self._call = call
        self._on_incident = on_incident
        self._on_replanned = on_replanned
        self._start_s: float | None = None
        """Time of :func:`steady_clock_s` at which the run's clock reads 0."""
        self._replanner: LiveReplanner | None = None
        self._joining: dict[str, float] = {}
        """Time since which each worker that has connected is awaited."""
        self._away_s: dict[str, float] = {}
        """Time since which each absent worker is awaited."""
        self._given_up: set[str] = set()
        self._shared: Mapping[str, str] = {}
        self._shared_since_s = -inf
        self._told_shared: set[str] = set()
        self._held: set[str] = set()
        """Workers that have connected, and receive the deployment once every worker's name is that of one agent."""
        self._slowed = Slowed(deployment.instance.scenario.policy.pace)
        self._last_slowness: dict[str, float] = {}
        self.absent: set[str] = set()
        """Workers of the scenario that are not in the run."""
        self.left_s: dict[str, float] = {}
        """Time at which each worker last left the run."""
        self.incidents: list[Incident] = []

    @property
    def now_s(self) -> float:
        """Time of the run's clock; 0 before the start."""
        return 0.0 if self._start_s is None else steady_clock_s() - self._start_s

    def begin(self, at_unix_s: float) -> None:
        """Take note of the wall-clock time at which the run's clock reads 0; the wall clock may be set later."""
        self._start_s = steady_clock_s() + (at_unix_s - time.time())

    def open(self) -> None:
        """Start the background solver, which takes a while to become ready."""
        if self._deployment.replan is not None:
            self._replanner = self._deployment.replan(lambda answer: self._call(partial(self._on_answer, answer)))

    def close(self) -> None:
        """Stop the background solver, even while it solves."""
        replanner, self._replanner = self._replanner, None
        if replanner is not None:
            replanner.close()

    def expects(self, worker: str) -> bool:
        """Return whether samples of a worker can still end: it is in the run, joining it, or awaited."""
        return worker not in self.absent or worker in self._joining or self._is_awaited(worker)

    def _is_awaited(self, worker: str) -> bool:
        return self._clock.now_s - self._away_s[worker] < self._deployment.home_timeout_s

    def is_joining(self, worker: str) -> bool:
        """Return whether a worker has connected and is about to join the run."""
        return worker in self._joining

    def overdue(self) -> list[str]:
        """Return the absent homes of sources that are no longer awaited, each once, after noting what is overdue."""
        now_s = self._clock.now_s
        for worker, since_s in list(self._joining.items()):
            if now_s - since_s > self._ready_timeout_s:
                del self._joining[worker]
                self._note(worker, f"is not ready after {self._ready_timeout_s:g} s")
        over = [
            worker
            for worker in self._workers
            if worker in self._homes & self.absent and worker not in self._given_up and not self.expects(worker)
        ]
        self._given_up.update(over)
        for worker in over:
            self._note(
                worker, f"has not come back within {self._deployment.home_timeout_s:g} s; its samples fail", "error"
            )
        return over

    def start_without(self, workers: Collection[str]) -> None:
        """Begin without some workers, with a plan that avoids them."""
        if workers:
            self.absent |= set(workers)
            self.left_s |= dict.fromkeys(workers, 0.0)
            self._away_s |= dict.fromkeys(workers, self._clock.now_s)
            for worker in sorted(workers):
                self._note(worker, "has not connected yet")
            self._replan()

    def on_left(self, worker: str, what: str = "left") -> None:
        """Continue without a worker."""
        self._joining.pop(worker, None)
        self._held.discard(worker)
        if worker not in self._workers or worker in self.absent:
            return
        self.absent.add(worker)
        self.left_s[worker] = self.now_s
        self._away_s[worker] = self._clock.now_s
        self._note(worker, what, "error")
        self._send_all(MembershipChange(run=self._run, worker=worker, present=False))
        self._replan()

    def on_connected(self, worker: str) -> None:
        """Claim an absent worker that has connected, unless several agents have the name of any worker."""
        if worker not in self.absent:
            return
        if self._shared:
            self._held.add(worker)
            return
        if worker not in self._joining:
            self._note(worker, "connected", "info")
        self._joining[worker] = self._clock.now_s
        self._claim(worker)

    def on_refusal(self, worker: str, why: str) -> None:
        """Note why the agent of a worker cannot join the run."""
        self._joining.pop(worker, None)
        self._note(worker, why)

    def on_shared(self, shared: Mapping[str, str]) -> None:
        """Take note of the workers' names that several agents have, with the agents' addresses.

        Messages go to the agent that was there first, and each member has seen the others in its own order. So nobody
        joins the run meanwhile.
        """
        now_s = time.monotonic()
        if not self._shared:
            self._shared_since_s = now_s
        self._shared = shared
        if now_s - self._shared_since_s > SETTLED_S:
            for worker in sorted(shared.keys() - self._told_shared):
                self._note(worker, f"is the name of several agents: {shared[worker]}; the first one runs on")
            self._told_shared |= shared.keys()
        for worker in sorted(self._told_shared - shared.keys()):
            self._note(worker, "is the name of one agent again", "info")
        self._told_shared &= shared.keys()
        if not shared:
            held, self._held = self._held, set()
            for worker in sorted(held):
                self.on_connected(worker)

    def on_ready(self, worker: str) -> None:
        """Let a worker join the run once it has the deployment."""
        if worker not in self._joining or self._start_s is None:
            return
        del self._joining[worker]
        self.absent.discard(worker)
        self._given_up.discard(worker)
        self._note(worker, "joined the run", "info")
        start = Start(run=self._run, at_unix_s=time.time() - self.now_s, joins=True, absent=tuple(sorted(self.absent)))
        self._send(worker, start)
        self._send_all(MembershipChange(run=self._run, worker=worker, present=True))
        self._replan()

    def on_slowness(self, worker: str, slowness: float) -> None:
        """Update how many times slower than profiled a worker runs; a value counts once it is confirmed by the next."""
        if worker not in self._workers:
            return
        known, before = self._slowed.slowness.get(worker, 1.0), self._last_slowness.get(worker, 1.0)
        self._last_slowness[worker] = slowness
        if self._slowed.told(worker, median((known, before, slowness))):
            now = self._slowed.slowness.get(worker)
            if now:
                self._note(worker, f"runs {format_number(now, 2)}x slower than profiled")
            else:
                self._note(worker, "is back to its profiled speed", "info")
            self._replan()

    def on_fault(self, fault: WorkerFault) -> None:
        """Note a fault in this run; continue without the worker if the fault ends its part of it."""
        if fault.run == self._run and fault.dropped:
            self.on_left(fault.worker, fault.what)
        elif fault.run == self._run:
            self._note(fault.worker, fault.what)

    def on_refused(self, sender: str, what: str) -> None:
        """Note that a message was refused."""
        self._note(sender, f"was refused: {what}")

    def on_problem(self, what: str, worker: str = "") -> None:
        """Note a problem, of the coordinator or with a worker, that does not keep the run from going on."""
        self._note(worker, what)

    def _note(self, worker: str, what: str, severity: Literal["info", "warning", "error"] = "warning") -> None:
        if len(self.incidents) < _MOST_INCIDENTS:
            at_s = max(self.now_s, 0.0)  # a plan without an absent worker may be there before the start
            incident = Incident(at_s, worker, printable(shortened(what, _MOST_CHARACTERS)), severity)
            self.incidents.append(incident)
            self._on_incident(incident)

    def _send_all(self, body: MembershipChange | Replan) -> None:
        for worker in self._workers:
            if worker not in self.absent:
                self._send(worker, body)

    @property
    def _situation(self) -> Situation:
        return Situation.of(self.absent, self._slowed.slowness)

    def _replan(self) -> None:
        if self._replanner is not None:
            self._replanner.request(self._situation)

    def _on_answer(self, answer: ReplanAnswer) -> None:
        """Distribute a new plan if it fits the current situation and the run is still on."""
        if self._replanner is None:
            return
        if answer.failure:
            self._note("", f"no new plan: {answer.failure}")
        elif answer.situation != self._situation:
            return
        elif answer.plan is None:
            self._note("", "no new plan: keeping the old one without the routes over absent workers")
        else:
            solved = f"new plan by {answer.plan.method}, solved in {answer.plan.solve_s:.2f} s"
            self._note("", "back to the first plan" if answer.situation.as_planned else solved, "info")
            self._send_all(Replan(run=self._run, plan=answer.plan, slowness=dict(answer.situation.slowness)))
            self._on_replanned(answer.plan)
