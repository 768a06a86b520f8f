"""Messages to the coordinator of a run, from its workers and from a stranger: refused, or handled."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from planner.errors import ExecuteError, PlannerError
from planner.execution.coordinator.collection import Collection
from planner.execution.coordinator.membership import Membership, Switchboard
from planner.execution.coordinator.phase import RunState
from planner.execution.coordinator.preparation import Preparation
from planner.execution.coordinator.run_result import Observer
from planner.execution.coordinator.supervision import Supervision
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.session.live_run import LiveRun
from planner.execution.session.source import SourceHandle
from planner.execution.wire.claims import Claims
from planner.execution.wire.diagnostics import About, Echo, Flooded, Holder, Holding, Pinged
from planner.execution.wire.frames import Frame, Tensors, encode
from planner.execution.wire.messages import (
    COORDINATOR,
    Claimed,
    Ended,
    Further,
    Held,
    Load,
    Log,
    Missing,
    Output,
    Ready,
    Refused,
    Report,
    Taken,
    Transmit,
    WorkerFault,
)
from planner.execution.wire.transport import Receiver
from planner.policy.types import Progress
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord, encode_records
from planner.trace.store import pack
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import HASHES
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw, damaged, mutated
from tests.fuzz.targets.frames import DEPLOYMENT, END, INSTANCE, KEY, ROW, RUN, deliver

PHASES: Final = (Preparation, Supervision, Collection)
HOLDER: Final = Holder(host="h", process=1, command="fuzz")
HOLDING: Final = Holding(holder=HOLDER, run="s", held_s=3.0, share=0.5)
LOGGED: Final = (
    BlockRecord("b", "urgent", 0, 1, 0.0, 0.1), TransferRecord("ab", "a", "b", "urgent", 0, 1, 8, 0.0, 0.1),
)  # fmt: skip
STEPS: Final = pack(b'[{"now_s": 1.0, "event": {}, "effects": []}]')
LOG: Final = {
    "records": np.frombuffer(pack(encode_records(LOGGED)), np.uint8), "steps": np.frombuffer(STEPS, np.uint8)
}  # fmt: skip
LOST: Final = SampleRecord("other", 0, 0.0, 0.5, "failed", "no memory")
FRAMES: Final = [
    Frame(Claimed(run=RUN, worker="b")), Frame(Held(run=RUN, worker="b", holdings=(HOLDING,))),
    Frame(Taken(run=RUN, worker="b", by=HOLDER)), Frame(Missing(run=RUN, worker="b", sha256=HASHES[0])),
    Frame(Ready(run=RUN, worker="b", warm_block_s={"small": (0.1, 0.1, 0.0)})),
    Frame(Ended(run=RUN, worker="a", samples=(END,)), {"t3": ROW}),
    Frame(Ended(run=RUN, worker="a", samples=(END,)), {"t3": ROW}), Frame(Ended(run=RUN, worker="a", samples=(LOST,))),
    Frame(Load(run=RUN, worker="b", at_s=1.0, queued=1, busy_s=0.5, slowness=3.0)),
    Frame(Log(run=RUN, worker="b"), LOG), Frame(Log(run=RUN, worker="b"), LOG),
    Frame(Output(run=RUN, source="urgent", samples=(1, 2)), {"t3": ROW}),
    Frame(Report(run=RUN, worker="b", duplicates=1, late_blocks=2)),
    Frame(WorkerFault(worker="b", what="no memory", run=RUN, dropped=True)), Frame(WorkerFault(worker="b", what="?")),
    Frame(Refused(worker="b", sender="c", what="not a task", run=RUN)), Frame(Echo(run=RUN, number=0, back=True)),
    Frame(Transmit(run=RUN, transfer="1", sender="b", to="a", key=KEY, cut=1, size_bytes=64, priority=8.0, at_s=0.1)),
    Frame(Flooded(worker="b", flood="f", size_bytes=1, took_s=1.0)),
    Frame(Pinged(worker="b", to="c", round_trip_s=(1.0,))),
    Frame(About(worker="b", version="1", python="3", zenoh="1", device={}, onnxruntime=None, providers=(),
                provider="cpu", memory_bytes=1, cached=1, present=())),
]  # fmt: skip
ENDING: Final = {
    ("ready", Preparation), ("fault", Preparation), ("held", Supervision), *(("taken", phase) for phase in PHASES)
}  # fmt: skip
"""What a worker of the run may end it by, and when."""
ENCODED: Final = [(json.loads(header), bytes(payload)) for header, payload in map(encode, FRAMES)]


class Rig:
    """The coordinator's side of a run, whose inbox this thread works off, with members who take whatever it sends."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        network = MemoryNetwork()
        for name in (*INSTANCE.workers, "x"):
            network.connect(name)(lambda _frame: None, lambda _member, _present: None)
        self._members = Membership(Switchboard(network.connect(COORDINATOR)))
        self.receiver: Receiver = network._members[COORDINATOR][0]
        self._emulation = EmulatedNetwork(INSTANCE)
        self._emulation.start(time.time(), self._admit, lambda _record: None, self._members.fail)
        self.told: list[str] = []
        self.begin()

    def _admit(self, to: str, transfer: str, at_s: float) -> None:
        """Take the time of a transfer, which an agent would be told."""

    def begin(self) -> None:
        """Begin a run, which all workers have been asked for and are deployed to."""
        deployment = dataclasses.replace(DEPLOYMENT, live=self._live)
        sources = {name: SourceHandle(name, 4) for name in INSTANCE.sources}
        run = LiveRun(deployment, sources, Observer(), ready_timeout_s=1.0, first=True, on_over=lambda _run: None)
        for source in sources.values():
            source.move(run)
        state = RunState(self._members, Claims(self._members.send), deployment, run, 1.0)
        state.id = state.failover._run = state.clocks._run = RUN
        state.refusals.add = lambda sender, what: self.told.append(what)  # type: ignore[method-assign]  # noqa: ARG005
        self._members.on_transmit = self._emulation.transmit
        state.claims.begin(RUN)
        for worker in state.workers:
            state.claims.ask(worker)
            state.result.steps.begin(worker)
            state.clocks.compare(worker)
        state.failover.begin(time.time())
        run.on_started(self._submit)
        if self._live:
            for source in sources.values():
                source.submit({"t0": ROW})
                source.submit({"t0": ROW})
        self.state = state
        self._phases = [phase(state) for phase in PHASES]
        for phase in self._phases:
            if isinstance(phase, Collection):
                phase._unreported = set(state.workers)

    def _submit(
        self,
        source: str,
        sample: int,
        inputs: Tensors,
        *,
        priority: float | None = None,
        within_s: float | None = None,
        further: Further | None = None,
        progress: Progress | None = None,
        given_up: Sequence[int] = (),
    ) -> None:
        """Take a sample, which a worker would be sent."""

    def work(self, index: int) -> None:
        """Handle what has arrived, in one of the phases of a run; what that raises leaves this function."""
        phase = self._phases[index]
        while True:
            try:
                frame = self._members.next(0.0)
            except TimeoutError:
                break
            if frame is not None:
                phase.HANDLERS.handle(phase, frame)  # type: ignore[arg-type]
        if isinstance(phase, Supervision):
            phase._look_for_overdue()
            self.state.failover.overdue()

    def close(self) -> None:
        """End the emulated network and leave."""
        self._emulation.stop()
        self._members.close()


