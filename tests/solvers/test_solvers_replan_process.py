"""Plans that are solved again in a process of its own, which is stopped, killed and left alone."""

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

from planner.plan.replan import ReplanAnswer, Situation
from planner.plan.types import PlanSpec
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.replan.process import ReplanProcess
from planner.solvers.replan.replanner import Replanner
from tests.instances import random_instance

SOON_S = 60.0
"""What a busy machine may take."""


@cache
def case() -> tuple[Instance, PlanSpec]:
    instance = random_instance(0, sources=3, workers=5, blocks=4, load=0.25)
    plan = solve(instance, routes="shared").plan
    assert plan is not None
    return instance, plan


def without(*workers: str) -> Situation:
    return Situation.of(workers, {})


class Asked:
    """A process that solves again, and its answers."""

    def __init__(self, patience_s: float = SOON_S) -> None:
        self._answers = queue.SimpleQueue[ReplanAnswer]()
        self.process = ReplanProcess(*case(), self._answers.put, patience_s=patience_s)
        self.request = self.process.request

    def child(self) -> subprocess.Popen[bytes]:
        """Give the process that is there now."""
        until_s = time.monotonic() + SOON_S
        while (child := self.process._child) is None or child.ended:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        return child._process

    def answer(self) -> ReplanAnswer:
        return self._answers.get(timeout=SOON_S)

    def begun(self, situation: Situation) -> None:
        """Ask for a plan, and wait until nothing else would be in its place any more."""
        self.request(situation)
        until_s = time.monotonic() + SOON_S
        while self.process._solving != situation:
            assert time.monotonic() < until_s
            time.sleep(0.001)

    @property
    def silent(self) -> bool:
        return self._answers.empty()


@contextmanager
def asked(patience_s: float = SOON_S) -> Iterator[Asked]:
    found = Asked(patience_s)
    try:
        yield found
    finally:
        found.process.close()


def same_routes(one: PlanSpec | None, other: PlanSpec | None) -> bool:
    assert one is not None
    assert other is not None
    return {name: own.routes for name, own in one.sources.items()} == {
        name: own.routes for name, own in other.sources.items()
    }


def test_it_finds_what_is_found_in_this_process() -> None:
    instance, plan = case()
    here = Replanner(instance, plan)
    with asked() as there:
        for absent, slowness in ((["w1"], {"w2": 8.0, "w1": 3.0}), ([], {"w0": 20.0}), (instance.workers, {})):
            situation = Situation.of(absent, slowness)
            there.request(situation)
            answer = there.answer()
            assert (answer.situation, answer.failure) == (situation, "")
            expected = here(absent, slowness)
            if expected is None:
                assert answer.plan is None
            else:
                assert answer.plan is not None
                verify(situation.applied(instance), answer.plan)
                assert same_routes(answer.plan, expected)


def test_what_was_found_before_is_not_solved_again_and_needs_no_process() -> None:
    _, plan = case()
    with asked() as there:
        there.request(without("w1"))
        first = there.answer()
        there.child().send_signal(signal.SIGSTOP)
        there.request(Situation())
        assert there.answer().plan == plan
        there.request(without("w1"))
        assert there.answer() == first


def test_a_burst_leaves_the_last_waiting_alone() -> None:
    with asked() as there:
        there.child().send_signal(signal.SIGSTOP)
        there.begun(without("w0"))
        burst = [Situation.of((), {"w1": float(factor)}) for factor in range(8, 18)]
        for situation in burst:
            there.request(situation)
        assert there.silent
        there.child().send_signal(signal.SIGCONT)
        assert [there.answer().situation for _ in range(2)] == [without("w0"), burst[-1]]
        there.request(without("w1"))
        assert there.answer().situation == without("w1")


def test_what_is_being_solved_is_not_asked_for_twice() -> None:
    with asked() as there:
        there.child().send_signal(signal.SIGSTOP)
        there.begun(without("w0"))
        there.request(without("w1"))
        there.request(without("w0"))
        there.child().send_signal(signal.SIGCONT)
        assert there.answer().situation == without("w0")
        there.request(without("w2"))
        assert there.answer().situation == without("w2")


