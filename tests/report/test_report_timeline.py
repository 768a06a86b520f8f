from __future__ import annotations

import itertools
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.report.figure import PALETTE, source_colours, text_colour
from planner.report.timeline import Bar, assign_lanes, busiest_window, draw_timeline, join_spans
from planner.trace.records import SampleRecord, TransferRecord
from tests.instances import make_instance
from tests.report.runs import small_run

SPAN = st.tuples(st.floats(0, 10), st.floats(0, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def drawn(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_png_is_1600_by_900(tmp_path: Path) -> None:
    path = tmp_path / "run" / "timeline.png"
    draw_timeline(small_run(), path, predicted=small_run(0.4))
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (1600, 900)


def test_panels_rows_and_legend_are_labelled(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline(small_run(), path, predicted=small_run(0.4))
    text = drawn(path)
    for label in ("Predicted (simulated)", "Measured", "Time since the start of the run [s]", "sample arrived"):
        assert text.count(f">{label}<") == 1
    for row in ("box", "hut", "lan", "samples", "workers", "networks"):
        assert text.count(f">{row}<") == 2  # once per panel
    for source in ("gate", "yard"):
        assert text.count(f">{source}<") == 3  # once per panel, and in the legend
    assert all(colour.lower() in text for colour in PALETTE[:2])
    assert "sample failed" not in text


def test_a_single_run_has_one_panel_without_title(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline(small_run(), path)
    assert ">Measured<" not in drawn(path)
    assert drawn(path).count(">box<") == 1


def test_failed_samples_are_in_the_legend(tmp_path: Path) -> None:
    path = tmp_path / "timeline.svg"
    draw_timeline([*small_run(), SampleRecord("gate", 99, 0.0, 3.0, "failed", "timed out")], path)
    assert ">sample failed<" in drawn(path)


def test_an_instance_gives_order_and_idle_rows(tmp_path: Path) -> None:
    instance = make_instance()
    path = tmp_path / "timeline.svg"
    draw_timeline([], path, instance=instance)
    for name in (*instance.workers, *instance.resources):
        assert f">{name.replace('>', '&gt;')}<" in drawn(path)


def test_a_window_excludes_everything_outside(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.svg", tmp_path / "part.svg"
    draw_timeline(small_run(samples=50), whole)
    draw_timeline(small_run(samples=50), part, window_s=(3.0, 4.0))
    assert part.stat().st_size < whole.stat().st_size


def test_wide_bars_are_labelled(tmp_path: Path) -> None:
    narrow, wide = tmp_path / "narrow.svg", tmp_path / "wide.svg"
    draw_timeline(small_run(samples=100), narrow)
    draw_timeline(small_run(samples=100), wide, window_s=(3.0, 4.0))
    assert ">number: block, or cut of a transfer<" not in drawn(narrow)
    assert ">number: block, or cut of a transfer<" in drawn(wide)


def test_bars_thinner_than_a_pixel_are_visible(tmp_path: Path) -> None:
    """Transfers of 1 ms in 100 s take a fraction of a pixel, at different offsets to the pixel grid."""
    from matplotlib.image import imread

    path = tmp_path / "thin.png"
    starts_s = [2.017 * index for index in range(50)]
    draw_timeline([TransferRecord("lan", "a", "b", "gate", 0, 0, 1, at_s, at_s + 1e-3) for at_s in starts_s], path)
    row = imread(path)[700, :, :3]  # through the bars of the network
    coloured = row.min(axis=1) < 0.8
    assert np.count_nonzero(coloured[1:] & ~coloured[:-1]) >= len(starts_s)


def test_the_same_run_gives_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        draw_timeline(small_run(), path, predicted=small_run())
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_unknown_format_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "timeline.gif"
    with pytest.raises(UsageError) as caught:
        draw_timeline(small_run(), path)
    assert str(caught.value) == (
        f"{path}: unknown picture format; found '.gif'; expected a file that ends in .svg or .png"
    )
    assert not path.exists()


def test_without_matplotlib_the_message_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install \"\.\[report\]\""):
        draw_timeline(small_run(), tmp_path / "timeline.svg")


@given(st.lists(SPAN, max_size=30))
def test_bars_of_a_lane_never_overlap_and_lanes_are_few(spans: list[tuple[float, float]]) -> None:
    packed = assign_lanes([Bar(start_s, end_s, "s", "") for start_s, end_s in spans])
    assert sorted((bar.start_s, bar.end_s) for bar, _ in packed) == sorted(spans)
    lanes = 1 + max((lane for _, lane in packed), default=-1)
    for lane in range(lanes):
        lane_spans = sorted((bar.start_s, bar.end_s) for bar, bar_lane in packed if bar_lane == lane)
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(lane_spans))
    # The minimum number of lanes is the largest number of simultaneous bars; bars of zero length do not count.
    crowd = max((sum(a <= start_s < b for a, b in spans) for start_s, _ in spans), default=0)
    assert lanes <= max(crowd, min(len(spans), 1)) + sum(a == b for a, b in spans)


@given(st.lists(SPAN, max_size=30), st.floats(0, 1))
def test_joined_spans_cover_the_originals_and_lie_apart(spans: list[tuple[float, float]], gap_s: float) -> None:
    joined = join_spans(spans, gap_s)
    assert all(any(a <= start_s and end_s <= b for a, b in joined) for start_s, end_s in spans)
    assert {start_s for start_s, _ in joined} <= {start_s for start_s, _ in spans}
    assert {end_s for _, end_s in joined} <= {end_s for _, end_s in spans}
    assert all(later[0] - earlier[1] > gap_s for earlier, later in itertools.pairwise(joined))


@given(st.lists(SPAN, min_size=1, max_size=20), st.floats(0.1, 5.0))
def test_the_busiest_window_is_the_best_that_starts_with_an_arrival(
    spans: list[tuple[float, float]], length_s: float
) -> None:
    records = [SampleRecord("s", index, *span, "completed") for index, span in enumerate(spans)]
    start_s, end_s = busiest_window(records, length_s)
    assert end_s == pytest.approx(start_s + length_s)

    def in_flight_s(begin_s: float) -> float:
        return sum(max(0.0, min(b, begin_s + length_s) - max(a, begin_s)) for a, b in spans)

    best_s = max(in_flight_s(begin_s) for begin_s in [0.0, *(a for a, _ in spans)])
    assert in_flight_s(start_s) == pytest.approx(best_s, abs=1e-9)


def test_the_busiest_window_of_a_long_run_is_found_in_memory_that_grows_with_its_samples_only() -> None:
    crowd = [SampleRecord("s", 50_000 + index, 700.0, 701.0, "completed") for index in range(9)]
    records = [SampleRecord("s", index, 0.02 * index, 0.02 * index + 0.03, "completed") for index in range(50_000)]
    tracemalloc.start()
    try:
        assert busiest_window([*records, *crowd], 1.0) == pytest.approx((700.0, 701.0))
        assert tracemalloc.get_traced_memory()[1] < 500 * len(records)
    finally:
        tracemalloc.stop()


def test_a_run_without_samples_has_a_window() -> None:
    assert busiest_window([], 3.0) == (0.0, 3.0)


def test_sources_keep_their_colours_in_order() -> None:
    assert source_colours(["b", "a"]) == {"b": PALETTE[0], "a": PALETTE[1]}
    assert len(source_colours(map(str, range(20)))) == 20


@pytest.mark.parametrize("colour", PALETTE)
def test_text_is_readable_on_every_colour(colour: str) -> None:
    lightness = [luminance(colour), 0.0 if text_colour(colour) == "black" else 1.0]
    assert (max(lightness) + 0.05) / (min(lightness) + 0.05) >= 3.0  # WCAG 2: large text and graphics


def luminance(colour: str) -> float:
    """Return the relative luminance by WCAG 2."""
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
