"""The memory of members does not grow with the samples that have ended, so that a run may last for hours."""

from __future__ import annotations

import gc
import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.execution.agent.event_log import EventLog
from planner.execution.coordinator.collected import Outputs, StepLogs
from planner.execution.coordinator.completions import CompletionTracker, NumberSet
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.session import LiveSession
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import (
    COORDINATOR,
    Body,
    Claim,
    Claimed,
    Deploy,
    Ended,
    Load,
    Ready,
    Report,
    Stop,
    Submit,
)
from planner.execution.wire.transport import CONTROL
from planner.policy.types import SampleKey
from planner.runtime.input_pool import input_pool
from planner.trace.records import Origin, SampleRecord
from planner.worker.events import STEPS, Arrived, Effect, SetTimer, Step, TimedOut, Timer
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import MODEL, SPLIT, agents_in_threads, small_deployment, small_instance

SAMPLES = 1000
TIMERS = (TimedOut, Timer, SampleKey)
"""Kept for some seconds, of samples that have ended too."""


def planners_objects() -> Counter[type]:
    """Count the objects of each of this package's classes in all members of this process."""
    gc.collect()
    kinds = (type(found) for found in gc.get_objects())
    return Counter(kind for kind in kinds if str(kind.__module__).startswith("planner.") and kind not in TIMERS)


class Scales(Observer):
    """Counts the objects of all members when the last sample has ended, and what was done at last has been told."""

    def __init__(self, coordinator: Coordinator, before: Counter[type], *, live: bool) -> None:
        self._coordinator = coordinator
        self._before = before
        self._live = live
        self._inputs = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=0, samples=1)[0]
        self._handed_in = self._ended = 0
        self.kept: Counter[type] = Counter()

    def on_started(self, submit: Callable[[str, int, Tensors], None]) -> None:
        self._submit = submit
        for _ in range(4 if self._live else 0):
            self._hand_in()

    def _hand_in(self) -> None:
        self._submit("urgent", self._handed_in, self._inputs)
        self._handed_in += 1

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002
        self._ended += 1
        if self._ended == SAMPLES:
            self._weigh()
        if self._live and self._ended < SAMPLES:
            self._hand_in()
        elif self._live:
            self._coordinator.stop()

    def _weigh(self) -> None:
        until_s = time.monotonic() + 20.0
        self.kept = planners_objects() - self._before
        while max(self.kept.values(), default=0) >= SAMPLES / 4 and time.monotonic() < until_s:
            time.sleep(0.1)  # agents tell every half second what they did
            self.kept = planners_objects() - self._before


