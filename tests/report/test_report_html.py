"""The page of a report, without a browser: its structure, its data, and that it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pytest

from planner.report.html.data import ReportData
from planner.report.html.page import live_page, report_page
from planner.report.html.tracks import MAX_SLICES, TraceColumns
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from tests.report.pages import HOSTILE, Page, report_data, run_data, simulated, two_sources
from tests.report.runs import small_run

LIMIT_BYTES = 10_000_000


def packed(records: list[Record]) -> TraceColumns:
    columns = TraceColumns()
    for record in records:
        columns.add(record)
    return columns


def columns_of(text: str, count: int, sizes: tuple[int, ...], steps: tuple[bool, ...]) -> list[np.ndarray]:
    raw, offset, columns = zlib.decompress(base64.b64decode(text)), 0, []
    for size, stepped in zip(sizes, steps, strict=True):
        column = np.frombuffer(raw, f"<u{size}", count, offset)
        columns.append(np.cumsum(column, dtype=column.dtype) if stepped else column)
        offset += size * count
    assert offset == len(raw)
    return columns


def test_a_page_loads_nothing_and_runs_only_its_own_script() -> None:
    instance, plan = two_sources()
    for text in (report_page(report_data(run_data(instance, plan, ("run", simulated(instance, plan))))), live_page()):
        page = Page(text)
        assert not [value for _, attributes in page.elements for value in attributes.values() if "//" in (value or "")]
        assert re.findall(r"https?://[^\"'\s]+", text) == ["http://www.w3.org/2000/svg"]  # a name, never asked for
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
        policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
        assert policy is not None
        assert policy.startswith("default-src 'none'; ")
        for kind, content in (("script", page.texts["script"][1]), ("style", page.texts["style"][0])):
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert "eval(" not in text
        assert "innerHTML" not in text


def test_names_from_files_stay_text() -> None:
    instance, plan = two_sources(names=(HOSTILE, "__proto__"))
    text = report_page(ReportData(title=HOSTILE, version=HOSTILE, runs=(run_data(instance, plan, name=HOSTILE),)))
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in [tag for tag, _ in page.elements]
    assert "\u2028" not in text.split('id="data">')[1]
    assert page.data["runs"][0]["name"] == HOSTILE
    assert [source["name"] for source in page.data["runs"][0]["scene"]["sources"]] == [HOSTILE, "__proto__"]


def test_the_data_are_what_the_models_say() -> None:
    instance, plan = two_sources()
    data = report_data(run_data(instance, plan, ("run", simulated(instance, plan))))
    assert ReportData.model_validate(Page(report_page(data)).data) == data
    assert json.loads(json.dumps(ReportData.model_json_schema()))["properties"].keys() == {"title", "version", "runs"}


def test_a_trace_is_packed_without_loss() -> None:
    records = small_run()
    trace = packed(records).packed("run")
    assert trace.sources == ("gate", "yard")
    assert [(track.kind, track.name) for track in trace.tracks] == [
        ("worker", "box"),
        ("worker", "hut"),
        ("link", "lan"),
    ]
    sample, start, length, size, track, source, first, last = columns_of(
        trace.slices, trace.slice_count, (4, 4, 4, 4, 2, 2, 2, 2), (True, True, *[False] * 6)
    )
    found = {
        (
            trace.tracks[t].name,
            trace.sources[s],
            int(k),
            int(a),
            int(b),
            int(z),
            round(x * trace.tick_s, 6),
            round(d * trace.tick_s, 6),
        )
        for k, x, d, z, t, s, a, b in zip(sample, start, length, size, track, source, first, last, strict=True)
    }
    work = [record for record in records if not isinstance(record, SampleRecord)]
    assert found == {
        (
            record.worker if isinstance(record, BlockRecord) else record.resource,
            record.source,
            record.sample,
            *((record.block, record.block, 0) if isinstance(record, BlockRecord) else (record.cut, record.cut, 1000)),
            record.start_s,
            round(record.end_s - record.start_s, 6),
        )
        for record in work
    }
    created, delay, source, status = columns_of(
        trace.samples, trace.sample_count, (4, 4, 2, 2), (True, False, False, False)
    )
    assert sorted((created * trace.tick_s).round(6).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set((delay * trace.tick_s).round(6).tolist()) == {0.5}
    assert not status.any()


def test_blocks_that_follow_each_other_become_one_slice_and_others_do_not() -> None:
    records: list[Record] = [
        BlockRecord("box", "gate", 0, 0, 0.0, 0.1),
        BlockRecord("box", "gate", 0, 1, 0.1, 0.2),
        BlockRecord("box", "yard", 0, 0, 0.2, 0.25),
        BlockRecord("box", "gate", 0, 2, 0.25, 0.3),  # after more urgent work
        TransferRecord("lan", "box", "hut", "gate", 0, 3, 10, 0.3, 0.4),
        TransferRecord("lan", "hut", "box", "gate", 0, 4, 10, 0.4, 0.5),
    ]
    trace = packed(records).packed("run")
    *_, first, last = columns_of(trace.slices, trace.slice_count, (4, 4, 4, 4, 2, 2, 2, 2), (True, True, *[False] * 6))
    assert sorted(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 2), (3, 3), (4, 4)]


def test_delays_and_queues_add_up() -> None:
    instance, plan = two_sources(samples=300)
    records = simulated(instance, plan)
    trace = packed(records).packed("run", deadlines=instance.deadlines)
    ended = [record for record in records if isinstance(record, SampleRecord)]
    for source, delays in trace.delays.items():
        delays_s = [record.delay_s for record in ended if record.source == source]
        assert delays.completed == len(delays_s)
        assert delays.mean_s == pytest.approx(np.mean(delays_s), rel=1e-5)
        assert delays.p95_s == pytest.approx(np.percentile(delays_s, 95), rel=1e-5)
        assert delays.quantiles_s[-1] == pytest.approx(max(delays_s), rel=1e-5)
    assert trace.delays["gate"].late == sum(record.delay_s > 0.2 for record in ended if record.source == "gate")
    # By Little's law the mean number in flight is the total delay divided by the length of the run.
    for series in trace.queues:
        if series.kind == "source":
            total_s = sum(record.delay_s for record in ended if record.source == series.name)
            assert np.mean(series.values) == pytest.approx(total_s / trace.end_s, abs=2e-3)
    # Samples wait or are worked on; latency, which records leave out, counts as waiting here.
    work_s = sum(record.end_s - record.start_s for record in records if not isinstance(record, SampleRecord))
    waiting = sum(np.mean(series.values) for series in trace.queues if series.kind != "source") * trace.end_s
    whole_s = sum(record.delay_s for record in ended)
    assert work_s + waiting <= whole_s * 1.001 + 0.01
    assert work_s + waiting == pytest.approx(
        whole_s, rel=0.1
    )  # the last latency, after a sample's last slice, is in neither


def test_a_run_without_samples_and_a_failed_one_are_shown() -> None:
    assert TraceColumns().packed("run").tracks == ()
    lost = packed(
        [SampleRecord("gate", 0, 0.0, 1.0, "failed", "no worker"), SampleRecord("gate", 1, 0.0, 1.0, "dropped")]
    )
    trace = lost.packed("run")
    assert (trace.delays["gate"].failed, trace.delays["gate"].dropped, trace.delays["gate"].mean_s) == (1, 1, None)


def test_of_a_longer_run_the_timeline_shows_the_beginning() -> None:
    trace = packed(small_run(samples=50)).packed("run", max_slices=40)
    assert trace.slice_count == 40
    assert 0 < trace.shown_s < trace.end_s
    assert trace.sample_count == 100
    assert MAX_SLICES > 100_000


@pytest.mark.parametrize("samples", [1000, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.nightly])])
def test_forty_thousand_samples_fit(samples: int) -> None:
    """So do fewer, into as much less space."""
    empty, full = (page_of(number) for number in (1, samples))
    assert sum(trace["sample_count"] for trace in Page(full).data["runs"][0]["traces"]) == 4 * samples
    empty_bytes = len(empty.encode())
    assert len(full.encode()) - empty_bytes < (LIMIT_BYTES - empty_bytes) * samples / 20_000


def page_of(samples: int) -> str:
    """Return the report on two runs, each with so many samples of two sources."""
    instance, plan = two_sources(samples=samples)
    runs = [(label, simulated(instance, plan, seed)) for seed, label in enumerate(("predicted", "measured"))]
    return report_page(report_data(run_data(instance, plan, *runs)))
