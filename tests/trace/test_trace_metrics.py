from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import PlannerError
from planner.trace.metrics import EXACT, Distribution, interval, summarise
from planner.trace.records import (
    BlockRecord,
    Origin,
    Record,
    SampleRecord,
    read_records,
    record_file,
    write_records,
)

PERCENT = (0, 1, 50, 95, 99, 100)


def distribution(values: list[float]) -> Distribution:
    result = Distribution()
    for value in values:
        result.add(value)
    return result


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_few_values_are_exact(values: list[float]) -> None:
    measured = distribution(values)
    assert measured.percentiles(PERCENT) == pytest.approx(np.percentile(values, PERCENT), rel=1e-12)
    assert measured.mean == pytest.approx(np.mean(values))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["gamma", "lognormal", "two values"]), st.integers(EXACT + 1, 3 * EXACT))
def test_many_values_are_within_a_quarter_of_a_per_cent(seed: int, kind: str, count: int) -> None:
    random = np.random.default_rng(seed)
    values = {
        "gamma": random.gamma(0.5, 0.02, count),
        "lognormal": random.lognormal(-3, 2, count),
        "two values": random.choice([0.01, 7.0], count),
    }[kind]
    values = np.maximum(values, 1e-6)
    measured = distribution(values.tolist())
    assert measured.percentiles(PERCENT) == pytest.approx(np.percentile(values, PERCENT), rel=0.0025)
    assert measured.mean == pytest.approx(values.mean())
    assert measured.count == count


def test_memory_does_not_grow_with_the_values() -> None:
    measured = distribution(np.random.default_rng(0).lognormal(-3, 1, 20 * EXACT).tolist())
    assert len(measured._values) == 0
    assert len(measured._bins) < EXACT


def test_a_delay_of_zero_is_counted() -> None:
    assert distribution([0.0] * (EXACT + 1)).percentiles([50])[0] < 1e-8


@pytest.mark.parametrize("count", [2, 3, 8, 30, 31, 32, 100])
def test_intervals_follow_students_t_distribution(count: int) -> None:
    stats: Any = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(count).normal(5.0, 2.0, count)
    mean, half_width = interval(values.tolist())
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert mean == pytest.approx((low + high) / 2)
    assert half_width == pytest.approx((high - low) / 2, rel=2e-3)


def test_one_value_has_no_interval() -> None:
    assert interval([3.0]) == (3.0, None)


def records() -> list[Record]:
    return [
        BlockRecord("a", "gate", 0, 0, 1.0, 3.0),
        SampleRecord("gate", 0, 1.0, 3.0, "completed"),
        SampleRecord("gate", 1, 2.0, 3.5, "failed", "a left"),
        SampleRecord("yard", 0, 0.0, 4.0, "completed"),
    ]


def test_a_run_is_summarised_by_source_and_weighted_by_priority() -> None:
    metrics = summarise(records(), {"gate": 3.0, "yard": 1.0, "door": 1.0}, ["a", "b"])
    assert metrics.makespan_s == 4.0
    assert metrics.utilisation == {"a": 0.5, "b": 0.0}
    gate = metrics.sources["gate"]
    assert (gate.offered, gate.completed, gate.failed, gate.mean_delay_s) == (2, 1, 1, 2.0)
    assert gate.throughput_per_s == pytest.approx(0.5)
    assert metrics.sources["door"].mean_delay_s is None
    assert metrics.priority_weighted_delay_s == pytest.approx((3 * 2.0 + 1 * 4.0) / 4)
    assert list(metrics.sources) == ["gate", "yard", "door"]


def test_a_run_in_which_nothing_completes_has_no_delay() -> None:
    metrics = summarise([SampleRecord("gate", 0, 0.0, 1.0, "failed", "alone")], {"gate": 1.0}, ["a"])
    assert metrics.priority_weighted_delay_s is None
    assert metrics.sources["gate"].failed == 1


def test_the_record_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "trace.jsonl"
    with record_file(path) as write:
        for record in records():
            write(record)
        assert not path.exists()
    assert read_records(path) == records()


def test_an_interrupted_run_leaves_no_file(tmp_path: Path) -> None:
    def interrupt() -> None:
        with record_file(tmp_path / "trace.jsonl") as write:
            write(records()[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not list(tmp_path.iterdir())


def test_expected_and_measured_accuracy() -> None:
    def ended(sample: int, point: int, *, correct: bool | None) -> SampleRecord:
        origin = Origin("m", point, "early" if point else None)
        return SampleRecord("gate", sample, 0.0, 1.0, "completed", origin=origin, correct=correct)

    ended_samples = [ended(0, 0, correct=True), ended(1, 1, correct=False), ended(2, 1, correct=None)]
    ended_samples.append(SampleRecord("gate", 3, 0.0, 1.0, "failed", "a left"))
    gate = summarise(ended_samples, {"gate": 1.0}, ["a"], {"m": (0.9, 0.6)}).sources["gate"]
    assert gate.accuracy == pytest.approx((0.9 + 0.6 + 0.6) / 3)
    assert (gate.judged, gate.correct, gate.measured_accuracy) == (2, 1, 0.5)
    unknown = summarise(ended_samples[3:], {"gate": 1.0}, ["a"], {"m": (0.9, 0.6)}).sources["gate"]
    assert unknown.accuracy is unknown.measured_accuracy is None


def test_the_origin_of_a_result_is_stored_in_files(tmp_path: Path) -> None:
    origin = Origin("m", 2, "early")
    written = [SampleRecord("gate", 0, 0.0, 1.0, "completed", origin=origin, correct=True)]
    write_records(tmp_path / "trace.jsonl", written)
    assert read_records(tmp_path / "trace.jsonl") == written


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "true", '"1"', "null"])
@pytest.mark.parametrize("key", ["start_s", "end_s", "created_s", "finished_s"])
def test_times_in_a_file_are_finite_numbers(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "trace.jsonl"
    write_records(path, records())
    lines = path.read_text().splitlines()
    at = next(number for number, line in enumerate(lines, start=1) if f'"{key}"' in line)
    lines[at - 1] = re.sub(rf'"{key}":[^,}}]*', f'"{key}":{value}', lines[at - 1])
    path.write_text("\n".join(lines))
    with pytest.raises(PlannerError, match=rf"trace\.jsonl:{at}: not a trace record \({key}: "):
        read_records(path)
