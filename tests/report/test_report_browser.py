"""Pages in a real browser, where there is one: nothing on the console, nothing from elsewhere, everything drawn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from planner.report.html.data import Scene
from planner.report.html.page import live_page, report_page
from tests.report.pages import HOSTILE, opened, report_data, run_data, simulated, two_sources

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_report_draws_all_and_asks_nobody(tmp_path: Path, width: int, scheme: str) -> None:
    instance, plan = two_sources()
    runs = [(label, simulated(instance, plan, seed)) for seed, label in enumerate(("predicted", "measured"))]
    page = tmp_path / "report.html"
    page.write_text(report_page(report_data(run_data(instance, plan, *runs))), encoding="utf-8")
    text, said, requested = opened(tmp_path, page.as_uri(), width=width, scheme=scheme)
    assert 'data-ready="yes"' in text
    assert said == []
    assert requested == []
    for part in ("routes", "delays", "timeline", "queues", "bound", "profiles", "origin"):
        assert f'<section id="{part}">' in text
    assert text.count("<canvas") == 3  # an overview and two traces
    assert "slow: 0 → fast: 1–2" in text


def test_several_runs_stand_side_by_side_and_hostile_names_stay_text(tmp_path: Path) -> None:
    instance, plan = two_sources(names=(HOSTILE, "__proto__"))
    data = run_data(instance, plan, ("simulated", simulated(instance, plan)), name=HOSTILE)
    page = tmp_path / "report.html"
    page.write_text(report_page(report_data(data, data.model_copy(update={"name": "other"}))), encoding="utf-8")
    text, said, requested = opened(tmp_path, page.as_uri())
    assert 'data-ready="yes"' in text
    assert said == []
    assert requested == []
    assert "<img" not in text.split("<main")[1]
    assert text.count("<canvas") == 4


def state() -> dict[str, Any]:
    instance, plan = two_sources()
    empty = dict.fromkeys(("predicted_mean_delay_s", "rate_per_s", "completed", "failed", "dropped", "waiting"))
    return {
        "name": "street",
        "started_unix_s": 1_800_000_000.0,
        "now_unix_s": 1_800_000_120.0,
        "plan": plan.model_dump(mode="json", by_alias=True),
        "scene": Scene.of(instance).model_dump(mode="json"),
        "workers": {
            "slow": {
                "present": True, "utilisation": 0.4, "queue": 3, "blocks_done": 12, "device": "jetson-nano",
                "temperature_celsius": 61.2, "power_w": 7.5,
            },
            "fast": dict.fromkeys(("present", "utilisation", "queue", "blocks_done", "device")) | {"present": False},
        },
        "sources": {
            "gate": {
                **empty, "predicted_mean_delay_s": 0.05, "rate_per_s": 9.5, "completed": 100, "failed": 0,
                "delay_s": {"mean": 0.06, "p50": 0.05, "p95": 0.09, "p99": None},
                "recent": [[1_800_000_100.0 + index, 0.05] for index in range(10)],
            },
            HOSTILE: {**empty, "delay_s": dict.fromkeys(("mean", "p50", "p95", "p99")), "recent": []},
        },
        "links": {"slow->fast": {"bytes": 10**6, "bandwidth_bytes_per_s": 1e6, "age_s": 4.0}},
        "incidents": [{"unix_s": 1_800_000_050.0, "severity": "error", "text": f"fast left {HOSTILE}"}],
        "changes": [{"unix_s": 1_800_000_060.0, "lines": ["gate moves from fast to slow; +12 ms"]}],
    }  # fmt: skip


@contextmanager
def served(answer: dict[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    """Serve the live page with a state; None for a service that fails. Yield its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            page = self.path == "/"
            body = live_page().encode() if page else json.dumps(answer).encode()
            self.send_response(200 if page or answer is not None else 503)
            self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("width", "scheme", "left_out"), [(1280, "light", ()), (400, "dark", ("scene",))])
def test_the_live_page_draws_the_state_and_asks_only_its_service(
    tmp_path: Path, width: int, scheme: str, left_out: tuple[str, ...]
) -> None:
    answer = {key: value for key, value in state().items() if key not in left_out}
    with served(answer) as (address, asked):
        text, said, requested = opened(tmp_path, address, width=width, scheme=scheme, patience_ms=3500)
    assert said == []
    assert requested == [f"{address}state"]
    assert asked.count("/state") > 1
    for shown in ("street", "left: fast", "gate moves from fast to slow; +12 ms", "3 waiting", "predicted"):
        assert shown in text
    assert "<img" not in text.split("<main")[1]


def test_the_live_page_says_that_nobody_answers(tmp_path: Path) -> None:
    with served(None) as (address, _):
        text, _, _ = opened(tmp_path, address, patience_ms=3500)
    assert "no answer (answered 503); trying again" in text
