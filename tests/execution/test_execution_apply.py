"""A new plan while samples flow: no sample is lost, none ends twice, and each output is that of its sample."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.api.session import Session
from planner.errors import ExecuteError, PlannerError
from planner.execution.coordinator import coordinator
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.source import Result, SampleError
from planner.execution.wire.frames import Tensors
from planner.execution.wire.zenoh import free_port
from planner.plan.types import PlanSpec
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.trace.records import Incident, SampleRecord
from tests.execution.case import ROWS, WIDTH, write_case
from tests.execution.processes import agents, cmdline
from tests.execution.raw import agent_process

PERIOD_S = 0.05
TIME_LIMIT_S = 0.5


@pytest.fixture
def plan(tmp_path: Path) -> planner.Plan:
    return planner.load_plan(write_case(tmp_path))


class Ends(Observer):
    """Counts the ends of samples."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002 - the observer's signature
        self.counts[sample.source, sample.sample] += 1


def changed(old: planner.Plan, **changes: Any) -> planner.Scenario:
    """Return a plan's scenario with some keys replaced; a source or worker that is None is removed."""
    data = old.scenario.to_dict()
    for key, entries in changes.items():
        data[key] = {name: entry for name, entry in {**data[key], **entries}.items() if entry is not None}
    return planner.Scenario.from_dict(data, folder=old.scenario.folder)


def at_home(plan: planner.Plan) -> planner.Plan:
    """Return the plan that computes all at home, for a rate at which that is possible."""
    sources = plan.scenario.to_dict()["sources"]
    slower = changed(plan, sources={name: {**source, "rate": "10 /s"} for name, source in sources.items()})
    return planner.solve(slower, method="local", progress=None)


