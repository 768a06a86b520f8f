"""What solves again beside a run: its plans are followed, its failures are told, and it ends with the run."""

from __future__ import annotations

import dataclasses
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planner.errors import ExecuteError
from planner.execution.coordinator.awake_clock import AwakeClock
from planner.execution.coordinator.failover import Failover
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Body, Replan
from planner.plan.replan import ReplanAnswer, Situation, TakeAnswer
from planner.plan.types import PlanSpec
from planner.solvers.replan.process import ReplanProcess
from tests.execution.fleet import After, assert_accounted, deployment_for, fleet, said
from tests.execution.rig import SPLIT, small_instance

SOON_S = 60.0
INSTANCE = small_instance(samples=40, rate_per_s=30.0)


class Solver:
    """Makes what solves again, and holds its process."""

    def __init__(self) -> None:
        self.answered = queue.SimpleQueue[ReplanAnswer]()
        self._made: list[ReplanProcess] = []

    def start(self, take: TakeAnswer) -> ReplanProcess:
        def both(answer: ReplanAnswer) -> None:
            take(answer)
            self.answered.put(answer)

        self._made.append(ReplanProcess(INSTANCE, SPLIT, both))
        return self._made[-1]

    def child(self) -> subprocess.Popen[bytes]:
        until_s = time.monotonic() + SOON_S
        while (child := self._made[-1]._child) is None or child.ended:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        return child._process

    def solving(self, situation: Situation) -> None:
        """Wait until a situation is being solved, and nothing else can take its place."""
        until_s = time.monotonic() + SOON_S
        while self._made[-1]._solving != situation:
            assert time.monotonic() < until_s
            time.sleep(0.001)

    def closed(self) -> bool:
        return all(process._child is None for process in self._made)


class Table:
    """A coordinator's thread, of which this test's does the work."""

    def __init__(self, solver: Solver) -> None:
        self.sent: list[tuple[str, Body]] = []
        self.told: list[PlanSpec] = []
        self._calls = queue.SimpleQueue[Callable[[], None]]()
        deployment = dataclasses.replace(deployment_for(INSTANCE), replan=solver.start)
        self.failover = Failover(
            deployment, "run", clock=AwakeClock(), ready_timeout_s=SOON_S,
            send=lambda worker, body: self.sent.append((worker, body)), claim=lambda _worker: None,
            call=self._calls.put, on_incident=lambda _incident: None, on_replanned=self.told.append,
        )  # fmt: skip
        self.failover.open()

    def attend(self) -> None:
        self._calls.get(timeout=SOON_S)()

    @property
    def plans(self) -> list[str]:
        """To whom a plan went."""
        return [worker for worker, body in self.sent if isinstance(body, Replan)]

    @property
    def said(self) -> list[str]:
        return [incident.what for incident in self.failover.incidents if not incident.worker]


@pytest.fixture
def solver() -> Iterator[Solver]:
    found = Solver()
    yield found
    assert found.closed()
    assert not [thread for thread in threading.enumerate() if thread.name == "replan"]


@pytest.fixture
def table(solver: Solver) -> Iterator[Table]:
    found = Table(solver)
    yield found
    found.failover.close()


def test_a_plan_for_what_is_the_case_no_more_is_dropped(solver: Solver, table: Table) -> None:
    solver.child().send_signal(signal.SIGSTOP)
    table.failover.on_left("b")
    solver.solving(Situation.of({"b"}, {}))
    table.failover.on_left("c")
    solver.child().send_signal(signal.SIGCONT)
    table.attend()
    assert (table.plans, table.said) == ([], [])
    table.attend()
    assert table.plans == ["a"]
    assert [plan.method for plan in table.told] == ["colgen"]
    assert [what.partition(",")[0] for what in table.said] == ["new plan by colgen"]


def test_nothing_is_followed_once_the_run_is_over(solver: Solver, table: Table) -> None:
    table.failover.on_left("b")
    solver.answered.get(timeout=SOON_S)
    table.failover.close()
    table.attend()
    assert (table.plans, table.said) == ([], [])


def test_the_first_plan_is_there_again_without_a_search(solver: Solver, table: Table) -> None:
    table.failover.begin(time.time())
    solver.child().send_signal(signal.SIGSTOP)
    table.failover.on_left("b")
    solver.solving(Situation.of({"b"}, {}))
    table.failover.on_connected("b")
    table.failover.on_ready("b")
    solver.child().kill()
    table.attend()
    table.attend()
    assert table.said == ["no new plan: the solver's process ended (-9)", "back to the first plan"]
    assert [body.plan for _, body in table.sent if isinstance(body, Replan)] == [SPLIT] * 3


def test_a_solver_that_is_killed_is_an_incident_and_the_run_goes_on(solver: Solver, tmp_path: Path) -> None:
    class Watch(After):
        def on_left(self, worker: str) -> None:
            solver.solving(Situation.of({worker}, {}))
            solver.child().kill()
            solver.answered.get(timeout=SOON_S)

    deployment = dataclasses.replace(deployment_for(INSTANCE), replan=solver.start)
    with fleet(tmp_path, *INSTANCE.workers) as (agents, coordinator):
        hold = (1, lambda: solver.child().send_signal(signal.SIGSTOP))
        watch = Watch(hold, (15, lambda: agents.kill("c")))
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=watch)
    assert assert_accounted(INSTANCE, measured) == {}
    assert said(measured) == [("c", "left"), ("", "no new plan: the solver's process ended (-9)")]


def test_a_run_that_ends_while_its_plan_is_solved_does_not_wait(solver: Solver, tmp_path: Path) -> None:
    deployment = dataclasses.replace(deployment_for(INSTANCE), replan=solver.start)
    with fleet(tmp_path, *INSTANCE.workers) as (agents, coordinator):
        hold = (1, lambda: solver.child().send_signal(signal.SIGSTOP))  # for ever
        measured = coordinator.run(
            deployment, ready_timeout_s=30.0, observer=After(hold, (15, lambda: agents.kill("c")))
        )
    assert assert_accounted(INSTANCE, measured) == {}
    assert said(measured) == [("c", "left")]


def test_a_run_that_fails_leaves_no_solver(solver: Solver, tmp_path: Path) -> None:
    class Fails(Observer):
        def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    deployment = dataclasses.replace(deployment_for(INSTANCE), replan=solver.start)
    with fleet(tmp_path, *INSTANCE.workers) as (_, coordinator):
        with pytest.raises(KeyboardInterrupt):
            coordinator.run(deployment, ready_timeout_s=30.0, observer=Fails())
        assert solver.closed()
        with pytest.raises(ExecuteError, match="not ready within 0 s"):
            coordinator.run(deployment, ready_timeout_s=0.0)
        assert solver.closed()
