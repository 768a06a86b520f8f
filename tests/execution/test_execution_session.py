"""Samples into real agent processes over real Zenoh, futures of their results out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import planner
from planner.api.session import Session
from planner.errors import ExecuteError
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.source import AbsentError, BusyError, SampleError
from planner.execution.wire.messages import Load
from planner.execution.wire.zenoh import free_port
from planner.runtime.session import BlockSession
from tests.execution.case import ROWS, WIDTH, write_case
from tests.execution.processes import agents, cmdline
from tests.execution.raw import agent_process

LIMIT = 3


class Loads(Observer):
    def __init__(self) -> None:
        self.workers: set[str] = set()
        self.both = threading.Event()

    def on_load(self, load: Load) -> None:
        self.workers.add(load.worker)
        if self.workers == {"a", "b"}:
            self.both.set()


LOADS = Loads()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def session(plan: Path) -> Iterator[Session]:
    with planner.Session(plan, limit=LIMIT, observer=LOADS) as opened:
        yield opened


def inputs(seed: int, pick: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32), "pick": np.array([pick])}


def test_each_result_is_that_of_its_sample(session: Session, plan: Path) -> None:
    whole = BlockSession(plan.parent / "small.onnx")
    sources = [session.source(name) for name in ("urgent", "other")]
    futures = [
        (seed, sources[seed % 2].submit(inputs(seed, pick=seed % ROWS))) for seed in range(40)
    ]  # blocks at the limit, so all of them at once would not fit
    for seed, future in futures:
        sample = inputs(seed, pick=seed % ROWS)
        expected = whole.run({"x": sample["x"][None], "pick": sample["pick"]})
        result = future.result(30.0)
        assert (result.source, result.sample) == (sources[seed % 2].name, seed // 2)
        assert result.delay_s > 0
        np.testing.assert_allclose(result.outputs["y"], expected["y"], rtol=1e-4, atol=1e-6)


def test_arrays_in_another_byte_order_give_the_same_bits(session: Session) -> None:
    source, sample = session.source("urgent"), inputs(7, pick=3)
    swapped = {name: array.astype(array.dtype.newbyteorder("S")) for name, array in sample.items()}
    plain, other = (source.submit(arrays).result(30.0).outputs["y"] for arrays in (sample, swapped))
    assert plain.tobytes() == other.tobytes()


def test_a_sample_that_does_not_fit_is_refused_before_it_is_sent(session: Session) -> None:
    source = session.source("urgent")
    with pytest.raises(ExecuteError, match=r"urgent, input x: wrong shape; found \[3\]; expected \[1, 32\]"):
        source.submit({"x": np.zeros(3, np.float32), "pick": np.array([0])})
    with pytest.raises(ExecuteError, match="urgent, input pick: input is missing"):
        source.submit({"x": np.zeros(WIDTH, np.float32)})
    with pytest.raises(ExecuteError, match="no such source; found 'gate'; expected one of urgent, other"):
        session.source("gate")
    assert source.submit(inputs(1)).result(30.0).outputs["y"].shape == (1, WIDTH)


def test_a_block_that_raises_fails_its_sample_by_name_and_no_other(session: Session) -> None:
    source = session.source("other")
    bad, good = source.submit(inputs(1, pick=ROWS)), source.submit(inputs(1))
    with pytest.raises(SampleError, match=r"other, sample \d+: the sample failed: b, block 2: .*") as failed:
        bad.result(30.0)
    assert (failed.value.source, failed.value.sample) == ("other", good.result(30.0).sample - 1)


def test_no_more_samples_than_the_limit_are_on_their_way(session: Session) -> None:
    source, gate = session.source("urgent"), threading.Event()
    first = source.submit(inputs(0))
    first.add_done_callback(lambda _: gate.wait(30.0))  # no other result is taken until the gate opens
    first.result(30.0)
    held = [source.submit(inputs(seed)) for seed in range(LIMIT)]
    try:
        with pytest.raises(BusyError, match="urgent: too many in-flight samples; expected at most 3"):
            source.submit(inputs(9), block=False)
        with pytest.raises(BusyError):
            source.submit(inputs(9), timeout_s=0.05)
    finally:
        gate.set()
    assert [future.result(30.0).sample for future in held] == sorted(future.result().sample for future in held)
    assert source.submit(inputs(9)).result(30.0).sample == held[-1].result().sample + 1


def test_a_sample_may_have_the_priority_of_another_source_and_no_other(session: Session) -> None:
    source = session.source("other")
    assert source.submit(inputs(3), priority=8.0).result(30.0).outputs["y"].shape == (1, WIDTH)
    with pytest.raises(ExecuteError, match=r"other: no source has this priority; found 5\.0; expected one of 1, 8"):
        source.submit(inputs(3), priority=5.0)


def test_a_sample_whose_time_is_up_is_dropped_and_the_next_one_is_not(session: Session) -> None:
    source = session.source("other")
    late = source.submit(inputs(4), within_s=1e-6)
    with pytest.raises(SampleError, match="is up") as dropped:
        late.result(30.0)
    assert dropped.value.dropped
    assert source.submit(inputs(4), within_s=30.0).result(30.0).sample == dropped.value.sample + 1


def test_workers_tell_how_busy_they_are(session: Session) -> None:
    assert session.source("urgent").submit(inputs(0)).result(30.0)
    assert LOADS.both.wait(30.0)


def test_an_input_may_not_be_given_without_a_limit(plan: Path) -> None:
    with pytest.raises(ExecuteError, match="limit: too few in-flight samples; found 0"):
        Session(plan, limit=0)


def test_samples_of_a_source_whose_worker_dies_fail_and_no_more_are_taken(plan: Path) -> None:
    earlier = agents()
    with Session(plan, home_timeout_s=0.5) as session:
        source = session.source("urgent")
        source.submit(inputs(0)).result(30.0)
        home, other = sorted(agents() - earlier, key=cmdline)
        os.kill(other, signal.SIGSTOP)  # so that the next sample cannot be done before its home dies
        stuck = source.submit(inputs(1))
        os.kill(home, signal.SIGKILL)
        with pytest.raises(SampleError, match="urgent, sample 1: the sample failed: a left"):
            stuck.result(30.0)
        os.kill(other, signal.SIGCONT)
        with pytest.raises(AbsentError, match="urgent: the worker of the source is absent; found 'a'"):
            source.submit(inputs(2))
    errors = []
    for _ in range(2):
        with pytest.raises(ExecuteError, match="the session is closed") as refused:
            source.submit(inputs(3))
        errors.append(refused.value)
    assert errors[0] is not errors[1]  # a shared one would collect the tracebacks of all callers


def test_samples_wait_for_a_worker_that_comes_later_and_fail_when_it_does_not(plan: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("--cache", str(tmp_path))
    with agent_process("b", "--listen", address, *options):
        with Session(plan, connect=[address], later=["a"], limit=LIMIT) as session:
            source = session.source("urgent")
            waiting = [source.submit(inputs(seed), block=False) for seed in range(LIMIT)]
            with pytest.raises(BusyError):
                source.submit(inputs(0), block=False)
            with agent_process("a", "--connect", address, *options):
                assert [future.result(60.0).sample for future in waiting] == list(range(LIMIT))
        with Session(plan, connect=[address], later=["a"], limit=LIMIT) as session:
            source = session.source("urgent")
            short, long = source.submit(inputs(0), within_s=0.01), source.submit(inputs(1), within_s=600.0)
            with agent_process("a", "--connect", address, *options):
                with pytest.raises(SampleError, match="its time was up before a was back"):
                    short.result(60.0)
                assert long.result(60.0).sample == 1
        with Session(plan, connect=[address], later=["a"], home_timeout_s=0.1) as session:
            never = session.source("urgent").submit(inputs(0))
            with pytest.raises(SampleError, match=r"a left, and did not come back within 0\.1 s"):
                never.result(30.0)


def test_an_array_in_place_of_a_dictionary_says_what_is_meant(session: Session) -> None:
    array = np.zeros((1, WIDTH), np.float32)
    with pytest.raises(
        ExecuteError, match=r"urgent: not the inputs by name; found 'an array of float32'; expected .*x"
    ):
        session.source("urgent").submit(array)  # type: ignore[arg-type]


def test_samples_outside_with_are_refused_in_words(plan: Path) -> None:
    session = Session(plan)
    with pytest.raises(ExecuteError, match="the session is not open; expected `with` around its use"):
        session.source("urgent").submit(inputs(0))


LEFT_OPEN = """
import sys, numpy as np, planner
if __name__ == "__main__":
    session = planner.Session(sys.argv[1])
    session.__enter__()
    inputs = {"x": np.zeros(32, np.float32), "pick": np.array([0])}
    print(session.source("urgent").submit(inputs).result(60.0).sample, flush=True)
    if len(sys.argv) > 2:
        raise SystemExit(3)
"""


@pytest.mark.parametrize(("words", "code"), [((), 0), (("exit",), 3)])
def test_a_session_that_is_not_left_does_not_keep_the_program(plan: Path, words: tuple[str, ...], code: int) -> None:
    command = [sys.executable, "-c", LEFT_OPEN, str(plan), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (code, "0\n"), ended.stderr
