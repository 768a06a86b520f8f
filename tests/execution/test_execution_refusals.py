"""A real agent process over real Zenoh refuses bad messages, reports them, and goes on."""

from __future__ import annotations

import dataclasses
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import nan
from pathlib import Path

import numpy as np
import pytest

from planner.execution.wire.diagnostics import About, Ask
from planner.execution.wire.fragments import Fragment, split
from planner.execution.wire.frames import VERSION, Frame, encode
from planner.execution.wire.messages import (
    COORDINATOR,
    BlockFile,
    Body,
    Data,
    Deploy,
    Load,
    MembershipChange,
    Missing,
    Ready,
    Refused,
    Replan,
    Start,
    Stop,
    WorkerFault,
)
from planner.execution.wire.zenoh import free_port
from planner.policy.types import SampleKey, Task
from planner.trace.records import Origin
from planner.worker.events import RequestMessage, ResultMessage, TaskMessage
from tests.execution.raw import Raw, agent_process, raw_member
from tests.execution.rig import FILES, HASHES, MODEL, SPLIT, small_deployment, small_instance

INSTANCE = small_instance(samples=1)
KEY = SampleKey("urgent", 7, 0)
TASK = Task(KEY, "small", 0, 8.0, 0.0, 1, SPLIT.sources["urgent"].routes[0].stages[1:])
CUT = MODEL.chain.cuts[1].tensors[0]


def deploy_frame(run: str) -> Frame:
    models = dict(small_deployment(INSTANCE, SPLIT).models)
    return Frame(
        Deploy(
            run=run, instance=INSTANCE, plan=SPLIT, policy="planned", seed=3, models=models, resident={}, paced=False
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Raw, Raw]]:
    """The coordinator, and worker ``a``; the agent under test is ``b``."""
    cache = tmp_path_factory.mktemp("cache")
    address = f"127.0.0.1:{free_port()}"
    with (
        raw_member(listen=address) as coordinator,
        agent_process("b", "--connect", address, "--cache", str(cache)),
        raw_member("a", connect=address) as a,
    ):
        coordinator.wait_for("b")
        a.wait_for("b")
        yield coordinator, a


@pytest.fixture
def coordinator(members: tuple[Raw, Raw]) -> Raw:
    return members[0]


@pytest.fixture
def in_run(members: tuple[Raw, Raw]) -> Iterator[tuple[Raw, Raw]]:
    """Deploy and start a run on the agent."""
    coordinator, a = members
    coordinator.hold("b")
    coordinator.send("b", deploy_frame("r"))
    blocks = dict(zip(HASHES, FILES, strict=True))
    while isinstance(asked := coordinator.expect(Missing, Ready), Missing):
        block = np.frombuffer(blocks[asked.sha256], np.uint8)
        coordinator.send("b", Frame(BlockFile(run="r", sha256=asked.sha256), {"file": block}))
    coordinator.send("b", Frame(Start(run="r", at_unix_s=0.0)))
    coordinator.expect(Load)
    yield coordinator, a
    assert coordinator.alive("b").run == "r"
    coordinator.send("b", deploy_frame("over"))


HEADER, PAYLOAD = encode(Frame(Stop(run="r")))


@pytest.mark.parametrize(
    ("attachment", "message"),
    [
        (b"", "malformed header"),
        (b"\x80\x04\x95pickle", "malformed header"),
        (Fragment(1, 0, 0, b"\x80\x04\x95pickle").attachment, "malformed header"),
        (Fragment(2, 0, 0, b'{"v": %d, "body": {"kind": "shutdown"}}' % VERSION).attachment, "malformed header"),
        (
            Fragment(3, 0, 0, HEADER.replace(b'"v":%d' % VERSION, b'"v":9')).attachment,
            "another version of the wire format; found 9",
        ),
        (Fragment(4, 0, 2**40, HEADER).attachment, "oversize message; found 1099511627776; expected at most 1048576"),
    ],
    ids=["nothing", "pickle", "pickled header", "unknown kind", "other version", "oversize"],
)
def test_malformed_messages_are_refused(coordinator: Raw, attachment: bytes, message: str) -> None:
    coordinator.put("b", attachment)
    assert message in coordinator.refused()
    assert coordinator.alive("b").run is None


