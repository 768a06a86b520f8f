from __future__ import annotations

from pathlib import Path

from planner.report.delays import draw_delays
from planner.trace.records import SampleRecord
from tests.report.runs import small_run


def test_means_percentiles_and_errors_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "delays.svg"
    draw_delays(small_run(0.5), path, predicted=small_run(0.4))
    text = path.read_text(encoding="utf-8")
    assert text.count(">mean 500 ms (predicted 400 ms: +25%)<") == 2
    assert text.count(">95th percentile 500 ms (predicted 400 ms)<") == 2
    assert text.index(">gate<") < text.index(">yard<")
    assert text.count(">Delay [ms]<") == 2
    assert all(text.count(f">{label}<") == 1 for label in ("measured", "predicted", "mean"))


def test_sources_are_drawn_in_the_requested_order(tmp_path: Path) -> None:
    path = tmp_path / "delays.svg"
    draw_delays(small_run(), path, sources=["yard", "gate"])
    text = path.read_text(encoding="utf-8")
    assert text.index(">yard<") < text.index(">gate<")
    assert text.count(">mean 500 ms<") == text.count(">95th percentile 500 ms<") == 2


def test_a_source_without_completed_samples_says_so(tmp_path: Path) -> None:
    path = tmp_path / "delays.svg"
    lost = [SampleRecord("lost", 0, 0.0, 9.0, "failed", "timed out")]
    draw_delays([*small_run(), *lost], path, predicted=small_run())
    assert path.read_text(encoding="utf-8").count(">no sample completed<") == 1


def test_many_sources_take_several_rows(tmp_path: Path) -> None:
    path = tmp_path / "delays.svg"
    draw_delays([SampleRecord(f"s{i}", 0, 0.0, 1.0, "completed") for i in range(7)], path)
    text = path.read_text(encoding="utf-8")
    assert all(f">s{i}<" in text for i in range(7))
    assert text.count(">Fraction of samples completed<") == 3


def test_an_empty_run_gives_a_picture(tmp_path: Path) -> None:
    draw_delays([], tmp_path / "delays.png")
    assert (tmp_path / "delays.png").read_bytes().startswith(b"\x89PNG")
