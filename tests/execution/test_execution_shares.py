"""Coordinators that share agents: who is let in, whose block is next, and runs side by side over Zenoh."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.errors import ExecuteError, UsageError
from planner.execution.agent.hold import Holds
from planner.execution.agent.turns import Turns
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.claims import TakenOverError
from planner.execution.wire.diagnostics import Ask, Holder
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import COORDINATOR, Claim, Claimed, Held, Taken
from planner.execution.wire.zenoh import free_port
from planner.trace.records import SampleRecord
from tests.cli.command import planner as planner_command
from tests.examples import examples
from tests.execution.case import WIDTH, write_case
from tests.execution.coordinators import another, coordinator_at, inquirer
from tests.execution.fleet import assert_accounted
from tests.execution.processes import Processes
from tests.execution.raw import agent_process
from tests.execution.rig import small_deployment, small_instance, small_plan

# ---- whose block is next ---------------------------------------------------------------------------------------------


@examples(20, nightly=200)
@given(
    st.lists(st.tuples(st.floats(0.05, 1.0), st.floats(0.001, 0.1)), min_size=2, max_size=4),
    st.integers(0, 3),
)
def test_coordinators_with_work_get_time_in_proportion_to_their_shares(
    runs: list[tuple[float, float]], idle_at_first: int
) -> None:
    now_s = 0.0
    turns = Turns(lambda: now_s)
    served_s = dict.fromkeys(range(len(runs)), 0.0)
    begun = threading.Barrier(len(runs) + 1)

    def work(number: int, share: float, block_s: float) -> None:
        nonlocal now_s
        turn = turns.turn(str(number), share)
        begun.wait()
        turn.take()
        while now_s < 30.0:
            now_s += block_s
            served_s[number] += block_s
            turn.renew()
        turn.end()

    first = turns.turn("first", 1.0)
    first.take()  # until all others wait
    threads = [threading.Thread(target=work, args=(number, *run)) for number, run in enumerate(runs)]
    for thread in threads:
        thread.start()
    begun.wait()
    while len(turns._waiting) < len(runs):
        time.sleep(1e-4)
    now_s += 0.01 * idle_at_first  # what another one used before counts for nobody
    first.end()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads)
    # Equation 14 of the paper: the normalised services of two flows differ by a block of each at most.
    for one, (share, block_s) in enumerate(runs):
        for other, (share_2, block_2_s) in enumerate(runs):
            difference_s = served_s[one] / share - served_s[other] / share_2
            assert difference_s <= 2 * (block_s / share + block_2_s / share_2) + 1e-9


def test_a_coordinator_that_was_idle_neither_saves_up_time_nor_pays_for_it() -> None:
    now_s = 0.0
    turns = Turns(lambda: now_s)
    one, other = turns.turn("one", 0.5), turns.turn("other", 0.5)
    order = []
    one.take()
    for _ in range(100):  # alone
        now_s += 1.0
        one.renew()
    waiting = threading.Thread(target=other.take)
    waiting.start()
    while not turns._waiting:
        time.sleep(1e-4)
    for _ in range(6):
        now_s += 1.0
        if turns._running is one:
            order.append("one")
            again = threading.Thread(target=one.renew)
        else:
            order.append("other")
            again = threading.Thread(target=other.renew)
        before = turns._running
        again.start()
        while turns._running is before:
            time.sleep(1e-4)
    assert order == ["one", "other"] * 3
    (one if turns._running is one else other).end()


# ---- who is let in ---------------------------------------------------------------------------------------------------

ORIGINS = {name: Frame(Ask(), sender=COORDINATOR, process=name).origin for name in ("p", "q", "r", "s")}
CLAIMS = st.tuples(
    st.sampled_from(list(ORIGINS)),
    st.none() | st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0]),
    st.booleans(),
)


@given(st.lists(CLAIMS | st.sampled_from(list(ORIGINS)), max_size=30))
def test_an_agent_is_held_alone_or_in_shares_of_no_more_than_the_whole(
    steps: list[tuple[str, float | None, bool] | str],
) -> None:
    sent: list[tuple[str, Frame]] = []
    holds = Holds("a", lambda to, frame: sent.append((to, frame)), set(ORIGINS.values()))
    for step in steps:
        before, sent[:] = holds.by, []
        if isinstance(step, str):
            holds.release(ORIGINS[step])
            assert holds.by == tuple(by for by in before if by != ORIGINS[step])
            continue
        member, share, take_over = step
        claim = Claim(run="r", holder=Holder(host=member, process=1, command="c"), share=share, take_over=take_over)
        frame = Frame(claim, sender=COORDINATOR, process=member)
        origin = ORIGINS[member]
        if holds.refuses(claim, frame):
            assert not take_over
            (to, answer), *_ = sent
            assert to == origin
            assert isinstance(answer.body, Held)
            assert holds.by == before
        else:
            holds.grant(claim, frame)
            told = [to for to, each in sent if isinstance(each.body, Taken)]
            assert [to for to, each in sent if isinstance(each.body, Claimed)] == [origin]
            assert set(holds.by) == {*before, origin} - set(told)
            assert take_over or not told
        described = holds.describe()
        assert sum(holding.share or 1.0 for holding in described) <= 1 + 1e-6 or len(described) == 1
        assert len(described) <= 1 or all(holding.share is not None for holding in described)


# ---- side by side ----------------------------------------------------------------------------------------------------

INSTANCE = small_instance(samples=120).with_sources({
    name: {"arrivals": "batch", "in_flight": 8} for name in ("urgent", "other")
})  # fmt: skip
AT_HOME = small_plan([("a", 0, 2)])


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    found = Processes(INSTANCE.workers, tmp_path_factory.mktemp("blocks"))
    try:
        yield found
    finally:
        found.close()


class Ends(Observer):
    """Counts the ends of samples."""

    def __init__(self, under_way: int = 1) -> None:
        self.count = 0
        self.under_way = threading.Event()
        self._least = under_way

    def on_ended(self, sample: SampleRecord, outputs: object) -> None:  # noqa: ARG002
        self.count += 1
        if self.count >= self._least:
            self.under_way.set()


def test_runs_share_agents_as_they_asked_and_all_samples_complete(agents: Processes) -> None:
    # Paced blocks take the same time on any machine, so that its other work hardly counts.
    deployment = dataclasses.replace(small_deployment(INSTANCE, AT_HOME), paced=True)
    small, large, late = Ends(20), Ends(), Ends()
    with ThreadPoolExecutor() as pool, coordinator_at(agents, share=0.2) as first, another(agents, share=0.8) as second:
        running = pool.submit(first.run, deployment, observer=small)
        assert small.under_way.wait(60.0)
        before = small.count
        measured = second.run(deployment, observer=large)
        meanwhile = small.count - before
        with another(agents, share=0.3) as third, pytest.raises(ExecuteError, match=r"0 % is left.*asks for 30 %"):
            third.run(deployment, observer=late)
        with another(agents) as third, pytest.raises(ExecuteError, match=r"held by another run.*20 % for.*80 % for"):
            third.run(deployment, observer=late)
        with inquirer(agents) as asking:
            shares = {
                state.about.worker: [each.share for each in state.about.holdings] for state in asking.ask(agents.names)
            }
        assert_accounted(INSTANCE, running.result(120.0))
    assert_accounted(INSTANCE, measured)
    assert large.count == small.count == 240
    assert late.count == 0
    assert shares == {name: [0.2, 0.8] for name in agents.names}
    assert 0.1 < meanwhile / large.count < 0.6  # 0.25, and what the other one leaves while it starts and ends


def test_a_run_takes_over_the_newest_share_that_is_in_its_way(agents: Processes) -> None:
    many = INSTANCE.with_samples(dict.fromkeys(INSTANCE.sources, 3000))
    with (
        ThreadPoolExecutor() as pool,
        coordinator_at(agents, share=0.4) as first,
        another(agents, share=0.4) as second,
        another(agents, share=0.5, take_over=True) as third,
    ):
        watch = Ends(), Ends()
        staying = pool.submit(first.run, small_deployment(INSTANCE, AT_HOME), observer=watch[0])
        assert watch[0].under_way.wait(60.0)
        leaving = pool.submit(second.run, small_deployment(many, AT_HOME), observer=watch[1])
        assert watch[1].under_way.wait(60.0)
        assert_accounted(INSTANCE, third.run(small_deployment(INSTANCE, AT_HOME)))
        with pytest.raises(TakenOverError, match="taken over by another run"):
            leaving.result(60.0)
        assert_accounted(INSTANCE, staying.result(60.0))


def test_sessions_and_commands_side_by_side(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    samples = tmp_path / "samples.npz"
    inputs = np.random.default_rng(0).standard_normal((40, 1, WIDTH)).astype(np.float32)
    pick = np.zeros(1, np.int64)
    np.savez(samples, x=inputs, pick=np.zeros((40, 1), np.int64))
    address, cache = f"127.0.0.1:{free_port()}", ("--cache", str(tmp_path / "cache"))
    with (
        agent_process("a", "--listen", address, *cache),
        agent_process("b", "--connect", address, *cache),
        planner.Session(plan, connect=[address], share=0.5) as one,
        planner.Session(plan, connect=[address], share=0.25) as two,
    ):
        futures = [
            session.source(name).submit({"x": x, "pick": pick})
            for x in inputs[:4]
            for session in (one, two)
            for name in ("urgent", "other")
        ]
        own = ("--source", f"urgent={samples}", "--connect", address, "--share", "25%")
        command = planner_command("run", str(plan), *own)
        assert command.returncode == 0, command.stderr
        with pytest.raises(ExecuteError, match="25 % is left, and --share asks for 30 %"):
            planner.Session(plan, connect=[address], share=0.3).__enter__()
        with pytest.raises(ExecuteError, match=r"in a share of 0\.01 %"):
            planner.Session(plan, connect=[address], share=1e-4).__enter__()
        outputs = [future.result(60.0).outputs["y"] for future in futures]
        status = planner_command("status", "--connect", address)
        assert status.stdout.count("for 50 %, since") == status.stdout.count("for 25 %, since") == 2
    for number in range(0, len(outputs), 4):
        for other in outputs[number + 1 : number + 4]:
            np.testing.assert_array_equal(outputs[number], other)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_what_is_no_share_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="not a share of the agents"):
        planner.Session(write_case(tmp_path), connect=["127.0.0.1:9"], share=share)


def test_agents_started_for_a_run_are_not_shared(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only running agents can be shared"):
        planner.Session(write_case(tmp_path), share=0.5)
