"""Frames of the wire: headers and payloads of every message, and fragments."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from planner.errors import ExecuteError
from planner.execution.wire.diagnostics import Echo, Flood, Ping
from planner.execution.wire.fragments import split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import (
    COORDINATOR,
    Data,
    Deploy,
    Ended,
    Input,
    Load,
    Log,
    Ready,
    Report,
    Start,
    WarmUpInput,
)
from planner.execution.wire.transport import Receiver
from planner.policy.types import SampleKey, Status, Task
from planner.trace.records import Origin, SampleRecord
from planner.worker.events import (
    AnswerMessage,
    FailureMessage,
    ForgetMessage,
    Message,
    RequestMessage,
    ResultMessage,
    StateMessage,
    StateRequest,
    StatusMessage,
    TaskMessage,
)  # fmt: skip
from tests.execution.rig import SPLIT, small_deployment, small_instance
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw, damaged, mutated

INSTANCE = small_instance()
DEPLOYMENT = small_deployment(INSTANCE, SPLIT)
RUN = "r"
KEY = SampleKey("urgent", 7, 1)
TASK = Task(KEY, "small", 0, 8.0, 0.5, 1, SPLIT.sources["urgent"].routes[0].stages)
ELSEWHERE = SPLIT.sources["urgent"].routes[1].stages
PARCELS: list[Message] = [
    TaskMessage(TASK), TaskMessage(TASK, 1), ResultMessage(KEY, 3), ResultMessage(KEY, 3, Origin("small")),
    FailureMessage(KEY, "no memory"), FailureMessage(KEY, "gone", ("a", "b")), RequestMessage(TASK, 2),
    AnswerMessage(KEY, None, 1), AnswerMessage(KEY, 0.5, 1),
    TaskMessage(replace(TASK, sequence=7, state_at=ELSEWHERE)), StateRequest(KEY, "small", 0, 1, 7, 8.0),
    StateMessage(KEY, "small", 1, 7), ForgetMessage("urgent", 7),
    StatusMessage(Status(backlog_s=((8.0, 0.25),), queued=(("urgent", 3),), per_parameter_s=(("urgent", 1e-9),))),
]  # fmt: skip
DEPLOY = Deploy(
    run=RUN, instance=INSTANCE, plan=SPLIT, policy="planned", seed=3, models=dict(DEPLOYMENT.models),
    resident={"small": (0, 1)}, paced=True,
)  # fmt: skip
END = SampleRecord("urgent", 1, 0.0, 0.5, "completed", origin=Origin("small"))
DATA = [Data(run=RUN, sender="b", message=message, cut=1, size_bytes=256, sent_s=1.5) for message in PARCELS]
ROW = np.zeros((1, 32), np.float32)
FRAMES = [
    *(Frame(data, {"t1": ROW, "t0": ROW} if index < 2 else {}) for index, data in enumerate(DATA)),
    Frame(Start(run=RUN, at_unix_s=1.0)), Frame(Input(run=RUN, source="urgent"), {"t0": ROW}),
    Frame(Echo(number=1, unix_s=2.0)),
    Frame(WarmUpInput(run=RUN, model="small", cut=0), {"t0": ROW}), Frame(Ping(to="b", times=3)),
    Frame(Flood(flood="f", to="b", duration_s=0.1)), Frame(DEPLOY),
    Frame(Ready(run=RUN, worker="b", warm_block_s={"small": (0.1, 0.1, 0.0)})),
    Frame(Ended(run=RUN, worker="b", samples=(END,))),
    Frame(Load(run=RUN, worker="b", at_s=1.0, queued=1, busy_s=0.5, carried_s={"wifi": 0.1})),
    Frame(Log(run=RUN, worker="b"), {"records": np.zeros(9, np.uint8), "steps": np.zeros(9, np.uint8)}),
    Frame(Report(run=RUN, worker="b", duplicates=0, late_blocks=0)),
]  # fmt: skip
ENCODED = [(json.loads(header), bytes(payload)) for header, payload in map(encode, FRAMES)]


@st.composite
def mutated_frame(draw: Draw, encoded: list[tuple[Any, bytes]] = ENCODED) -> tuple[str, bytes, bytes]:
    """Return sender, header and payload."""
    header, payload = draw(st.sampled_from(encoded))
    text = draw(mutated([header])).encode("utf-8", "surrogatepass")
    kind = draw(st.integers(0, 9))
    if kind == 0:
        text = draw(damaged([text]))
    elif kind == 1 and payload:
        payload = draw(damaged([payload]))
    body = header["body"]
    commands = {"start", "input", "warm_up", "ping", "flood", "deploy"}
    sender = COORDINATOR if body["kind"] in commands else body.get("worker", body.get("sender", "b"))
    return sender, text, payload


def deliver(receiver: Receiver, sender: str, header: bytes, payload: bytes) -> None:
    """Send a frame, as fragments."""
    for one in split(header, payload):
        receiver.receive(sender, one.attachment, bytes(one.payload))


@st.composite
def fragments(draw: Draw) -> tuple[str, bytes, bytes]:
    """Return no sender, and one damaged fragment of a frame."""
    header, payload = draw(st.sampled_from(ENCODED))
    one = next(iter(split(json.dumps(header).encode(), payload)))
    return "", draw(damaged([one.attachment])), payload


def read(case: tuple[str, bytes, bytes]) -> None:
    """Hand a frame, or a single fragment as it is, to a member's receiver, which may only refuse it."""
    sender, header, payload = case
    told: list[str] = []
    receiver = Receiver("a", lambda frame: told.append(getattr(frame.body, "what", "")))
    if sender:
        deliver(receiver, sender, header, payload)
    else:
        receiver.receive("b", header, payload)
    if defects := [what for what in told if what.startswith("a message that cannot be handled")]:
        raise AssertionError(defects[0])
    if refused := [what for what in told if what]:
        raise ExecuteError(refused[0])


TARGET = Target("frames", mutated_frame() | fragments(), read)
