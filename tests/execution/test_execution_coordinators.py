"""Several coordinators that want the same agents, and homes that restart, with agent processes over Zenoh."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.session.session import LiveSession
from planner.execution.wire.claims import TakenOverError
from planner.execution.wire.zenoh import zenoh_connect
from planner.trace.records import SampleRecord
from tests.execution.coordinators import Stepping, another, coordinator_at, inquirer
from tests.execution.fleet import After, Threads, assert_accounted, deployment_for, said
from tests.execution.processes import Processes
from tests.execution.rig import MODEL, SPLIT, small_deployment, small_instance

INSTANCE = small_instance(samples=60)
LONG = small_instance(samples=150, rate_per_s=40.0)
AT_ONCE = small_instance(samples=3000).with_sources({"urgent": {"arrivals": "batch"}, "other": {"arrivals": "batch"}})
INPUTS = {"t0": np.ones(MODEL.chain.cuts[0].tensors[0].shape, np.float32)}


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    found = Processes(INSTANCE.workers, tmp_path_factory.mktemp("blocks"))
    try:
        yield found
    finally:
        found.close()


def test_an_agent_belongs_to_one_run_at_a_time_and_the_first_is_untouched(agents: Processes) -> None:
    watch = Stepping()
    by = rf"held by another run; found .* process {os.getpid()}, run [0-9a-f]{{8}}, since .*; expected .*--take-over"
    with ThreadPoolExecutor() as pool:
        with coordinator_at(agents) as first:
            running = pool.submit(first.run, small_deployment(INSTANCE, SPLIT), observer=watch)
            try:
                assert watch.under_way.wait(60.0)
                with another(agents) as second, pytest.raises(ExecuteError, match=by):
                    second.run(small_deployment(INSTANCE, SPLIT))
                with inquirer(agents) as prober, pytest.raises(ExecuteError, match=by):
                    prober.claim(INSTANCE.workers)
                with inquirer(agents) as asking:
                    states = asking.ask(INSTANCE.workers)
            finally:
                watch.go_on.set()
            measured = running.result(60.0)
        # It has gone, so nobody needs to take anything over.
        with coordinator_at(agents) as following:
            assert assert_accounted(INSTANCE, following.run(small_deployment(INSTANCE, SPLIT))) == {}
    assert assert_accounted(INSTANCE, measured) == {}
    assert said(measured) == []
    assert {holding.holder.process for state in states for holding in state.about.holdings} == {os.getpid()}
    assert all(state.about.run is not None for state in states)


def test_a_run_whose_agents_are_taken_over_ends_and_says_so(agents: Processes) -> None:
    watch = Stepping()
    with ThreadPoolExecutor() as pool, coordinator_at(agents) as first:
        running = pool.submit(first.run, small_deployment(AT_ONCE, SPLIT), observer=watch)
        try:
            assert watch.under_way.wait(60.0)
            with another(agents, take_over=True) as second:
                measured = second.run(small_deployment(INSTANCE, SPLIT))
        finally:
            watch.go_on.set()
        with pytest.raises(TakenOverError, match=f"taken over by another run.*process {os.getpid()}"):
            running.result(60.0)
        with inquirer(agents) as asking:
            dropped = {state.about.worker: state.about.dropped for state in asking.ask(INSTANCE.workers)}
    assert assert_accounted(INSTANCE, measured) == {}
    assert measured.duplicates == 0
    assert dropped["a"] > 0
    assert dropped["b"] == dropped["c"] == 0  # no source lives there


def test_samples_of_a_live_run_wait_for_their_home_and_all_complete(agents: Processes, tmp_path: Path) -> None:
    following = Threads(tmp_path)
    deployment = deployment_for(INSTANCE, live=True)
    try:
        with coordinator_at(agents) as coordinator, LiveSession(deployment, nullcontext(coordinator)) as session:
            source = session.source("urgent")
            results = [source.submit(INPUTS) for _ in range(10)]
            agents.kill("a")
            # Within the bound; the rest is submitted while others end.
            results += [source.submit(INPUTS) for _ in range(source.limit - len(source.pending))]
            following.start("a", zenoh_connect("a", listen=None, connect=[agents.address]))
            results += [source.submit(INPUTS) for _ in range(10)]
            ended = [future.result(60.0) for future in results]
    finally:
        following.close()
    assert [result.sample for result in ended] == list(range(len(ended)))
    for result in ended:
        np.testing.assert_allclose(result.outputs["t3"], np.maximum(INPUTS["t0"], 0) + INPUTS["t0"], rtol=1e-4)


def test_a_run_goes_on_when_all_its_agents_have_restarted(agents: Processes, tmp_path: Path) -> None:
    # Those that follow are threads, for a process takes seconds to start on a busy machine.
    following = Threads(tmp_path)
    came: list[str] = []

    class Restart(After):
        def on_left(self, worker: str) -> None:
            following.start(worker, zenoh_connect(worker, listen=None, connect=[agents.address]))
            came.append(worker)

    try:
        with coordinator_at(agents) as coordinator:
            kill = Restart(*((20, partial(agents.kill, name)) for name in INSTANCE.workers))
            measured = coordinator.run(deployment_for(LONG), ready_timeout_s=60.0, observer=kill)
    finally:
        following.close()
    assert sorted(came) == sorted(INSTANCE.workers)
    assert assert_accounted(LONG, measured).keys() <= {"a left", "a was absent"}
    joined_s = next(one.at_s for one in measured.incidents if (one.worker, one.what) == ("a", "joined the run"))
    since = [r for r in measured.records if isinstance(r, SampleRecord) and r.created_s > joined_s + 0.5]
    assert since
    assert {record.status for record in since} == {"completed"}
