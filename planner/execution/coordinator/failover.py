"""What the coordinator does when workers leave a run that is on, when they come back to it, and when they become slow.

A worker that leaves, by itself or by a fault, is out of the run: the others are told, and the plan is solved again for
those that are left. An agent of its name that comes while the run is on gets the deployment, and is in the run as soon
as it is ready. A worker that takes far longer than by its profile stays, but the plan is solved again with the speed it
has now.

Plans are solved beside the run. All else happens in the coordinator's thread, in which answers are taken, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from statistics import median
from typing import Final

from planner.execution.coordinator.deployment import Deployment
from planner.execution.wire.messages import Body, MembershipChange, Replan, Start, WorkerFault
from planner.plan.replan import LiveReplanner, ReplanAnswer, Situation
from planner.trace.records import Incident
from planner.worker.pace import Slowed

_MOST_INCIDENTS: Final = 10_000
"""A live run may last for ever."""


class Failover:
    """Who is in a run, and what happened to it.

    Parameters
    ----------
    send
        ``send(worker, body)``: sends a message to an agent.
    deploy
        Deploys the run to one worker.
    call
        Has something done in the coordinator's thread; it is called in others.
    """

    def __init__(
        self,
        deployment: Deployment,
        run: str,
        *,
        send: Callable[[str, Body], None],
        deploy: Callable[[str], None],
        call: Callable[[Callable[[], None]], None],
    ) -> None:
        self._deployment = deployment
        self._workers = deployment.instance.workers
        self._run = run
        self._send = send
        self._deploy = deploy
        self._call = call
        self.start_unix_s: float | None = None
        """Time of the wall clock at which the run's clock reads 0."""
        self._replanner: LiveReplanner | None = None
        self._joining: set[str] = set()
        self._slowed = Slowed(deployment.instance.scenario.policy.pace)
        self._paces: dict[str, float] = {}
        self.out: set[str] = set()
        """Workers of the scenario that are not in the run."""
        self.left_s: dict[str, float] = {}
        """When each worker left the run last."""
        self.incidents: list[Incident] = []

    @property
    def now_s(self) -> float:
        """Time of the run's clock; 0 before the start."""
        return 0.0 if self.start_unix_s is None else time.time() - self.start_unix_s

    def open(self) -> None:
        """Begin: what solves again takes a while until it can."""
        if self._deployment.replan is not None:
            self._replanner = self._deployment.replan(lambda answer: self._call(partial(self._take, answer)))

    def close(self) -> None:
        """End, whatever is being solved."""
        replanner, self._replanner = self._replanner, None
        if replanner is not None:
            replanner.close()

    def awaits(self, worker: str) -> bool:
        """Tell whether samples of a worker can still end: it is in the run, or about to be."""
        return worker not in self.out or worker in self._joining

    def do_without(self, workers: Collection[str]) -> None:
        """Begin without some workers, by a plan without them."""
        if workers:
            self.out |= set(workers)
            self.left_s |= dict.fromkeys(workers, 0.0)
            for worker in sorted(workers):
                self._note(worker, "is not there yet")
            self._replan()

    def left(self, worker: str, what: str = "left") -> None:
        """Go on without a worker."""
        self._joining.discard(worker)
        if worker not in self._workers or worker in self.out:
            return
        self.out.add(worker)
        self.left_s[worker] = self.now_s
        self._note(worker, what)
        self._tell(MembershipChange(run=self._run, worker=worker, present=False))
        self._replan()

    def came(self, worker: str) -> None:
        """Deploy the run to a worker that is there again."""
        if worker in self.out:
            self._joining.add(worker)
            self._note(worker, "is there")
            self._deploy(worker)

    def ready(self, worker: str) -> None:
        """Let a worker join the run."""
        if worker not in self._joining or self.start_unix_s is None:
            return
        self._joining.discard(worker)
        self.out.discard(worker)
        self._note(worker, "joined the run")
        self._send(worker, Start(at_unix_s=self.start_unix_s, joins=True, absent=tuple(sorted(self.out))))
        self._tell(MembershipChange(run=self._run, worker=worker, present=True))
        self._replan()

    def paced(self, worker: str, slowness: float) -> None:
        """Learn how many times longer than by its profile a worker takes; what it says twice counts."""
        if worker not in self._workers:
            return
        known, before = self._slowed.slowness.get(worker, 1.0), self._paces.get(worker, 1.0)
        self._paces[worker] = slowness
        if self._slowed.told(worker, median((known, before, slowness))):
            now = self._slowed.slowness.get(worker)
            self._note(
                worker,
                f"takes {now:.2g} times as long as by its profile" if now else "is planned for as by its profile again",
            )
            self._replan()

    def fault(self, fault: WorkerFault) -> None:
        """Take down what an agent reports; go on without it if it cannot go on."""
        if fault.run == self._run:
            self.left(fault.worker, fault.what)
        else:
            self._note(fault.worker, fault.what)

    def refused(self, sender: str, what: str) -> None:
        """Take down that something of a member was not taken."""
        self._note(sender, f"was refused: {what}")

    def _note(self, worker: str, what: str) -> None:
        if len(self.incidents) < _MOST_INCIDENTS:
            self.incidents.append(Incident(self.now_s, worker, what))

    def _tell(self, body: MembershipChange | Replan) -> None:
        for worker in self._workers:
            if worker not in self.out:
                self._send(worker, body)

    @property
    def _situation(self) -> Situation:
        return Situation.of(self.out, self._slowed.slowness)

    def _replan(self) -> None:
        if self._replanner is not None:
            self._replanner.request(self._situation)

    def _take(self, answer: ReplanAnswer) -> None:
        """Follow a new plan, if it is for what is the case now and the run is still on."""
        if self._replanner is None:
            return
        if answer.failure:
            self._note("", f"no new plan: {answer.failure}")
        elif answer.situation != self._situation:
            return
        elif answer.plan is None:
            self._note("", "no new plan: the old one without the routes over those that left")
        else:
            found = f"a new plan by {answer.plan.method}, found in {answer.plan.solve_s:.2f} s"
            self._note("", "the first plan again" if answer.situation.as_planned else found)
            self._tell(Replan(run=self._run, plan=answer.plan))