@pytest.mark.parametrize("live", [False, True], ids=["measured", "live"])
def test_members_keep_no_objects_of_samples_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    monkeypatch.setattr("planner.trace.store._PIECE", 50)  # those that will be written together are kept until then
    before = planners_objects()  # what other tests have left in this process
    instance = small_instance(samples=SAMPLES // 2, rate_per_s=100.0)
    deployment = replace(small_deployment(instance, SPLIT), live=live)
    with agents_in_threads(instance.workers, tmp_path) as coordinator:
        scales = Scales(coordinator, before, live=live)
        measured = coordinator.run(deployment, ready_timeout_s=30.0, observer=scales)
    made: Counter[type] = Counter(type(record) for record in measured.records)
    made[Step] = sum(map(len, measured.steps.values()))
    assert scales.kept
    assert {kind: number for kind, number in scales.kept.items() if number >= max(made[kind], SAMPLES) / 4} == {}
    if not live:
        assert made[SampleRecord] == SAMPLES
        assert len(measured.outputs) == SAMPLES
    else:
        assert len(measured.records) == 0
        assert not any(measured.steps.values())


def _answers(name: str, body: Body) -> Iterator[Frame]:
    """Yield what a worker answers that ends each sample at once, and reports its load now and then."""
    if isinstance(body, Claim):
        yield Frame(Claimed(run=body.run, worker=name))
    elif isinstance(body, Deploy):
        yield Frame(Ready(run=body.run, worker=name, warm_block_s={}))
    elif isinstance(body, Submit):
        record = SampleRecord(body.source, body.sample, 0.0, 0.1, "completed", origin=Origin("small"))
        yield Frame(Ended(run=body.run, worker=name, samples=(record,)), {"t3": np.ones((1, 32), np.float32)})
        if body.sample % 10 == 0:
            yield Frame(Load(run=body.run, worker=name, at_s=float(body.sample), queued=0, busy_s=0.1))
    elif isinstance(body, Stop):
        yield Frame(Report(run=body.run, worker=name, duplicates=0, late_blocks=0))


def test_a_live_coordinator_keeps_no_memory_of_samples_that_have_ended() -> None:
    """Counted are all blocks of memory, not only the planner's objects: a number in a dict is one."""
    network, instance, taken = MemoryNetwork(), small_instance(), SAMPLES

    def take(name: str, frame: Frame) -> None:
        for answer in _answers(name, frame.body):
            members[name].send(COORDINATOR, answer, CONTROL)

    members = {
        name: network.connect(name)(partial(take, name), lambda _member, _present: None) for name in instance.workers
    }
    blocks = []
    with Coordinator(network.connect(COORDINATOR)) as coordinator:
        deployment = replace(small_deployment(instance, SPLIT), live=True)
        with LiveSession(deployment, nullcontext(coordinator), ready_timeout_s=30.0) as session:
            source = session.source("urgent")
            for number in range(2 * taken):
                assert source.submit({"t0": np.ones((1, 32), np.float32)}).result(30.0).sample == number
                if number + 1 in {taken, 2 * taken}:
                    gc.collect()
                    blocks.append(sys.getallocatedblocks())
    assert blocks[1] - blocks[0] < taken / 4


@given(st.lists(st.integers(0, 60), max_size=80))
def test_numbers_are_a_set(numbers: list[int]) -> None:
    found = NumberSet()
    for place, number in enumerate(numbers):
        assert found.add(number) == (number not in numbers[:place])
    assert len(found) == len(set(numbers))
    assert all((number in found) == (number in numbers) for number in range(62))


def test_completions_keep_only_what_is_out_of_order() -> None:
    instance = small_instance(samples=1000)
    completions = CompletionTracker(instance, seed=3)
    chance = np.random.default_rng(1)
    for start in range(0, 1000, 30):
        for sample in chance.permutation(np.arange(start, min(start + 30, 1000))):
            assert completions.add(SampleRecord("urgent", int(sample), 0.0, 1.0, "completed"))
        assert not completions._ended["urgent"]._above
    assert not completions.add(SampleRecord("urgent", 17, 0.0, 2.0, "failed", "late"))
    assert completions.complete("urgent")
    assert not completions.complete("other")
    lost = list(completions.unreported({}, 99.0))
    assert [(record.source, record.sample) for record in lost] == [("other", sample) for sample in range(1000)]
    assert {record.reason for record in lost} == {"no end was reported before the run was over"}


def test_an_output_shared_by_samples_is_kept_once() -> None:
    log, outputs = EventLog(live=False), Outputs()
    tensors = [{"y": np.full(1000, value, np.float32)} for value in range(3)]
    for sample in range(1, 3000):
        log.add_output("urgent", sample, {"y": tensors[sample % 3]["y"].copy()})
    told = list(log.outputs())
    assert [len(own.samples) for own in told] == [1000, 1000, 999]
    for own in told:
        outputs.add(own.source, own.samples, own.tensors)
    assert len(outputs) == len(list(outputs)) == 2999
    assert all(outputs[key]["y"][0] == key[1] % 3 for key in outputs)
    for missing in (("urgent", 0), ("urgent", 3000), ("urgent", -1), ("other", 1)):
        assert missing not in outputs


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_pieces_of_a_log_of_steps_form_one_file(pieces: int) -> None:
    logs, steps = StepLogs(), []
    logs.begin("a")
    for piece in range(pieces):
        log = EventLog(live=False)
        for number in range(2):
            effects: list[Effect] = [SetTimer(Timer("result", SampleKey("urgent", number, 0)), 3.0)]
            steps.append(Step(float(2 * piece + number), Arrived("urgent", 2 * piece + number), effects))
            log.add_step(steps[-1])
        logs.add("a", log.flush())
        assert not log.flush()
    file = io.BytesIO()
    logs.write("a", file)
    assert STEPS.validate_json(file.getvalue()) == logs["a"] == steps
    assert "a" in logs
    assert "b" not in logs
