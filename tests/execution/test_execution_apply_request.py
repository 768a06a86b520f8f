"""`planner apply` changes a session in another process by HTTP, and tells what that refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import planner as library
from planner.api.applying import answer_request
from planner.api.session import Session
from planner.execution.wire.zenoh import free_port
from tests.cli.command import planner
from tests.execution.case import SCENARIO, write_case
from tests.execution.test_execution_session import inputs


class Service:
    """Serves a session's endpoint to apply plans."""

    def __init__(self, session: Session) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, document = answer_request(session, self.rfile.read(int(self.headers["Content-Length"])))
                body = json.dumps(document).encode()
                self.send_response(status if self.path == "/apply" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.session = session
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    folder.mkdir(exist_ok=True)
    with Session(write_case(folder)) as session:
        found = Service(session)
        yield found
        found.server.shutdown()
        found.server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for all tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("service")) as found:
        yield found


def changed(tmp_path: Path, before: str, after: str) -> Path:
    assert before in SCENARIO
    write_case(tmp_path)
    file = tmp_path / "changed.yaml"
    file.write_text(SCENARIO.replace(before, after), encoding="utf-8")
    return file


def test_a_scenario_is_tried_applied_and_replaced_by_a_plan(tmp_path: Path) -> None:
    file = changed(tmp_path, "priority: 1, ", "priority: 5, ")
    with serving(tmp_path / "service") as service:
        options = ("--to", service.url, "--time-limit", "0.5s")
        tried = planner("apply", file, *options, "--dry-run", "--json")
        assert tried.returncode == 0, tried.stderr
        assert json.loads(tried.stdout)["sources"]["other"]["priority"] == [1.0, 5.0]
        assert service.session.plan.scenario.spec.sources["other"].priority == 1
        applied = planner("apply", file, *options)
        assert applied.returncode == 0, applied.stderr
        assert "priority 5 in place of 1" in applied.stdout
        assert service.session.plan.scenario.spec.sources["other"].priority == 5
        assert service.session.source("other").submit(inputs(1)).result(60.0)
        back = planner("apply", tmp_path / "plan.json", *options)
        assert back.returncode == 0, back.stderr
        assert service.session.plan.scenario.spec.sources["other"].priority == 1


def test_what_the_service_refuses_is_told(service: Service, tmp_path: Path) -> None:
    for before, after, told in (
        ("worker: a, models: [small], rate: 40 /s, priority: 8", "worker: x, models: [small], rate: 40 /s", "worker"),
        ("rate: 40 /s, priority: 8", "rate: 40000 /s, priority: 8", "there is no plan for the new scenario"),
    ):
        file = changed(tmp_path, before, after)
        refused = planner("apply", file, "--to", service.url, "--time-limit", "0.5s")
        assert refused.returncode == 2
        assert told in refused.stderr
    assert service.session.source("urgent").submit(inputs(1)).result(60.0)


NO_REQUESTS = (
    b"", b"[]", b"{", b"{}", b'{"scenario": 1}', b'{"scenario": {}, "x": 1}', b'{"scenario": {}, "time_limit_s": 0}',
    b'{"scenario": {}, "time_limit_s": 1e9}', b'{"scenario": {}, "plan": {}}', b'{"scenario": {}}', b"\xff",
)  # fmt: skip


def test_a_body_that_is_none_is_refused_and_changes_nothing(service: Service) -> None:
    before = service.session.plan
    for content in NO_REQUESTS:
        status, document = answer_request(service.session, content)
        assert status == 400
        assert document["errors"]
        assert all(error["what"] for error in document["errors"])
    assert service.session.plan is before


def test_a_service_that_is_not_there_is_named(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    for url, told in ((f"http://127.0.0.1:{free_port()}", "cannot be reached"), ("127.0.0.1:8000", "not the address")):
        refused = planner("apply", plan, "--to", url)
        assert refused.returncode == 2
        assert told in refused.stderr


def test_two_plans_are_compared(tmp_path: Path) -> None:
    plan = write_case(tmp_path)
    home = library.solve(
        changed(tmp_path, "rate: 40 /s, priority: 8, samples: 30}\n  other: {worker: a, models: [small], rate: 40 /s",
                "rate: 10 /s, priority: 8, samples: 30}\n  other: {worker: a, models: [small], rate: 10 /s"),
        method="local", progress=None,
    )  # fmt: skip
    home.save(tmp_path / "home.json")
    same = planner("diff", plan, plan)
    assert same.stdout == "the plans are the same\n"
    found = planner("diff", plan, tmp_path / "home.json")
    assert "moves from b to a" in found.stdout
    document = json.loads(planner("diff", plan, tmp_path / "home.json", "--json").stdout)
    assert document["sources"]["urgent"]["rate_per_s"] == [40.0, 10.0]
    assert document["lines"] == found.stdout.splitlines()
