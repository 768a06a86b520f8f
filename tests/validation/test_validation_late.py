"""Deadlines on agent processes over Zenoh: late samples finished or dropped, and what a validation says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.cli import main
from planner.simulation.replications import RunSpec, simulate_case
from planner.trace.metrics import Distribution
from planner.trace.records import SampleRecord, read_records
from planner.validation.verdict import SourceComparison
from tests.execution.rig import small_instance

ROOT = Path(__file__).parents[2]
SAMPLES = 40
SCENARIO = f"""
schema: planner/scenario/v1
profiles: [{ROOT}/profiles]
models:
  fashion: {{path: {ROOT}/models/resnet56-exits-fashion.onnx}}
workers:
  box:    {{device_class: x86-64, memory: 512 MiB, speed: 0.012}}
  helper: {{device_class: x86-64, memory: 512 MiB, speed: 0.012}}
networks:
  lan: {{kind: shared, members: [box, helper], bandwidth: 20 Mbit/s, latency: 2 ms}}
sources:
  camera: {{worker: box, models: [fashion], rate: 4 /s, priority: 8, deadline: 900 ms, late: LATE, samples: {SAMPLES}}}
  other: {{worker: box, models: [fashion], rate: 4 /s, deadline: 600 ms, late: LATE, samples: {SAMPLES}}}
events:
  - {{at: 2 s, source: other, action: rate, rate: 60 /s}}
"""


def exit_code(words: list[str | Path]) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def validated(folder: Path, late: str, policy: str) -> tuple[dict[str, Any], list[SampleRecord]]:
    (folder / "scenario.yaml").write_text(SCENARIO.replace("LATE", late), encoding="utf-8")
    assert (
        exit_code(["solve", folder / "scenario.yaml", "-o", folder / "plan.json", "--json", "--time-limit", "3 s"]) == 0
    )
    words: list[str | Path] = ["validate", folder / "plan.json", "--local", "--policy", policy, "--tolerance", "100 %"]
    assert exit_code([*words, "-o", folder / "run"]) in {0, 1}  # 1 where delays are longer, on a busy machine
    ended = [record for record in read_records(folder / "run" / "measured.jsonl") if isinstance(record, SampleRecord)]
    return json.loads((folder / "run" / "result.json").read_text(encoding="utf-8")), ended


@pytest.mark.parametrize(("late", "policy"), [("finish", "planned"), ("drop", "adaptive")])
def test_late_samples_are_counted_and_dropped_ones_named(
    late: str, policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, ended = validated(tmp_path, late, policy)
    shown = capsys.readouterr().out
    assert (found["lost"], found["failed"]) == (0, 0)
    other = found["sources"]["other"]
    for run in ("predicted", "measured"):
        assert other[run]["miss_share"] > 0
        assert (other[run]["dropped"] > 0) == (late == "drop")
    dropped = [record for record in ended if record.status == "dropped"]
    assert len(dropped) == sum(own["measured"]["dropped"] for own in found["sources"].values())
    assert all(record.late_s is not None and record.late_s >= 0 for record in dropped)
    assert bool(found["drops"]) == bool(dropped)
    for line, record in zip(found["drops"], dropped, strict=False):
        assert line in shown
        assert "miss its deadline by" in line or "more were dropped" in line
        assert line.startswith(f"{record.source}, sample {record.sample} ") or "more were dropped" in line
    for own in found["sources"].values():
        assert set(own["intervals"]) == {"p50_delay_s", "p95_delay_s", "p99_delay_s", "miss_share"}
        for name, (low, high) in own["intervals"].items():
            assert low <= own["measured"][name] <= high
    assert "late or dropped" in shown


def test_the_share_that_a_timeout_dropped_is_compared_too() -> None:
    busy = small_instance(samples=40, rate_per_s=80.0)
    instance = busy.with_sources({name: {"queue_timeout_s": 0.02} for name in busy.sources})
    own = simulate_case(instance, None, RunSpec("local", 1)).metrics.sources["other"]
    shares = {figure.name: figure for figure in SourceComparison(own, own, inputs=1).figures if "share" in figure.name}
    assert list(shares) == ["drop_share"]
    found = shares["drop_share"]
    assert found.measured == own.dropped / own.offered > 0
    assert found.interval.low < found.measured < found.interval.high
    none = replace(own, dropped=0)
    assert all("share" not in figure.name for figure in SourceComparison(none, none, inputs=1).figures)


def test_intervals_of_percentiles_are_between_order_statistics() -> None:
    """The median of 100 values lies between the 40th and the 61st with 95 % (tables of the binomial distribution)."""
    delays = Distribution()
    for value in range(1, 101):
        delays.add(float(value))
    low, high = delays.percentile_interval(50)
    assert (round(low), round(high)) == (41, 60)
    assert delays.percentile_interval(99)[1] == 100
    one = Distribution()
    one.add(3.0)
    assert one.percentile_interval(95) == (3.0, 3.0)
