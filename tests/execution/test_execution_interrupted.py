"""Ctrl-C in each phase of a run, or another coordinator, ends it at once, although no agent answers again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.session.session import LiveSession
from planner.execution.session.source import SampleError
from planner.execution.wire.claims import TakenOverError, this_process
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    COORDINATOR,
    Body,
    Claim,
    Claimed,
    Deploy,
    Ended,
    Ready,
    Start,
    Stop,
    Submit,
    Taken,
)
from planner.execution.wire.transport import CONTROL
from planner.trace.records import Origin, SampleRecord
from tests.execution.fleet import deployment_for
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import MODEL, small_instance

INSTANCE = small_instance(samples=1)
FOREVER_S = 1e5
INPUTS = {"t0": np.ones(MODEL.chain.cuts[0].tensors[0].shape, np.float32)}


@contextmanager
def scripted(last: type, act: Callable[[str, Body], Iterator[Body]], *, live: bool) -> Iterator[Coordinator]:
    """Yield the coordinator of agents that answer like real ones until one gets a message of a kind.

    From then on they are silent, except for the answers of ``act(name, message)``.
    """
    network = MemoryNetwork()
    over = threading.Event()

    def answers(name: str, body: Body) -> Iterator[Body]:
        if over.is_set():
            return
        if isinstance(body, last):
            over.set()
            yield from act(name, body)
        elif isinstance(body, Claim):
            yield Claimed(run=body.run, worker=name)
        elif isinstance(body, Deploy):
            yield Ready(run=body.run, worker=name, warm_block_s={})
        elif isinstance(body, Start) and name == "a" and not live:
            ends = (SampleRecord(source, 0, 0.0, 0.1, "failed", "forged") for source in INSTANCE.sources)
            yield Ended(run=body.run, worker=name, samples=tuple(ends))

    def take(name: str, frame: Frame) -> None:
        for answer in answers(name, frame.body):
            members[name].send(COORDINATOR, Frame(answer), CONTROL)

    members = {
        name: network.connect(name)(partial(take, name), lambda _member, _present: None) for name in INSTANCE.workers
    }
    with Coordinator(network.connect(COORDINATOR)) as coordinator:
        coordinator.await_agents(INSTANCE.workers, 30.0)
        yield coordinator
    for member in members.values():
        member.close()


def interrupt(_name: str, _body: Body) -> Iterator[Body]:
    """Send this process what Ctrl-C sends."""
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
    return iter(())


@pytest.mark.parametrize("last", [Claim, Deploy, Start, Stop])
def test_a_run_is_interrupted(last: type) -> None:
    with scripted(last, interrupt, live=False) as coordinator, pytest.raises(KeyboardInterrupt):
        coordinator.run(deployment_for(INSTANCE), ready_timeout_s=FOREVER_S)


@pytest.mark.parametrize("last", [Claim, Deploy, Submit, Stop])
def test_a_session_is_interrupted(last: type) -> None:
    def use(session: LiveSession) -> None:
        with session:
            if last is Submit:
                session.source("urgent").submit(INPUTS).result(FOREVER_S)

    with scripted(last, interrupt, live=True) as coordinator:
        deployment = deployment_for(INSTANCE, live=True)
        session = LiveSession(deployment, nullcontext(coordinator), ready_timeout_s=FOREVER_S)
        with pytest.raises(KeyboardInterrupt):
            use(session)
    assert session.source("urgent").pending == []


def test_a_session_whose_agents_are_taken_over_says_so_to_all_callers() -> None:
    def taken(name: str, body: Body) -> Iterator[Body]:
        assert isinstance(body, Submit)
        yield Taken(run=body.run, worker=name, by=this_process())

    with scripted(Submit, taken, live=True) as coordinator:
        deployment = deployment_for(INSTANCE, live=True)
        with LiveSession(deployment, nullcontext(coordinator), ready_timeout_s=FOREVER_S) as session:
            source = session.source("urgent")
            with pytest.raises(
                SampleError, match="urgent, sample 0: the sample failed: worker a: taken over by another"
            ):
                source.submit(INPUTS).result(FOREVER_S)
            with pytest.raises(TakenOverError, match="worker a: taken over by another run, so this run ends; found "):
                source.submit(INPUTS)


def test_a_result_that_does_not_fit_its_model_fails_its_sample() -> None:
    def incomplete(name: str, body: Body) -> Iterator[Body]:
        assert isinstance(body, Submit)
        record = SampleRecord(body.source, body.sample, 0.0, 0.1, "completed", origin=Origin("small"))
        yield Ended(run=body.run, worker=name, samples=(record,))

    with scripted(Submit, incomplete, live=True) as coordinator:
        deployment = deployment_for(INSTANCE, live=True)
        session = LiveSession(deployment, nullcontext(coordinator), ready_timeout_s=FOREVER_S)
        with session, pytest.raises(SampleError, match="the sample failed: its outputs do not fit its model"):
            session.source("urgent").submit(INPUTS).result(FOREVER_S)


@pytest.mark.parametrize("silent", ["a", "b", "c", ""])
def test_agents_are_claimed_in_an_order_that_all_coordinators_share(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then two that want some of the same agents never both fail, each for want of one that the other holds."""
    monkeypatch.setattr("planner.execution.coordinator.preparation._CLAIM_S", 0.2)
    names, claimed = INSTANCE.workers, []
    scenario = INSTANCE.scenario
    turned = scenario.model_copy(update={"workers": dict(reversed(scenario.workers.items()))})
    deployment = replace(deployment_for(INSTANCE), instance=INSTANCE.model_copy(update={"scenario": turned}))
    network = MemoryNetwork()

    def take(name: str, frame: Frame) -> None:
        if isinstance(frame.body, Claim):
            claimed.append(name)
            if name != silent:
                members[name].send(COORDINATOR, Frame(Claimed(run=frame.body.run, worker=name)), CONTROL)
        else:
            coordinator.abandon()

    members = {name: network.connect(name)(partial(take, name), lambda _member, _present: None) for name in names}
    with Coordinator(network.connect(COORDINATOR)) as coordinator:
        coordinator.await_agents(names, 30.0)
        with pytest.raises(ExecuteError):
            coordinator.run(deployment, ready_timeout_s=FOREVER_S)
    assert claimed == [name for name in "abc" if not silent or name <= silent]