class Feeder:
    """Submits samples of sources at a rate, each with other inputs, in threads."""

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._whole = BlockSession(folder / "small.onnx")
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.futures: dict[str, list[tuple[dict[str, Any], Future[Result]]]] = {}
        self.errors: list[BaseException] = []

    def begin(self, *names: str) -> None:
        for name in names:
            self.futures[name] = []
            thread = threading.Thread(target=self._feed, args=(name,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _feed(self, name: str) -> None:
        rng, source = np.random.default_rng(len(name)), self._session.source(name)
        while not self._stop.is_set():
            inputs = {
                "x": rng.standard_normal((1, WIDTH)).astype(np.float32),
                "pick": np.array([int(rng.integers(ROWS))]),
            }
            try:
                self.futures[name].append((inputs, source.submit(inputs)))
            except BaseException as error:  # noqa: BLE001 - checked by the test
                self.errors.append(error)
                return
            time.sleep(PERIOD_S)

    def more(self, name: str, samples: int = 5) -> None:
        """Wait for some more samples of a source."""
        wanted, until_s = len(self.futures[name]) + samples, time.monotonic() + 60.0
        while len(self.futures[name]) < wanted and not self.errors:
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def end(self) -> Counter[tuple[str, int]]:
        """Stop; check every result; return how often each sample is there."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)
        found: Counter[tuple[str, int]] = Counter()
        for name, submitted in self.futures.items():
            for number, (inputs, future) in enumerate(submitted):
                result = future.result(60.0)
                assert (result.source, result.sample) == (name, number)
                np.testing.assert_allclose(result.outputs["y"], self._whole.run(inputs)["y"], rtol=1e-4, atol=1e-6)
                found[name, number] += 1
        return found


@contextmanager
def feeding(plan: planner.Plan, **options: Any) -> Iterator[tuple[Session, Feeder, Ends]]:
    ends = Ends()
    with Session(plan, observer=ends, **options) as session:
        feeder = Feeder(session, plan.scenario.folder)
        feeder.begin("urgent", "other")
        feeder.more("urgent")
        feeder.more("other")
        yield session, feeder, ends
        assert feeder.end() == ends.counts


def third(worker: str = "b") -> dict[str, Any]:
    return {"worker": worker, "models": ["small"], "rate": "20 /s", "priority": 4, "samples": 30}


def test_what_a_session_is_changed_to_and_what_leaves_it_as_it_was(plan: planner.Plan) -> None:
    """One session, whose agents and solvers take a while to start, for all that changes no worker."""
    with feeding(plan) as (session, feeder, _):
        _a_dry_run_changes_nothing(session, plan)
        _a_plan_that_does_not_fit_is_refused(session, plan)
        feeder.more("urgent")
        assert feeder.errors == []
        _priorities_and_rates_change_and_the_difference_says_so(session, plan)
        feeder.more("other")
        assert feeder.errors == []
        _a_source_is_added_while_others_run_and_is_removed_again(session, plan, feeder)


def _a_dry_run_changes_nothing(session: Session, plan: planner.Plan) -> None:
    found = session.apply(changed(plan, sources={"third": third()}), time_limit_s=TIME_LIMIT_S, dry_run=True)
    assert found.sources["third"].what == "added"
    assert session.plan is plan
    with pytest.raises(ExecuteError, match="no such source; found 'third'"):
        session.source("third")


def _a_plan_that_does_not_fit_is_refused(session: Session, plan: planner.Plan) -> None:
    impossible = {**plan.scenario.to_dict()["sources"]["other"], "max_mean_delay": "1 us"}
    with pytest.raises(PlannerError, match="there is no plan for the new scenario"):
        session.apply(changed(plan, sources={"other": impossible}), time_limit_s=TIME_LIMIT_S)
    with pytest.raises(PlannerError, match="no such file"):
        session.apply(plan.scenario.folder / "absent.yaml")
    assert session.plan is plan


def _priorities_and_rates_change_and_the_difference_says_so(session: Session, plan: planner.Plan) -> None:
    other = {**plan.scenario.to_dict()["sources"]["other"], "priority": 16, "rate": "10 /s"}
    found = session.apply(changed(plan, sources={"other": other}), time_limit_s=TIME_LIMIT_S)
    assert found.sources["other"].priority == (1.0, 16.0)
    assert found.sources["other"].rate_per_s == (40.0, 10.0)
    assert "priority 16 in place of 1; rate 10 /s in place of 40 /s" in str(found).replace("has rate", "rate")
    assert session.plan.scenario.spec.sources["other"].priority == 16


def _a_source_is_added_while_others_run_and_is_removed_again(
    session: Session, plan: planner.Plan, feeder: Feeder
) -> None:
    added = session.apply(changed(plan, sources={"third": third()}), time_limit_s=TIME_LIMIT_S)
    assert added.sources["third"].what == "added"
    assert session.plan.scenario.sources == ("urgent", "other", "third")
    feeder.begin("third")
    for name in ("urgent", "other", "third"):
        feeder.more(name)
    assert feeder.errors == []
    removed = session.apply(plan)
    assert removed.sources["third"].what == "removed"
    feeder.more("urgent")
    with pytest.raises(ExecuteError, match="the plan has no such source any more; found 'third'"):
        session.source("third").submit(feeder.futures["third"][0][0])
    assert len(feeder.errors) == 1  # the feeder of the third source has met the same


def test_plans_follow_each_other_many_times(plan: planner.Plan) -> None:
    home = at_home(plan)
    with feeding(plan) as (session, feeder, _):
        for round_ in range(6):
            found = session.apply(plan if round_ % 2 else home)
            assert found
            feeder.more("urgent", 3)
        assert not session.apply(plan)
        assert feeder.errors == []


def test_workers_are_added_and_removed(plan: planner.Plan) -> None:
    networks = plan.scenario.to_dict()["networks"]
    lan = {"lan": {**networks["lan"], "members": ["a", "c"]}}
    with feeding(plan) as (session, feeder, _):
        fast = {"device_class": "reference", "memory": "1 GiB", "speed": 4.0}
        found = session.apply(changed(plan, workers={"b": None, "c": fast}, networks=lan), time_limit_s=TIME_LIMIT_S)
        assert (found.workers["b"].what, found.workers["c"].what) == ("removed", "added")
        feeder.more("urgent")
        feeder.more("other")
        assert feeder.errors == []


def test_a_change_for_which_a_worker_has_too_little_memory_is_refused(plan: planner.Plan) -> None:
    """Each worker has memory for two of the three blocks: a plan that has them swap blocks needs all three at once."""
    weights_bytes, activation_bytes = 1_000_000, 500_000  # of a block in the profile of the case
    two_blocks = {"base_memory": "0 B", "memory": f"{2.5 * weights_bytes + activation_bytes:.0f} B"}
    workers = {name: {**entry, **two_blocks} for name, entry in plan.scenario.to_dict()["workers"].items()}
    small = changed(plan, workers=workers)

    def split(*places: str) -> planner.Plan:
        pins = {name: dict(enumerate(places)) for name in ("urgent", "other")}
        return planner.solve(small, pins=pins, method="milp", progress=None)

    first, swapped, near = split("a", "b", "b"), split("b", "b", "a"), split("a", "b", "a")
    with feeding(first) as (session, feeder, _):
        with pytest.raises(ExecuteError, match=r"workers\.b.*blocks of both plans.*3\.338 MiB.*at most 2\.861 MiB"):
            session.apply(swapped)
        feeder.more("urgent")
        assert session.plan is first
        session.apply(near)  # b keeps a block, and a has one more
        feeder.more("other")
        assert session.plan is near
        assert feeder.errors == []


def test_a_worker_that_is_killed_meanwhile_costs_the_new_plan_or_nothing(plan: planner.Plan) -> None:
    """Whenever an agent dies, the samples end: in the old run, in the new one, or in the one that goes on."""
    home = at_home(plan)
    for delay_s in (0.0, 0.05, 0.2):
        earlier = agents()
        with feeding(plan) as (session, feeder, _):
            b = sorted(agents() - earlier, key=cmdline)[1]
            killer = threading.Timer(delay_s, os.kill, (b, signal.SIGKILL))
            killer.start()
            with suppress(ExecuteError):  # the old plan goes on
                session.apply(home)
            killer.join()
            feeder.more("urgent")
            feeder.more("other")
            assert feeder.errors == []
            session.apply(home)
            feeder.more("urgent")


def test_an_agent_that_does_not_come_costs_nothing(
    plan: planner.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_FIND_S", 2.0)
    address, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    cache = ("--cache", str(tmp_path / "cache"))
    lan = {"lan": {**plan.scenario.to_dict()["networks"]["lan"], "members": ["a", "b", "c"]}}
    worker = {"device_class": "reference", "memory": "1 GiB", "speed": 4.0}
    larger = changed(plan, workers={"c": worker}, networks=lan)
    with (
        agent_process("a", "--listen", address, *cache),
        agent_process("b", "--listen", second, "--connect", address, *cache),
        ready(address, second),
        feeding(plan, connect=[address, second]) as (session, feeder, _),
    ):
        with pytest.raises(ExecuteError, match=r"did not connect within 2 s.*found 'c'"):
            session.apply(larger, time_limit_s=TIME_LIMIT_S)
        monkeypatch.setattr(coordinator, "_FIND_S", 30.0)
        feeder.more("urgent")
        third_address = f"127.0.0.1:{free_port()}"
        with agent_process("c", "--listen", third_address, "--connect", address, *cache), ready(third_address):
            session.apply(larger, time_limit_s=TIME_LIMIT_S)
            feeder.more("urgent")
            session.apply(plan)
            feeder.more("urgent")
        feeder.more("other")
        assert feeder.errors == []


def test_it_is_refused_where_the_session_is_not_open(plan: planner.Plan) -> None:
    session = Session(plan)
    with pytest.raises(ExecuteError, match="the session is not open"):
        session.apply(plan)


@contextmanager
def ready(*addresses: str) -> Iterator[None]:
    """Wait until agents listen, which takes them a while on a busy machine."""
    for address in addresses:
        host, _, port = address.partition(":")
        until_s = time.monotonic() + 60.0
        while not _listens(host, int(port)):
            assert time.monotonic() < until_s
            time.sleep(0.1)
    yield


def _listens(host: str, port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((host, port)) == 0


class Told(Observer):
    """Waits for incidents."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: list[str] = []
        self._applied: list[PlanSpec | None] = []

    def on_applied(self, instance: Instance, plan: PlanSpec | None) -> None:  # noqa: ARG002
        with self._changed:
            self._applied.append(plan)
            self._changed.notify()

    def wait_for_plan(self, plan: PlanSpec) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: plan in self._applied, 120.0)

    def on_incident(self, incident: Incident) -> None:
        with self._changed:
            self._told.append(incident.what)
            self._changed.notify_all()

    def wait_for(self, words: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(words in what for what in self._told), 120.0), self._told


def test_a_plan_is_made_for_what_is_measured_and_taken_back_when_samples_fail(plan: planner.Plan) -> None:
    told = Told()
    rules = planner.DriftRules(window_s=3.0, interval_s=0.5, worse=1e9)
    done = threading.Event()
    with Session(plan, observer=told, auto=rules) as session:

        def feed(name: str) -> None:  # at a quarter of the rate that the plan expects, at most
            while not done.wait(0.1):
                session.source(name).submit({"x": np.zeros((1, WIDTH), np.float32), "pick": np.array([0])}).result(60.0)

        threads = [threading.Thread(target=feed, args=(name,), daemon=True) for name in ("urgent", "other")]
        for thread in threads:
            thread.start()
        told.wait_for("new plan, because")
        rates = {name: source.rate_per_s for name, source in session.plan.scenario.spec.sources.items()}
        assert all(rate is not None and rate <= 40 / rules.drift for rate in rates.values())
        bad = {"x": np.zeros((1, WIDTH), np.float32), "pick": np.array([ROWS])}
        with pytest.raises(SampleError):
            session.source("other").submit(bad).result(60.0)
        told.wait_for("back to the one before")
        told.wait_for_plan(plan.spec)  # the rates are still low, so that another one follows it later
        done.set()
        for thread in threads:
            thread.join(60.0)