@cache
def rig(*, live: bool) -> Rig:
    """Return the coordinator of this process."""
    return Rig(live=live)


@st.composite
def messages(draw: Draw) -> tuple[bool, int, str, bytes, bytes]:
    """Return whether the run is live, the index of its phase, and sender, header and payload of a message."""
    header, payload = draw(st.sampled_from(ENCODED))
    body: dict[str, Any] = header["body"]
    kind = draw(st.integers(0, 9))
    if kind == 0 and payload:
        payload = draw(damaged([payload]))
    elif kind == 1:
        body = body | {key: "x" for key in ("worker", "sender") if key in body}
    sender = "x" if kind == 1 else body.get("worker", body.get("sender", "a"))
    text = draw(mutated([header | {"body": body}])).encode("utf-8", "surrogatepass")
    return draw(st.booleans()), draw(st.integers(0, len(PHASES) - 1)), sender, text, payload


def read(case: tuple[bool, int, str, bytes, bytes]) -> None:
    """Hand over a message and let the coordinator work; a run that has ended begins again."""
    live, phase, sender, header, payload = case
    own = rig(live=live)
    own.told.clear()
    deliver(own.receiver, sender, header, payload)
    try:
        own.work(phase)
    except PlannerError as error:
        own.begin()
        kind = json.loads(header)["body"]["kind"]
        if sender == "x" or (kind, PHASES[phase]) not in ENDING:
            raise AssertionError("a message ends the run") from error
        raise
    except Exception:
        own.begin()
        raise
    if len(own.state.failover.absent) > 1:
        own.begin()
    if defects := [what for what in own.told if "cannot be handled" in what]:
        raise AssertionError(defects[0])
    if own.told:
        raise ExecuteError(own.told[0])


def finish() -> None:
    """End the coordinators of this process."""
    for live in (False, True):
        rig(live=live).close()
    rig.cache_clear()


TARGET = Target("coordinator", messages(), read, finish=finish)
