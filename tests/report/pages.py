"""Pages for tests: made of plans and runs as commands write them, and opened in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, Stage
from planner.report.html.data import ReportData, RunData, Scene, profile_rows
from planner.report.html.tracks import TraceColumns
from planner.scenario.instance import Instance
from planner.simulation.replications import RunSpec, simulate_case
from planner.trace.records import Record
from tests.instances import make_instance, make_profile

HOSTILE = '</script><img src=x onerror=alert(1)>"&\u2028'
"""A name that ends elements, attributes and lines of scripts."""

_NO_PAGE = "not an origin"

EMPTY_ELEMENTS = {"meta", "link", "img", "br", "input"}


def two_sources(samples: int = 40, names: tuple[str, str] = ("gate", "yard")) -> tuple[Instance, PlanSpec]:
    """An instance with two sources and a plan whose routes use both workers and the network."""
    gate, yard = names
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01, 0.02, 0.01])],
        sources={
            gate: {"rate_per_s": 10.0, "priority": 8.0, "samples": samples, "deadline_s": 0.2},
            yard: {"rate_per_s": 5.0, "samples": samples},
        },
    )
    split = Route(model="m", stages=(_stage("slow", 0, 0), _stage("fast", 1, 2)))
    shares = (
        Route(share=0.5, model="m", stages=(_stage("slow", 0, 2),)),
        Route(share=0.5, model="m", stages=(_stage("fast", 0, 2),)),
    )
    evaluation = evaluate(instance, {gate: [split], yard: shares})
    plan = PlanSpec(
        status="feasible",
        method="colgen",
        goal="delay",
        objective=evaluation.objective,
        bound=evaluation.objective * 0.9,
        gap=0.1,
        solve_s=0.5,
        search=((0.1, None, 0.1), (0.2, 2.0, 0.5), (0.5, evaluation.objective, evaluation.objective * 0.9)),
        provenance="measured",
        sources=evaluation.sources,
        workers=evaluation.workers,
        networks=evaluation.networks,
    )
    return instance, plan


def _stage(worker: str, first: int, last: int) -> Stage:
    return Stage(worker=worker, first_block=first, last_block=last)


def simulated(instance: Instance, plan: PlanSpec, seed: int = 0) -> list[Record]:
    """The records of a simulated run."""
    records: list[Record] = []
    simulate_case(instance, plan, RunSpec("planned", seed), records.append)
    return records


def run_data(instance: Instance, plan: PlanSpec, *runs: tuple[str, list[Record]], name: str = "run") -> RunData:
    """What a page shows of an instance, its plan and runs."""
    traces = []
    for label, records in runs:
        columns = TraceColumns()
        for record in records:
            columns.add(record)
        traces.append(columns.packed(label, sources=instance.sources, deadlines=instance.deadlines))
    return RunData(
        name=name,
        kind="simulation",
        command=f"planner simulate {name}",
        scene=Scene.of(instance),
        plan=plan.model_dump(mode="json", by_alias=True),
        profiles=profile_rows(instance),
        traces=tuple(traces),
    )


def report_data(*runs: RunData) -> ReportData:
    return ReportData(title="a report", version="1", runs=runs)


class Page(HTMLParser):
    """The elements of a page; an element that is not closed, or closed twice, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    @property
    def data(self) -> Any:
        """The data in the page."""
        return json.loads(self.texts["script"][0])


def browser() -> str:
    """Return the command of a Chromium; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def opened(
    folder: Path, address: str, *, width: int = 1280, scheme: str = "light", patience_ms: int = 8000
) -> tuple[str, list[str], list[str]]:
    """Open a page in a headless Chromium; return its elements as text, messages of its console, and what it asks for.

    Names are not resolved, so that the browser contacts nobody by itself.
    """
    log = folder / "net.json"
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-default-apps", "--disable-sync", "--disable-extensions",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-default-browser-check",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr",
        f"--log-net-log={log}", f"--virtual-time-budget={patience_ms}", "--dump-dom",
        f"--blink-settings=preferredColorScheme={'0' if scheme == 'dark' else '1'}",
        address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True, encoding="utf-8")
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # The browser's own requests, and that for the page itself, come from no page.
    requested = {it["url"] for it in events if "url" in it and it.get("initiator", _NO_PAGE) != _NO_PAGE}
    return done.stdout, said, sorted(url for url in requested if not url.startswith("data:"))