def test_an_oversize_message_is_refused_at_its_first_fragment(coordinator: Raw) -> None:
    whole = Frame(BlockFile(run="r", sha256="0" * 64), {"file": np.zeros(5_000_000, np.uint8)})
    coordinator.send("b", whole)
    assert "oversize message; found 5000000" in coordinator.refused()
    assert coordinator.alive("b").run is None


def test_an_unannounced_block_is_refused(coordinator: Raw) -> None:
    coordinator.send("b", Frame(BlockFile(run="r", sha256="0" * 64), {"file": np.zeros(8, np.uint8)}))
    assert "was not announced" in coordinator.refused()


def test_a_damaged_block_ends_only_the_run(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with raw_member(listen=address) as own, agent_process("b", "--connect", address, "--cache", str(tmp_path)):
        own.wait_for("b")
        own.hold("b")
        own.send("b", deploy_frame("r"))
        asked = own.expect(Missing)
        damaged = np.frombuffer(FILES[0][:-1] + b"x", np.uint8)
        own.send("b", Frame(BlockFile(run="r", sha256=asked.sha256), {"file": damaged}))
        assert "damaged block model" in own.expect(WorkerFault).what
        assert own.alive("b").run is None
        assert list(tmp_path.iterdir()) == []


def test_a_flood_of_bad_messages_causes_few_reports(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with raw_member(listen=address) as own, agent_process("b", "--connect", address, "--cache", str(tmp_path)):
        own.wait_for("b")
        begin_s = time.monotonic()
        for number in range(2000):
            own.put("b", Fragment(number, 0, 2**40, HEADER).attachment)
        own.send("b", Frame(Ask()))
        told = 0
        while isinstance(own.expect(Refused, About), Refused):
            told += 1
        assert 1 <= told <= 21 + (time.monotonic() - begin_s)
        own.put("b", b"")
        time.sleep(1.1)
        own.put("b", b"")
        assert "more were refused before" in own.expect(Refused).what


def test_only_the_coordinator_deploys(members: tuple[Raw, Raw]) -> None:
    coordinator, a = members
    a.send("b", deploy_frame("mine"))
    assert "this member may not send 'deploy'; found 'a'" in coordinator.refused()
    assert coordinator.alive("b").run is None


def test_a_worker_reports_only_about_itself(members: tuple[Raw, Raw]) -> None:
    coordinator, a = members
    a.send(COORDINATOR, Frame(Ready(run="r", worker="b", warm_block_s={})))
    assert "this member may not send 'ready'; found 'a'" in coordinator.refused()


def data(message: TaskMessage | ResultMessage | RequestMessage, **changes: object) -> Data:
    body = Data(run="r", sender="a", message=message, cut=1, size_bytes=24, sent_s=0.0)
    return body.model_copy(update=changes)


FITTING = np.zeros(CUT.shape, CUT.dtype)
NEGATIVE = data(TaskMessage(TASK)).model_dump(mode="json") | {"size_bytes": -1}


@pytest.mark.parametrize(
    ("body", "tensors", "message"),
    [
        (data(TaskMessage(TASK)), {CUT.name: FITTING[..., :-1]}, "does not fit the cut"),
        (data(TaskMessage(TASK)), {CUT.name: FITTING.astype(np.float64)}, "does not fit the cut; found 'float64"),
        (data(TaskMessage(TASK)), {"weights": FITTING}, "no such tensor; found 'weights'"),
        (data(TaskMessage(TASK.at(99, TASK.stages))), {CUT.name: FITTING}, "no such block; found 99"),
        (data(TaskMessage(TASK), sender="z"), {CUT.name: FITTING}, "no such worker; found 'z'"),
        (data(ResultMessage(SampleKey("door", 1, 0), 3)), {}, "no such source; found 'door'"),
        (data(ResultMessage(KEY, 3, Origin("small", exit="early"))), {}, "no such exit; found 'early'"),
    ],
    ids=["shape", "dtype", "name", "block", "worker", "source", "exit"],
)
def test_data_that_does_not_fit_the_run_is_refused(
    in_run: tuple[Raw, Raw], body: Data, tensors: dict[str, np.ndarray], message: str
) -> None:
    coordinator, a = in_run
    a.send("b", Frame(body, tensors))
    assert message in coordinator.refused()


def test_fragments_out_of_order_are_refused(coordinator: Raw) -> None:
    first, second = (Fragment(9, offset, 12, HEADER, b"1234", asks=False) for offset in (0, 8))
    for fragment in (first, second):
        coordinator.put("b", fragment.attachment, bytes(fragment.payload))
    assert "fragment out of order" in coordinator.refused()
    assert all(not fragment.asks for fragment in split(HEADER, PAYLOAD))


IMPOSSIBLE: dict[str, TaskMessage | RequestMessage] = {
    "a task without stages": TaskMessage(TASK.at(1, ())),
    "no blocks 1 to 9": TaskMessage(TASK, last_block=9),
    "no blocks 1 to 0": TaskMessage(TASK, last_block=0),
    "no stage from block 1 to 0": TaskMessage(TASK.at(1, SPLIT.sources["urgent"].routes[0].stages)),
    "no operating point 5": TaskMessage(dataclasses.replace(TASK, operating_point=5)),
    "no such priority; found 7.5; expected one of 1, 8": TaskMessage(dataclasses.replace(TASK, priority=7.5)),
    "created_s: malformed header": TaskMessage(dataclasses.replace(TASK, created_s=nan)),
    "no blocks 1 to 3": RequestMessage(TASK, last_block=3),
}


def test_an_impossible_task_is_refused_with_its_sender_and_the_run_goes_on(in_run: tuple[Raw, Raw]) -> None:
    coordinator, a = in_run
    for what, message in IMPOSSIBLE.items():
        frame = Frame(data(message), {CUT.name: FITTING} if isinstance(message, TaskMessage) else {})
        refused = reported(coordinator, partial(a.send, "b", frame))
        assert refused.sender == "a"
        assert what in refused.what
    negative = Frame(data(TaskMessage(TASK)), {CUT.name: FITTING})
    assert "body.data.size_bytes" in reported(coordinator, partial(a.put_frame, "b", negative, body=NEGATIVE)).what


ROUTE = SPLIT.sources["urgent"].routes[0].model_copy(update={"operating_point": 5})
ELSEWHERE = SPLIT.model_copy(
    update={"sources": {"urgent": SPLIT.sources["urgent"].model_copy(update={"routes": (ROUTE,)})}}
)

COMMANDS: dict[str, Body] = {
    "start of a run that has started": Start(run="r", at_unix_s=0.0),
    "no such worker; found 'ghost'": Start(run="r", at_unix_s=0.0, absent=("ghost",)),
    "member from _coordinator: no such worker": MembershipChange(run="r", worker="ghost", present=False),
    "not one file; found ''; expected a tensor file": BlockFile(run="r", sha256=HASHES[0]),
    "no such operating point; found 5": Replan(run="r", plan=ELSEWHERE),
}


def test_a_command_that_does_not_fit_the_run_is_refused_and_the_run_goes_on(in_run: tuple[Raw, Raw]) -> None:
    coordinator, _ = in_run
    for what, command in COMMANDS.items():
        refused = reported(coordinator, partial(coordinator.send, "b", Frame(command)))
        assert refused.sender == COORDINATOR
        assert what in refused.what


def reported(coordinator: Raw, send: Callable[[], None]) -> Refused:
    """Send until the refusal is reported: after several, an agent reports one a second."""
    for _ in range(20):
        send()
        with suppress(queue.Empty):
            return coordinator.expect(Refused, wait_s=1.5)
    pytest.fail("no refusal is reported")
