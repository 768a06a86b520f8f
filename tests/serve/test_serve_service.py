"""What a service does beside answering: limits of time and number, priorities, lost workers, its end, its state."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

import planner
from planner.errors import ExecuteError, UsageError
from planner.execution.wire.zenoh import free_port
from planner.plan.store import load_plan
from planner.serve.state import ServiceState
from tests.cli.command import planner as command
from tests.execution.case import ROWS, WIDTH, write_case
from tests.execution.processes import agents, cmdline
from tests.execution.raw import agent_process
from tests.serve.case import tensor

HTTP, GRPC = tritonclient.http, tritonclient.grpc
LIMIT = 3
LONG_S = 60.0
ALL = ("--grpc-listen", "127.0.0.1:0", "--access-log")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


def inputs(library: Any, pick: int = 0) -> list[Any]:
    return [
        tensor(library, "x", np.ones((1, WIDTH), np.float32)),
        tensor(library, "pick", np.array([pick])),
    ]


def client(service: planner.Service, library: Any) -> Any:
    address = service.address if library is HTTP else service.grpc_address
    return library.InferenceServerClient(address, **({"concurrency": 8} if library is HTTP else {}))


def get(service: planner.Service, path: str) -> tuple[int, bytes]:
    try:
        with urlopen(service.url + path) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def state(service: planner.Service) -> ServiceState:
    return ServiceState.model_validate_json(get(service, "/state")[1])


def metric(service: planner.Service, name: str, **labels: str) -> float | None:
    """Return the value of a metric; None where it is not there."""
    families = text_string_to_metric_families(get(service, "/metrics")[1].decode())
    found = [one.value for family in families for one in family.samples if (one.name, one.labels) == (name, labels)]
    return found[0] if found else None


def ask(service: planner.Service, library: Any, source: str) -> tuple[int, ...]:
    """Return the shape of a result; the client belongs to the thread that calls this."""
    made = client(service, library)
    try:
        return tuple(made.infer(source, inputs(library)).as_numpy("y").shape)
    finally:
        made.close()


def soon(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="class")
def running(plan: Path) -> Iterator[tuple[planner.Service, int]]:
    earlier = agents()
    options = {"grpc_listen": "127.0.0.1:0", "limit": LIMIT, "home_timeout_s": 600.0}
    with planner.Service(plan, listen="127.0.0.1:0", **options) as service:  # type: ignore[arg-type]
        home, _ = sorted(agents() - earlier, key=cmdline)
        yield service, home


class TestWithStoppedWorker:
    """Requests that stay in flight because the worker of their source is stopped, even if it counts as having left."""

    @pytest.mark.parametrize("library", [HTTP, GRPC], ids=["http", "grpc"])
    def test_a_request_whose_time_is_up_is_answered(self, running: tuple[planner.Service, int], library: Any) -> None:
        service, home = running
        made = client(service, library)
        with stopped(home):
            with pytest.raises(InferenceServerException) as late:
                made.infer("urgent", inputs(library), timeout=300_000)
            assert late.value.status() in {"504", "StatusCode.DEADLINE_EXCEEDED"}
        soon(lambda: state(service).sources["urgent"].waiting == 0)
        assert made.infer("urgent", inputs(library), timeout=600_000_000).as_numpy("y") is not None
        made.close()

    def test_the_deadline_of_a_grpc_client_counts(self, running: tuple[planner.Service, int]) -> None:
        service, home = running
        made = client(service, GRPC)
        with stopped(home), pytest.raises(InferenceServerException) as late:
            made.infer("urgent", inputs(GRPC), client_timeout=0.3)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        made.close()

    @pytest.mark.parametrize("library", [HTTP, GRPC], ids=["http", "grpc"])
    def test_more_requests_than_the_limit_are_told_to_come_again(
        self, running: tuple[planner.Service, int], library: Any
    ) -> None:
        service, home = running
        made = client(service, library)
        with ThreadPoolExecutor(LIMIT) as pool:
            with stopped(home):
                held = [pool.submit(ask, service, library, "other") for _ in range(LIMIT)]
                soon(lambda: state(service).sources["other"].waiting == LIMIT)
                with pytest.raises(InferenceServerException) as busy:
                    made.infer("other", inputs(library))
                assert busy.value.status() in {"429", "StatusCode.RESOURCE_EXHAUSTED"}
                assert int(retry_after(service)) >= 1
            assert [one.result(LONG_S) for one in held] == [(1, WIDTH)] * LIMIT
        assert made.infer("other", inputs(library)).as_numpy("y") is not None
        made.close()


def retry_after(service: planner.Service) -> str:
    body = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [0] * WIDTH},
            {"name": "pick", "datatype": "INT64", "shape": [1], "data": [0]},
        ]
    }
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{service.url}/v2/models/other/infer", json.dumps(body).encode()))
    with refused.value as error:
        assert error.code == 429
        return str(error.headers["Retry-After"])


def test_the_state_and_the_metrics_count_what_happened(plan: Path) -> None:
    with planner.Service(plan, listen="127.0.0.1:0", grpc_listen="127.0.0.1:0", name="yard") as service:
        for library in (HTTP, GRPC):
            made = client(service, library)
            for level in (0, 1, 2, 7):
                assert made.infer("other", inputs(library), priority=level).as_numpy("y") is not None
            with pytest.raises(InferenceServerException):
                made.infer("urgent", inputs(library, pick=ROWS))
            made.close()
        soon(lambda: (state(service).workers["b"].blocks_done or 0) >= 20)
        now = state(service)
        assert now.name == "yard"
        assert now.plan["schema"] == "planner/plan/v1"
        assert (now.sources["other"].completed, now.sources["urgent"].failed) == (8, 2)
        assert len(now.sources["other"].recent) == 8
        assert now.sources["other"].delay_s.p99 is not None
        assert now.sources["urgent"].delay_s.mean is None
        assert now.sources["urgent"].predicted_mean_delay_s == load_plan(plan).sources["urgent"].delay_s
        assert now.links["a->b"].bytes >= 10 * 4 * WIDTH
        assert now.workers["a"].present
        assert now.started_unix_s < now.now_unix_s
        assert metric(service, "planner_samples_total", source="other", outcome="completed") == 8
        assert metric(service, "planner_samples_total", source="urgent", outcome="failed") == 2
        assert metric(service, "planner_delay_seconds_count", source="other") == 8
        assert metric(service, "planner_delay_seconds_bucket", source="other", le="+Inf") == 8
        assert metric(service, "planner_requests_total", source="other", protocol="grpc", code="OK") == 4
        assert metric(service, "planner_requests_total", source="urgent", protocol="http", code="INTERNAL") == 1
        assert metric(service, "planner_worker_present", worker="b") == 1
        assert metric(service, "planner_link_bytes_total", sender="a", receiver="b") == now.links["a->b"].bytes
        assert metric(service, "process_open_fds")
        assert get(service, "/")[0] == 200


def test_names_that_clients_invent_do_not_become_metrics(plan: Path) -> None:
    with planner.Service(plan, listen="127.0.0.1:0") as service:
        for number in range(5):
            assert get(service, f"/v2/models/m{number}")[0] == 404
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(f"{service.url}/v2/models/m{number}/infer", b"{}"))
            refused.value.close()
        assert b'"m1"' not in get(service, "/metrics")[1]
        assert metric(service, "planner_requests_total", source="", protocol="http", code="NOT_FOUND") == 5


def test_a_worker_that_is_killed_costs_no_request(plan: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("--cache", str(tmp_path))
    with (
        agent_process("a", "--listen", address, *options),
        agent_process("b", "--connect", address, *options) as b,
        planner.Service(plan, connect=[address], listen="127.0.0.1:0", grpc_listen="127.0.0.1:0") as service,
    ):
        done = queue.SimpleQueue[Any]()
        ending = threading.Event()

        def keep_asking(library: Any) -> None:
            while not ending.is_set():
                try:
                    done.put(ask(service, library, "urgent"))
                except InferenceServerException as error:
                    done.put(error)

        askers = [threading.Thread(target=keep_asking, args=(library,), daemon=True) for library in (HTTP, GRPC)]
        for asker in askers:
            asker.start()
        for _ in range(20):
            assert done.get(timeout=LONG_S) == (1, WIDTH)
        b.kill()
        soon(lambda: not state(service).workers["b"].present)
        for _ in range(20):
            assert done.get(timeout=LONG_S) == (1, WIDTH)
        ending.set()
        for asker in askers:
            asker.join()
        while not done.empty():
            assert done.get() == (1, WIDTH)
        now = state(service)
        assert ("error", "b left") in [(incident.severity, incident.text) for incident in now.incidents]
        assert metric(service, "planner_worker_present", worker="b") == 0
        assert get(service, "/v2/models/urgent/ready")[0] == 200


def test_a_source_whose_worker_is_gone_is_not_ready(plan: Path) -> None:
    earlier = agents()
    with planner.Service(plan, listen="127.0.0.1:0", home_timeout_s=0.2) as service:
        home, _ = sorted(agents() - earlier, key=cmdline)
        assert get(service, "/v2/health/ready")[0] == 200
        os.kill(home, signal.SIGKILL)
        soon(lambda: get(service, "/v2/models/urgent/ready")[0] == 503)
        assert get(service, "/v2/health/ready")[0] == 503
        assert get(service, "/v2/health/live")[0] == 200
        soon(lambda: any("has not come back" in incident.text for incident in state(service).incidents))
        made = client(service, HTTP)
        with pytest.raises(InferenceServerException) as absent:
            made.infer("urgent", inputs(HTTP))
        assert absent.value.status() == "503"
        made.close()


# ---- the command ----------------------------------------------------------------------------------------------------


@contextmanager
def serving(plan: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the command; give the process and the addresses that it logs."""
    command = [sys.executable, "-m", "planner", "serve", str(plan), "--listen", "127.0.0.1:0", *words]
    process = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            entry = json.loads(line)
            if "http" in entry:
                yield process, entry
                return
        raise AssertionError("it ended early")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_told_to_end_answers_what_is_in_flight(plan: Path, number: signal.Signals) -> None:
    with serving(plan, *ALL, "--home-timeout", "10 min", "--grace", "10 min") as (process, addresses):
        own = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (home,) = (int(pid) for pid in own if b"\0agent\0--name\0a\0" in cmdline(int(pid)))
        with ThreadPoolExecutor(2) as pool, HTTP.InferenceServerClient(addresses["http"]) as made:
            made.infer("urgent", inputs(HTTP))
            with stopped(home):
                held = [pool.submit(ask_at, library, addresses) for library in (HTTP, GRPC)]
                service = f"http://{addresses['http']}"
                soon(lambda: json.loads(urlopen(f"{service}/state").read())["sources"]["urgent"]["waiting"] == 2)
                process.send_signal(number)
                soon(lambda: status_of(made) == "503")
                assert not made.is_server_ready()
            for one in held:
                assert one.result(LONG_S) == (1, WIDTH)
        assert process.stderr is not None
        entries = [json.loads(line) for line in process.stderr]
        assert process.wait(LONG_S) == 0
    assert entries[-1]["message"] == "ended"
    assert {"OK", "UNAVAILABLE"} <= {entry["code"] for entry in entries if entry["logger"] == "planner.access"}
    soon(lambda: not [pid for pid in own if Path(f"/proc/{pid}").exists()])


