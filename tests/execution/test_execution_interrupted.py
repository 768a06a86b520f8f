"""Ctrl-C in each phase of a run ends it at once, although an agent never answers again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.session.session import LiveSession
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
)
from planner.execution.wire.transport import CONTROL
from planner.trace.records import SampleRecord
from tests.execution.fleet import deployment_for
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import MODEL, small_instance

INSTANCE = small_instance(samples=1)
FOREVER_S = 1e5
INPUTS = {"t0": np.ones(MODEL.chain.cuts[0].tensors[0].shape, np.float32)}


@contextmanager
def interrupted_at(last: type, *, live: bool) -> Iterator[Coordinator]:
    """Yield the coordinator of agents that answer like real ones until one gets a message of a kind: Ctrl-C comes then.

    From then on they are silent.
    """
    network = MemoryNetwork()
    over = threading.Event()

    def answers(name: str, body: Body) -> Iterator[Body]:
        if isinstance(body, Claim):
            yield Claimed(run=body.run, worker=name)
        elif isinstance(body, Deploy):
            yield Ready(run=body.run, worker=name, warm_block_s={})
        elif isinstance(body, Start) and name == "a" and not live:
            ends = (SampleRecord(source, 0, 0.0, 0.1, "failed", "forged") for source in INSTANCE.sources)
            yield Ended(run=body.run, worker=name, samples=tuple(ends))

    def take(name: str, frame: Frame) -> None:
        if isinstance(frame.body, last) and not over.is_set():
            over.set()
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
        if not over.is_set():
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


@pytest.mark.parametrize("last", [Claim, Deploy, Start, Stop])
def test_a_run_is_interrupted(last: type) -> None:
    with interrupted_at(last, live=False) as coordinator, pytest.raises(KeyboardInterrupt):
        coordinator.run(deployment_for(INSTANCE), ready_timeout_s=FOREVER_S)


@pytest.mark.parametrize("last", [Claim, Deploy, Submit, Stop])
def test_a_session_is_interrupted(last: type) -> None:
    def use(session: LiveSession) -> None:
        with session:
            if last is Submit:
                session.source("urgent").submit(INPUTS).result(FOREVER_S)

    with interrupted_at(last, live=True) as coordinator:
        deployment = deployment_for(INSTANCE, live=True)
        session = LiveSession(deployment, nullcontext(coordinator), ready_timeout_s=FOREVER_S)
        with pytest.raises(KeyboardInterrupt):
            use(session)
    assert session.source("urgent").pending == []
