"""Re-planning in a separate process, which is stopped, killed, or left without its parent."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from planner.errors import PlannerError
from planner.plan.replan import ReplanAnswer, Situation
from planner.plan.types import PlanSpec
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.replan.apart import solve_apart
from planner.solvers.replan.process import ReplanProcess
from planner.solvers.replan.replanner import Replanner
from planner.solvers.replan.solver_process import SolverProcess, end_spare, spare_process
from planner.solvers.replan.worker import SolveTask
from tests.instances import random_instance

SOON_S = 60.0
"""Enough time even on a busy machine."""


@cache
def case() -> tuple[Instance, PlanSpec]:
    instance = random_instance(0, sources=3, workers=5, blocks=4, load=0.25)
    plan = solve(instance, routes="shared").plan
    assert plan is not None
    return instance, plan


def without(*workers: str) -> Situation:
    return Situation.of(workers, {})


class Client:
    """A replan process and its answers."""

    def __init__(self, patience_s: float = SOON_S) -> None:
        self._answers = queue.SimpleQueue[ReplanAnswer]()
        self.process = ReplanProcess(*case(), self._answers.put, patience_s=patience_s)
        self.request = self.process.request

    def child(self) -> subprocess.Popen[bytes]:
        """Return the present process."""
        until_s = time.monotonic() + SOON_S
        while (child := self.process._child) is None or child.ended:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        return child._process

    def answer(self) -> ReplanAnswer:
        return self._answers.get(timeout=SOON_S)

    def request_and_await_start(self, situation: Situation) -> None:
        """Request a plan, and wait until its search has started, so that no other request replaces it."""
        self.request(situation)
        until_s = time.monotonic() + SOON_S
        while self.process._solving != situation:
            assert time.monotonic() < until_s
            time.sleep(0.001)

    @property
    def silent(self) -> bool:
        return self._answers.empty()


@contextmanager
def connected(patience_s: float = SOON_S) -> Iterator[Client]:
    client = Client(patience_s)
    try:
        yield client
    finally:
        client.process.close()


def await_end(process: SolverProcess) -> None:
    until_s = time.monotonic() + SOON_S
    while not process.ended:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def same_routes(one: PlanSpec | None, other: PlanSpec | None) -> bool:
    assert one is not None
    assert other is not None
    return {name: source.routes for name, source in one.sources.items()} == {
        name: source.routes for name, source in other.sources.items()
    }


def test_its_plans_equal_those_of_the_replanner_in_this_process() -> None:
    instance, plan = case()
    here = Replanner(instance, plan)
    with connected() as client:
        for absent, slowness in ((["w1"], {"w2": 8.0, "w1": 3.0}), ([], {"w0": 20.0}), (instance.workers, {})):
            situation = Situation.of(absent, slowness)
            client.request(situation)
            answer = client.answer()
            assert (answer.situation, answer.failure) == (situation, "")
            expected = here(absent, slowness)
            if expected is None:
                assert answer.plan is None
            else:
                assert answer.plan is not None
                verify(situation.applied(instance), answer.plan)
                assert same_routes(answer.plan, expected)


def test_a_known_situation_is_answered_without_the_process() -> None:
    _, plan = case()
    with connected() as client:
        client.request(without("w1"))
        first = client.answer()
        client.child().send_signal(signal.SIGSTOP)
        client.request(Situation())
        assert client.answer().plan == plan
        client.request(without("w1"))
        assert client.answer() == first


def test_of_a_burst_only_the_last_request_is_solved() -> None:
    with connected() as client:
        client.child().send_signal(signal.SIGSTOP)
        client.request_and_await_start(without("w0"))
        burst = [Situation.of((), {"w1": float(factor)}) for factor in range(8, 18)]
        for situation in burst:
            client.request(situation)
        assert client.silent
        client.child().send_signal(signal.SIGCONT)
        assert [client.answer().situation for _ in range(2)] == [without("w0"), burst[-1]]
        client.request(without("w1"))
        assert client.answer().situation == without("w1")


def test_a_situation_being_solved_is_not_solved_twice() -> None:
    with connected() as client:
        client.child().send_signal(signal.SIGSTOP)
        client.request_and_await_start(without("w0"))
        client.request(without("w1"))
        client.request(without("w0"))
        client.child().send_signal(signal.SIGCONT)
        assert client.answer().situation == without("w0")
        client.request(without("w2"))
        assert client.answer().situation == without("w2")


def test_a_process_that_is_killed_is_a_failure_and_the_next_one_solves() -> None:
    with connected() as client:
        client.child().send_signal(signal.SIGSTOP)
        client.request_and_await_start(without("w1"))
        client.child().kill()
        failed = client.answer()
        assert failed == ReplanAnswer(without("w1"), failure="the solver's process ended (-9)")
        client.request(without("w1"))
        assert client.answer().plan is not None


def test_a_process_that_died_while_idle_costs_no_plan() -> None:
    with connected() as client:
        child = client.child()
        child.kill()
        child.wait(SOON_S)
        client.request(without("w1"))
        assert client.answer().plan is not None


def test_a_process_that_hangs_is_a_failure_and_the_next_one_solves() -> None:
    with connected(patience_s=1.0) as client:
        client.child().send_signal(signal.SIGSTOP)
        client.request(without("w1"))
        assert client.answer().failure == "the solver gave no answer within 6 s"
        client.process._patience_s = SOON_S
        client.request(without("w1"))
        assert client.answer().plan is not None


def test_a_process_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such wheel')")
    monkeypatch.setattr("planner.solvers.replan.solver_process._COMMAND", command)
    end_spare()
    with connected() as client:
        client.request(without("w1"))
        assert client.answer().failure == "the solver's process ended (1): no such wheel"


def test_a_process_that_cannot_be_started_is_a_failure_and_the_next_one_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("planner.solvers.replan.solver_process._COMMAND", ("/nowhere/python",))
        end_spare()
        client = Client()
        client.request(without("w1"))
        assert client.answer().failure == "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/python'"
    client.request(without("w1"))
    assert client.answer().plan is not None
    client.process.close()


def test_a_solver_that_raises_is_a_failure_by_name_and_the_process_stays() -> None:
    with connected() as client:
        client.request(without("w1"))
        client.answer()
        child = client.child()
        client.request(Situation.of((), {"nobody": 8.0}))
        assert client.answer().failure == "KeyError: 'nobody'"
        client.request(without("w2"))
        assert client.answer().plan is not None
        assert client.child() is child


@pytest.mark.parametrize("stopped", [True, False], ids=["hung", "starting"])
def test_closed_during_a_search_it_leaves_nothing(stopped: bool) -> None:  # noqa: FBT001 # a parameter of the test
    client = Client()
    child = client.child()
    if stopped:
        child.send_signal(signal.SIGSTOP)
    client.request_and_await_start(without("w1"))
    client.process.close()
    assert not client.process._thread.is_alive()
    assert child.returncode == -signal.SIGKILL  # set once the process was waited for
    assert client.silent
    assert not any(isinstance(thread, threading.Timer) and not thread.daemon for thread in threading.enumerate())


def test_the_process_of_a_run_is_there_for_the_next_which_has_its_own_task() -> None:
    with connected() as client:
        client.request(without("w1"))
        client.answer()
        first = client.child().pid
    other = random_instance(5, sources=2, workers=5, blocks=4, load=0.2)
    plan = solve(other, routes="shared").plan
    assert plan is not None
    answers = queue.SimpleQueue[ReplanAnswer]()
    process = ReplanProcess(other, plan, answers.put)
    process.request(without("w1"))
    answer = answers.get(timeout=SOON_S)
    assert process._child is not None
    assert process._child.pid == first
    process.close()
    assert same_routes(answer.plan, Replanner(other, plan)(["w1"]))


def test_two_runs_at_once_have_a_process_each_and_one_is_kept() -> None:
    with connected() as one, connected() as other:
        found = {one.child().pid, other.child().pid}
        for client in (one, other):
            client.request(without("w1"))
            assert client.answer().plan is not None
    assert len(found) == 2
    spare = spare_process()
    assert spare is not None
    assert spare.pid in found
    (surplus,) = found - {spare.pid}
    assert not Path(f"/proc/{surplus}").exists()


def test_a_spare_process_that_has_died_is_replaced() -> None:
    with connected() as client:
        client.child()
    spare = spare_process()
    assert spare is not None
    os.kill(spare.pid, signal.SIGKILL)
    await_end(spare)
    with connected() as client:
        client.request(without("w1"))
        assert client.answer().plan is not None


def test_a_spare_process_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from planner.solvers.replan import worker; worker.IDLE_S = 0.1; worker.main()"
    end_spare()
    monkeypatch.setattr("planner.solvers.replan.solver_process._COMMAND", (sys.executable, "-c", code))
    with connected() as client:
        client.request(without("w1"))
        assert client.answer().plan is not None
    spare = spare_process()
    assert spare is not None
    await_end(spare)


def test_a_scenario_is_solved_by_the_spare_process_and_a_fault_comes_as_it_is() -> None:
    instance, plan = case()
    with connected() as client:
        first = client.child().pid
    found = solve_apart(SolveTask(instance=instance, routes="shared", time_limit_s=SOON_S))
    assert same_routes(found.plan, plan)
    with pytest.raises(PlannerError, match="unknown method; found 'magic'"):
        solve_apart(SolveTask(instance=instance, method="magic"))
    spare = spare_process()
    assert spare is not None
    assert spare.pid == first


def test_its_output_and_this_process_do_not_interfere(capfd: pytest.CaptureFixture[str]) -> None:
    before = [os.fstat(descriptor) for descriptor in (0, 1, 2)]
    over, seen = threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            seen.append([os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)] == [one.st_ino for one in before])

    watching = threading.Thread(target=watch)
    watching.start()
    with connected() as client:
        for worker in ("w1", "w2", "w3"):
            client.request(without(worker))
            assert client.answer().plan is not None
    over.set()
    watching.join()
    assert all(seen)
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import sys, time
from planner.errors import PlannerError
from planner.plan.replan import Situation
from tests.solvers.test_solvers_replan_process import Client, without
print("started", flush=True)
client = Client()
client.request(without("w1"))
answer = client.answer()
try:
    print("solved", answer.plan is not None, client.child().pid, flush=True)
    while True:
        client.request(Situation.of((), {"w1": time.time()}))
        time.sleep(0.01)
except KeyboardInterrupt:
    client.process.close()
    print("closed", flush=True)
"""
"""It has no ``__main__`` guard, to show that the process that it starts does not run it again."""


@contextmanager
def script(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the script in a new session; yield its process and the id of its solver process."""
    file = folder / "script.py"
    file.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    with subprocess.Popen(
        [sys.executable, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as parent:  # fmt: skip
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "started\n"
            word, solved, pid = parent.stdout.readline().split()
            assert (word, solved) == ("solved", "True")
            yield parent, int(pid)
        finally:
            parent.kill()


def assert_gone(pid: int) -> None:
    until_s = time.monotonic() + SOON_S
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < until_s
        time.sleep(0.01)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")


@needs_proc
def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with script(tmp_path) as (parent, child):
        parent.kill()
        assert_gone(child)


@needs_proc
def test_it_outlives_ctrl_c_until_its_parent_ends_it(tmp_path: Path) -> None:
    with script(tmp_path) as (parent, child):
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.communicate(timeout=SOON_S) == ("closed\n", "")
        assert parent.returncode == 0
        assert_gone(child)
