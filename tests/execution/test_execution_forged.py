"""False reports of a worker are refused and listed, and do not enter the result."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.wire.claims import this_process
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import (
    COORDINATOR,
    Claim,
    Claimed,
    Deploy,
    Ended,
    Load,
    Log,
    Missing,
    Ready,
    Taken,
    WorkerFault,
)
from planner.execution.wire.transport import CONTROL
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord, encode_records
from planner.trace.store import pack
from tests.execution.fleet import After, assert_accounted, fleet, said
from tests.execution.rig import SPLIT, small_deployment, small_instance

SAMPLES = 40


def packed(*records: Record) -> Tensors:
    return {"records": np.frombuffer(pack(encode_records(records)), np.uint8)}


NOT_TAKEN = {
    "log from b: no such source; found 'door'; expected one of urgent, other": packed(
        BlockRecord("b", "urgent", 0, 1, 0.0, 0.1), BlockRecord("b", "door", 0, 1, 0.0, 0.1)
    ),
    "log from b: no such block; found 3; expected 0 to 2": packed(BlockRecord("b", "urgent", 0, 3, 0.0, 0.1)),
    "log from b: no such cut; found -1; expected 0 to 3": packed(
        TransferRecord("lan", "a", "b", "urgent", 0, -1, 8, 0.0, 0.1)
    ),
    "log from b: no such worker; found 'z'; expected one of a, b, c": packed(
        TransferRecord("lan", "z", "b", "urgent", 0, 1, 8, 0.0, 0.1)
    ),
    "log from b: a record of another worker; found 'a'; expected b": packed(BlockRecord("a", "urgent", 0, 1, 0.0, 0.1)),
    "log from b: invalid time; found [0.0, nan]; expected finite numbers of seconds": {
        "records": np.frombuffer(
            pack(
                b'[{"kind": "block", "worker": "b", "source": "urgent", "sample": 0, "block": 1, "start_s": 0.0,'
                b' "end_s": NaN}]'
            ),
            np.uint8,
        )
    },
    "log from b: a log must not contain ends of samples": packed(SampleRecord("urgent", 0, 0.0, 0.1, "completed")),
    "log: malformed records; found '": {"records": np.zeros(8, np.uint8)},
    "log: malformed records; found 'it is cut off, or larger": {
        "records": np.frombuffer(zlib.compress(bytes(2**26 + 1)), np.uint8)
    },
    "log: malformed steps; found": {"steps": np.zeros(8, np.uint8)},
    "log: malformed steps; found '": {"steps": np.frombuffer(pack(b'[{"now_s": 1.0'), np.uint8)},
}


def test_invalid_logs_are_refused_and_listed_and_change_nothing(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        b = agents.agent("b")
        stranger = agents.network.connect("x")(lambda _frame: None, lambda _member, _present: None)

        def forge() -> None:
            assert b._runs.last is not None
            run = b._runs.last.id
            for tensors in NOT_TAKEN.values():
                b._report(Frame(Log(run=run, worker="b"), tensors))
            stranger.send(COORDINATOR, Frame(Ready(run=run, worker="x", warm_block_s={})), CONTROL)
            stranger.send(COORDINATOR, Frame(Log(run=run, worker="x"), packed()), CONTROL)

        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0, observer=After((15, forge)))
        stranger.close()
    assert assert_accounted(instance, measured) == {}
    told = [what for worker, what in said(measured) if worker == "b"]
    assert len(told) == len(NOT_TAKEN)
    assert all(what.startswith(f"was refused: {begin}") for what, begin in zip(told, NOT_TAKEN, strict=True))
    assert [what for worker, what in said(measured) if worker == "x"] == [
        "was refused: log of a worker that is not in the run"
    ]
    records = [record for record in measured.records if isinstance(record, BlockRecord)]
    assert {record.worker for record in records} <= set(instance.workers)
    assert {record.source for record in records} <= set(instance.sources)
    assert set(measured.steps) == set(instance.workers)
    for worker in instance.workers:
        measured.steps.write(worker, io.BytesIO())


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (Origin("large"), "no such model; found 'large'; expected one of small"),
        (Origin("small", operating_point=1), "no such operating point; found 1; expected 0 to 0"),
        (Origin("small", exit="early"), "no such exit; found 'early'; expected one of "),
    ],
)
def test_ends_that_the_models_of_the_source_cannot_produce_are_refused(
    origin: Origin, told: str, tmp_path: Path
) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        a = agents.agent("a")

        def forge() -> None:
            assert a._runs.last is not None
            record = SampleRecord("urgent", SAMPLES - 1, 0.0, 0.1, "completed", origin=origin)
            a._report(Frame(Ended(run=a._runs.last.id, worker="a", samples=(record,))))

        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0, observer=After((15, forge)))
    assert assert_accounted(instance, measured) == {}
    assert said(measured) == [("a", f"was refused: ended from a: {told}")]


@pytest.mark.parametrize("names", [(), ("weights",), ("t3", "t2")])
def test_outputs_that_no_model_of_the_source_produces_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        a = agents.agent("a")

        def forge() -> None:
            assert a._runs.last is not None
            assert a._runs.last._driver is not None
            a._runs.last._driver._reporter.log.add_output("urgent", 0, dict.fromkeys(names, np.zeros(4)))

        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0, observer=After((15, forge)))
    assert assert_accounted(instance, measured) == {}
    told = f"output from a: not outputs of the source's models; found {', '.join(names)!r}; expected t3"
    assert said(measured) == [("a", f"was refused: {told}")]


def test_loads_and_requests_that_do_not_fit_the_run_are_refused(tmp_path: Path) -> None:
    instance, seen = small_instance(samples=SAMPLES), set[str]()

    class Watching(After):
        def on_load(self, load: Load) -> None:
            seen.update(load.carried_s)

    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        b = agents.agent("b")

        def forge() -> None:
            assert b._runs.last is not None
            load = Load(run=b._runs.last.id, worker="b", at_s=0.1, queued=0, busy_s=0.0)
            b._report(Frame(load.model_copy(update={"carried_s": {"cable": 0.1}})))
            b._report(Frame(load.model_copy(update={"queued": -1})))
            b._report(Frame(Missing(run=b._runs.last.id, worker="b", sha256="0" * 64)))

        measured = coordinator.run(
            small_deployment(instance, SPLIT), ready_timeout_s=30.0, observer=Watching((15, forge))
        )
    assert assert_accounted(instance, measured) == {}
    assert "cable" not in seen
    assert said(measured) == [
        ("b", f"was refused: load from b: no such network; found 'cable'; expected one of {instance.resources[0]}"),
        ("b", "was refused: body.load.queued: malformed header: Input should be greater than or equal to 0"),
        ("b", f"was refused: request for a block model that is not of this run: {'0' * 64}"),
    ]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ({"large": (0.1,)}, "no such model; found 'large'; expected one of small"),
        ({"small": (0.1,)}, "wrong number of block times; found 1; expected 3"),
    ],
)
def test_a_worker_that_reports_the_wrong_blocks_as_ready_is_at_fault(
    times: dict[str, tuple[float, ...]], told: str, tmp_path: Path
) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, "a", "c") as (agents, coordinator):

        def answer(frame: Frame) -> None:
            if isinstance(frame.body, Claim):
                forger.send(COORDINATOR, Frame(Claimed(run=frame.body.run, worker="b")), CONTROL)
            elif isinstance(frame.body, Deploy):
                forger.send(COORDINATOR, Frame(Ready(run=frame.body.run, worker="b", warm_block_s=times)), CONTROL)

        forger = agents.network.connect("b")(answer, lambda _member, _present: None)
        coordinator.await_agents(["b"], 30.0)
        with pytest.raises(ExecuteError, match=f"ready from b: {told}"):
            coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0)
        forger.close()


def test_who_is_not_in_a_run_does_not_end_it_and_texts_are_bounded(tmp_path: Path) -> None:
    instance = small_instance(samples=SAMPLES)
    with fleet(tmp_path, *instance.workers) as (agents, coordinator):
        b = agents.agent("b")
        stranger = agents.network.connect("x")(lambda _frame: None, lambda _member, _present: None)

        def forge() -> None:
            assert b._runs.last is not None
            run = b._runs.last.id
            stranger.send(COORDINATOR, Frame(Taken(run=run, worker="x", by=this_process())), CONTROL)
            stranger.send(COORDINATOR, Frame(WorkerFault(run=run, worker="x", what="gone", dropped=True)), CONTROL)
            b._report(Frame(Taken(run="another", worker="b", by=this_process())))
            b._report(Frame(WorkerFault(run=run, worker="b", what="\x1b[2J no memory " * 100_000)))

        measured = coordinator.run(small_deployment(instance, SPLIT), ready_timeout_s=30.0, observer=After((15, forge)))
        stranger.close()
    assert assert_accounted(instance, measured) == {}
    assert [worker for worker, _ in said(measured)] == ["b"]
    assert len(said(measured)[0][1]) < 5000
    assert said(measured)[0][1].startswith("\\x1b[2J no memory")