def test_a_process_that_is_killed_is_a_failure_and_the_next_one_solves() -> None:
    with asked() as there:
        there.child().send_signal(signal.SIGSTOP)
        there.begun(without("w1"))
        there.child().kill()
        failed = there.answer()
        assert failed == ReplanAnswer(without("w1"), failure="the solver's process ended (-9)")
        there.request(without("w1"))
        assert there.answer().plan is not None


def test_a_process_that_died_while_idle_costs_no_plan() -> None:
    with asked() as there:
        child = there.child()
        child.kill()
        child.wait(SOON_S)
        there.request(without("w1"))
        assert there.answer().plan is not None


def test_a_process_that_hangs_is_a_failure_and_the_next_one_solves() -> None:
    with asked(patience_s=1.0) as there:
        there.child().send_signal(signal.SIGSTOP)
        there.request(without("w1"))
        assert there.answer().failure == "the solver gave no answer within 6 s"
        there.process._patience_s = SOON_S
        there.request(without("w1"))
        assert there.answer().plan is not None


def test_a_process_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no such wheel')")
    monkeypatch.setattr("planner.solvers.replan.process._COMMAND", command)
    with asked() as there:
        there.request(without("w1"))
        assert there.answer().failure == "the solver's process ended (1): no such wheel"


def test_a_process_that_cannot_be_started_is_a_failure_and_the_next_one_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("planner.solvers.replan.process._COMMAND", ("/nowhere/python",))
        there = Asked()
        there.request(without("w1"))
        assert there.answer().failure == "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/python'"
    there.request(without("w1"))
    assert there.answer().plan is not None
    there.process.close()


def test_a_solver_that_raises_is_a_failure_by_name_and_the_process_stays() -> None:
    with asked() as there:
        there.request(without("w1"))
        there.answer()
        child = there.child()
        there.request(Situation.of((), {"nobody": 8.0}))
        assert there.answer().failure == "KeyError: 'nobody'"
        there.request(without("w2"))
        assert there.answer().plan is not None
        assert there.child() is child


@pytest.mark.parametrize("stopped", [True, False], ids=["hung", "beginning"])
def test_closed_while_it_is_asked_it_leaves_nothing(stopped: bool) -> None:  # noqa: FBT001 # a parameter of the test
    there = Asked()
    child = there.child()
    if stopped:
        child.send_signal(signal.SIGSTOP)
    there.begun(without("w1"))
    there.process.close()
    assert not there.process._thread.is_alive()
    assert child.returncode == -signal.SIGKILL  # which it has once it is no zombie
    assert there.silent
    assert not any(isinstance(thread, threading.Timer) and not thread.daemon for thread in threading.enumerate())


def test_what_it_prints_and_where_this_process_prints_stay_apart(capfd: pytest.CaptureFixture[str]) -> None:
    before = [os.fstat(descriptor) for descriptor in (0, 1, 2)]
    over, seen = threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            seen.append([os.fstat(descriptor).st_ino for descriptor in (0, 1, 2)] == [one.st_ino for one in before])

    watching = threading.Thread(target=watch)
    watching.start()
    with asked() as there:
        for worker in ("w1", "w2", "w3"):
            there.request(without(worker))
            assert there.answer().plan is not None
    over.set()
    watching.join()
    assert all(seen)
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import sys, time
from planner.plan.replan import Situation
from tests.solvers.test_solvers_replan_process import Asked, without
print("begins", flush=True)
there = Asked()
there.request(without("w1"))
found = there.answer()
print("solved", found.plan is not None, there.child().pid, flush=True)
try:
    while True:
        there.request(Situation.of((), {"w1": time.time()}))
        time.sleep(0.01)
except KeyboardInterrupt:
    there.process.close()
    print("closed", flush=True)
"""
"""Without a guard: it must not be run again by the process that it starts."""


@contextmanager
def script(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run it in a session of its own; give it, and the process that solves for it."""
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
            assert parent.stdout.readline() == "begins\n"
            said, solved, pid = parent.stdout.readline().split()
            assert (said, solved) == ("solved", "True")
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
