"""Every message has a handler on the side that receives it."""

from __future__ import annotations

from typing import get_args

import pytest

from planner.execution.agent.agent import Agent
from planner.execution.agent.driver import Driver
from planner.execution.agent.link_probe import LinkProbe
from planner.execution.agent.worker_run import WorkerRun
from planner.execution.wire.diagnostics import Ask, Chunk, Echo, Flood, Ping
from planner.execution.wire.dispatch import Dispatch
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    AgentReport,
    BlockFile,
    Body,
    Command,
    Input,
    PeerMessage,
    RunMessage,
    Start,
    Stop,
    ToAgent,
    ToCoordinator,
    WarmUpInput,
)

LIFE_CYCLE = {BlockFile, Input, WarmUpInput, Start, Stop}


def test_every_message_is_received_by_somebody() -> None:
    assert {*get_args(ToAgent), *get_args(ToCoordinator)} == set(get_args(Body))


def test_every_message_is_sent_by_one_kind_of_member() -> None:
    senders = [*get_args(Command), *get_args(AgentReport), *get_args(PeerMessage)]
    assert len(senders) == len(set(senders)) == len(get_args(Body))


@pytest.mark.parametrize(
    ("owner", "kinds"),
    [
        (Agent, {*get_args(ToAgent)}),
        (WorkerRun, {*get_args(RunMessage)}),
        (Driver, {*get_args(RunMessage)} - LIFE_CYCLE),
        (LinkProbe, {Ping, Echo, Flood, Chunk}),
    ],
)
def test_every_message_that_a_part_of_an_agent_receives_has_a_handler(owner: type, kinds: set[type]) -> None:
    table = owner._HANDLERS  # type: ignore[attr-defined]
    assert table.kinds == kinds


def test_a_message_reaches_its_handler_and_an_ignored_one_none() -> None:
    class Counter:
        asked = 0

        def on_ask(self, _ask: Ask, frame: Frame) -> str:
            self.asked += 1
            return frame.sender

        handlers = Dispatch["Counter", str]({Ask: on_ask}, ignored=[Ping])

    counter = Counter()
    assert counter.handlers.handle(counter, Frame(Ask(), sender="a")) == "a"
    assert counter.handlers.handle(counter, Frame(Ping(to="b", times=1))) is None
    assert counter.asked == 1
    assert counter.handlers.kinds == {Ask, Ping}
