"""What a session measures for a new plan: samples by source, where runs of sequences count as parts of them."""

from __future__ import annotations

import numpy as np
import pytest

from planner.api.auto import Meter
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.messages import TIMES, TOKENS
from planner.scenario.decode import DecodeSpec
from planner.trace.records import SampleRecord


def test_the_runs_of_sequences_count_as_those_of_so_many_typical_ones() -> None:
    decode = DecodeSpec(prompt=40, max_new=20, chunk=16)
    meter = Meter(Observer())
    for sample in range(6):  # two sequences: the chunks of their prompts, with the first token after the last one
        meter.on_ended(SampleRecord("talk", sample, 0.0, 0.1, "completed"), {})
    for sample, tokens in ((6, 9), (7, 10), (8, 19)):  # and 19 steps each
        outputs = {TOKENS: np.zeros(tokens, np.int64), TIMES: np.zeros(tokens)}
        meter.on_ended(SampleRecord("talk", sample, 0.0, 0.1, "completed"), outputs)
    meter.on_ended(SampleRecord("camera", 0, 0.0, 0.1, "completed"), {})
    window = meter.take({"talk": 1.0, "camera": 1.0}, {"talk": len(decode.runs)})
    assert window.arrived == pytest.approx({"talk": 2.0, "camera": 1.0})
    assert meter.take({}, {}).arrived == {}