def status_of(made: Any) -> str:
    """Return how a request is answered that has a second."""
    with pytest.raises(InferenceServerException) as refused:
        made.infer("urgent", inputs(HTTP), timeout=1_000_000)
    return str(refused.value.status())


def ask_at(library: Any, addresses: dict[str, Any]) -> tuple[int, ...]:
    with library.InferenceServerClient(addresses["http" if library is HTTP else "grpc"]) as made:
        return tuple(made.infer("urgent", inputs(library)).as_numpy("y").shape)


def test_a_service_whose_agents_are_taken_over_ends_and_says_by_whom(plan: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = ("--cache", str(tmp_path))
    with (
        agent_process("a", "--listen", address, *options),
        agent_process("b", "--connect", address, *options),
        serving(plan, "--connect", address, "--grpc-listen", "off") as (process, _),
    ):
        with planner.Session(plan, connect=[address], take_over=True) as session:
            assert process.wait(LONG_S) == 1
            assert session.source("urgent").inputs
        assert process.stderr is not None
        assert re.search(r"planner: error: .*taken over", process.stderr.read())


def test_the_dashboard_and_the_guide_name_metrics_that_there_are(plan: Path) -> None:
    with planner.Service(plan, listen="127.0.0.1:0") as service:
        soon(lambda: metric(service, "planner_worker_queue", worker="a") is not None)
        families = {one.name: one.type for one in text_string_to_metric_families(get(service, "/metrics")[1].decode())}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    named = {name + suffix for name, kind in families.items() for suffix in suffixes.get(kind, ("",))}
    docs = Path(__file__).parents[2] / "docs"
    dashboard = set(re.findall(r"\bplanner_[a-z_]+", (docs / "grafana.json").read_text(encoding="utf-8")))
    guide = set(re.findall(r"`(planner_[a-z_]+)`", (docs / "guides" / "serve.md").read_text(encoding="utf-8")))
    assert len(dashboard) > 10
    assert dashboard <= named
    assert guide <= named | set(families)
    missing = {name for name in families if name.startswith("planner_")} - {
        name.removesuffix("_total") for name in guide
    }
    assert missing == {"planner_build_info"}


def test_a_service_that_is_told_so_makes_its_plan_again(plan: Path) -> None:
    """Far fewer requests come than the plan expects."""
    options = ("--auto", "--auto-interval", "1 s", "--auto-drift", "20%")
    with serving(plan, *ALL, *options) as (_, addresses):

        def changes() -> list[Any]:
            return list(json.loads(urlopen(f"http://{addresses['http']}/state").read())["changes"])

        soon(lambda: bool(changes()))


def test_rules_of_drift_need_auto_and_are_checked(plan: Path) -> None:
    for options, told in (
        (("--auto-drift", "20%"), "with --auto"),
        (("--auto-interval", "1 s"), "with --auto"),
        (("--auto", "--auto-drift", "0%"), "drift"),
        (("--auto", "--auto-interval", "0 s"), "interval_s"),
        (("--auto", "--auto-interval", "soon"), "soon"),
    ):
        refused = command("serve", plan, *options)
        assert refused.returncode == 2
        assert told in refused.stderr


def test_addresses_are_checked_before_agents_start(plan: Path) -> None:
    with pytest.raises(UsageError, match="listen: not an address"):
        planner.Service(plan, listen="8000")
    with pytest.raises(ExecuteError, match="outside the loopback interface"):
        planner.Service(plan, listen="0.0.0.0:8000")
    with planner.Service(plan, listen="127.0.0.1:0", grpc_listen="127.0.0.1:0") as service:
        for words in ({"listen": service.address}, {"listen": "127.0.0.1:0", "grpc_listen": service.grpc_address}):
            with pytest.raises(ExecuteError, match="cannot listen"), planner.Service(plan, **words):
                pass
