"""Messages to an agent in a run, from another worker and from the coordinator: refused, or handled."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from functools import cache

from hypothesis import strategies as st

from planner.errors import ExecuteError, PlannerError
from planner.execution.agent.agent import Agent
from planner.execution.agent.block_cache import BlockCache
from planner.execution.wire.diagnostics import Holder
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import (
    COORDINATOR,
    Admit,
    Claim,
    Input,
    MembershipChange,
    Replan,
    Start,
    Stop,
    Submit,
)
from planner.execution.wire.transport import Receiver
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import FILES, HASHES, SPLIT
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw, mutated
from tests.fuzz.seeds import folder
from tests.fuzz.targets.frames import DATA, DEPLOY, ROW, RUN, deliver

PEERS = [*(Frame(data, {"t1": ROW, "t0": ROW} if index < 2 else {}) for index, data in enumerate(DATA))]
COMMANDS = [
    Frame(Submit(run=RUN, source="urgent", sample=1), {"t0": ROW}), Frame(Input(run=RUN, source="urgent"), {"t0": ROW}),
    Frame(Admit(run=RUN, transfer="x", at_s=1.0)), Frame(MembershipChange(run=RUN, worker="c", present=False)),
    Frame(Replan(run=RUN, plan=SPLIT)), Frame(Stop(run=RUN)), Frame(Start(run=RUN, at_unix_s=1.0)),
]  # fmt: skip
"""Sent by the coordinator; a deployment and diagnostics are among the frames of :mod:`tests.fuzz.targets.frames`."""
ENCODED = [
    (sender, json.loads(header), bytes(payload))
    for sender, frames in (("b", PEERS), ("b", PEERS), (COORDINATOR, COMMANDS))
    for header, payload in map(encode, frames)
]


class Rig:
    """A real agent in a run, whose inbox this thread works off, with members who take whatever it sends."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.others = [
            self.network.connect(name)(lambda _frame: None, lambda _member, _present: None)
            for name in ("b", "c", COORDINATOR)
        ]
        cache_of_blocks = BlockCache(folder() / "blocks")
        for sha256, content in zip(HASHES, FILES, strict=True):
            cache_of_blocks.add(sha256, content)
        self.agent = Agent("a", self.network.connect("a"), cache_of_blocks)
        self.receiver: Receiver = self.network._members["a"][0]
        self.deploy()

    def deploy(self) -> None:
        """Deploy and start a run."""
        live = DEPLOY.model_copy(update={"live": True, "paced": False})
        claim = Claim(run=RUN, holder=Holder(host="h", process=1, command="fuzz"))
        for body in (claim, live, Start(run=RUN, at_unix_s=time.time())):
            header, payload = encode(Frame(body))
            deliver(self.receiver, COORDINATOR, header, bytes(payload))
            self.work()

    def work(self) -> None:
        """Perform the actions of the agent's inbox; what they raise leaves this function."""
        while True:
            try:
                action: Callable[[], None] | None = self.agent._inbox.get_nowait()
            except queue.Empty:
                break
            if action is not None:
                with self.agent._lock:
                    action()
        run = self.agent._runs.last
        if run is not None and run.wait_s <= 0:
            with self.agent._lock:
                run.run_due()

    def close(self) -> None:
        """Let the agent leave."""
        self.agent.close()
        self.agent.serve()


@cache
def rig() -> Rig:
    """Return the agent of this process."""
    return Rig()


@st.composite
def messages(draw: Draw) -> tuple[str, bytes, bytes]:
    """Return sender, header and payload."""
    sender, header, payload = draw(st.sampled_from(ENCODED))
    return sender, draw(mutated([header])).encode("utf-8", "surrogatepass"), payload


def read(case: tuple[str, bytes, bytes]) -> None:
    """Hand over a message and let the agent work; a run that was dropped is deployed again."""
    sender, header, payload = case
    agent = rig()
    if (
        agent.agent._runs.last is None
        or agent.agent._runs.last._driver is None
        or not agent.agent._runs.last._driver.started
    ):
        agent.deploy()
    told: list[str] = []
    agent.agent._refusals.add = lambda sender, what: told.append(what)  # type: ignore[method-assign]  # noqa: ARG005
    deliver(agent.receiver, sender, header, payload)
    try:
        agent.work()
    except PlannerError as error:
        agent.agent._drop_runs(agent.agent._runs)  # as an agent does
        if sender != COORDINATOR:
            raise AssertionError("a worker's message ends the run of another one") from error
        raise
    except Exception:
        agent.agent._drop_runs(agent.agent._runs)
        raise
    if defects := [what for what in told if "cannot be handled" in what]:
        raise AssertionError(defects[0])
    if told:
        raise ExecuteError(told[0])


def finish() -> None:
    """End the agent of this process."""
    rig().close()
    rig.cache_clear()


TARGET = Target("agent", messages(), read, finish=finish)
