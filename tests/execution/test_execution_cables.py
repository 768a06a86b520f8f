"""Agents in network namespaces whose cables are pulled while a run is on: silence, not an end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.launch.netns import NamespaceLayout, network_namespaces, unavailable
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from planner.scenario.instance import Instance
from planner.worker.events import Left
from tests.execution.cables import plug_in, pull
from tests.execution.fleet import After, Live, assert_accounted, deployment_for, said
from tests.execution.rig import small_instance

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

PORT = 7447


@contextmanager
def namespaced(instance: Instance, folder: Path) -> Iterator[tuple[NamespaceLayout, Coordinator]]:
    with network_namespaces(instance) as layout:
        address = f"{layout.coordinator}:{PORT}"
        agents = []
        for name in instance.workers:
            command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address, "--insecure"]
            command += ["--listen", f"{layout.addresses[name]}:{PORT}", "--cache", str(folder), "--until-stdin-closes"]
            agents.append(
                subprocess.Popen([*layout.command(name), *command], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            )
        try:
            with Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[], insecure=True)) as coordinator:
                coordinator.await_agents(instance.workers, 60.0)
                yield layout, coordinator
        finally:
            for agent in agents:
                if agent.stdin is not None:
                    agent.stdin.close()
            for agent in agents:
                agent.wait(30.0)


def test_a_worker_whose_cables_are_pulled_is_gone_and_comes_back_with_them(tmp_path: Path) -> None:
    instance = small_instance()
    with namespaced(instance, tmp_path) as (layout, coordinator):
        live = Live(coordinator, stop_after=30)
        live.at = {10: lambda: pull(layout, "c")}
        live.when_left = lambda: plug_in(layout, "c")
        measured = coordinator.run(deployment_for(instance, live=True), ready_timeout_s=60.0, observer=live)
    assert measured.left == []
    assert [what for worker, what in said(measured) if worker == "c"] == ["left", "connected", "joined the run"]
    assert live.ended_once()


@pytest.mark.nightly
def test_a_worker_that_only_the_coordinator_still_reaches_costs_no_sample(tmp_path: Path) -> None:
    instance = small_instance(samples=60)
    with namespaced(instance, tmp_path) as (layout, coordinator):
        to_workers = layout.ports["c"][1:]  # the first is the coordinator's
        after = After((20, lambda: pull(layout, "c", to_workers)))
        measured = coordinator.run(deployment_for(instance), ready_timeout_s=60.0, observer=after)
        plug_in(layout, "c")  # agents leave sooner
    assert assert_accounted(instance, measured) == {}
    assert measured.left == []
    assert any(isinstance(step.event, Left) and step.event.worker == "c" for step in measured.steps["a"])
