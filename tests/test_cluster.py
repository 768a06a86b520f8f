"""Simulations, comparisons, the random scenarios and the campaign on a Dask cluster: a real one, with two workers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import planner
from planner import cluster
from planner.errors import ScenarioError, UsageError
from planner.plan.types import PlanSpec
from planner.policy.base import BasePolicy
from planner.policy.registry import register, unregister
from planner.simulation.replications import RunSpec, simulate_cases
from planner.solvers.compare import compare
from tests.campaign.__main__ import run_batch
from tests.campaign.case import draw_case
from tests.instances import random_instance

ROOT = Path(__file__).parents[1]
INSTANCE = random_instance(3, load=0.3)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as running:
        yield running.scheduler_address


def test_replications_are_the_same_there(address: str) -> None:
    cases = [RunSpec(policy, seed) for policy in ("ddi", "pa-mdi") for seed in range(3)]
    here = list(simulate_cases(INSTANCE, None, cases, processes=1))
    assert list(simulate_cases(INSTANCE, None, cases, dask=address)) == here


def test_methods_find_the_same_plans_there(address: str) -> None:
    methods = ["local", "dp"]
    here, there = (
        {found.method: found for found in compare(INSTANCE, methods=methods, time_limit_s=60.0, dask=dask)}
        for dask in (None, address)
    )
    assert list(there) == methods

    def routes(plan: PlanSpec | None) -> object:
        return None if plan is None else plan.sources

    assert {name: (found.status, routes(found.plan)) for name, found in there.items()} == {
        name: (found.status, routes(found.plan)) for name, found in here.items()
    }


def test_the_campaign_is_the_same_there(address: str) -> None:
    batches = [range(10), range(10, 20)]
    assert cluster.on_cluster(address, run_batch, ((batch,) for batch in batches)) == list(map(run_batch, batches))


@pytest.mark.nightly
def test_the_random_scenarios_run_there(address: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "random" / "run.py"), "-o", str(tmp_path)]
    command += ["--scenarios", "1", "--samples", "8", "--replications", "2"]
    done = subprocess.run([*command, "--dask", address], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))) > 0


@pytest.mark.nightly
def test_the_random_batches_are_the_same_there(address: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "random" / "batches.py")]
    command += ["--scenarios", "1", "--samples", "60"]
    found = []
    for folder, where in (("here", []), ("there", ["--dask", address])):
        words = [*command, *where, "-o", str(tmp_path / folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        found += json.loads((tmp_path / folder / "batches.json").read_text(encoding="utf-8"))
    here, there = found
    assert min(here["fluid_s"], there["fluid_s"]) > 0
    assert here["makespan_s"]["ddi"] == there["makespan_s"]["ddi"]  # the others depend on a plan that a limit may end
    assert here["makespan_s"].keys() == there["makespan_s"].keys()


def _refuses(_case: int) -> None:
    raise ScenarioError("this one is wrong", where="here")


def _breaks(_case: int) -> None:
    raise ZeroDivisionError


def test_errors_of_the_work_and_of_the_cluster_are_told_apart(address: str) -> None:
    with pytest.raises(ScenarioError, match="this one is wrong"):
        cluster.on_cluster(address, _refuses, [(1,)])
    with pytest.raises(UsageError, match=r"the Dask cluster failed.*ZeroDivisionError"):
        cluster.on_cluster(address, _breaks, [(1,)])


def test_what_a_cluster_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no traces"):
        next(simulate_cases(INSTANCE, None, [RunSpec("ddi", 0, tmp_path / "trace.jsonl")], dask="tcp://127.0.0.1:1"))
    register("only-here", lambda _: BasePolicy())
    try:
        with pytest.raises(UsageError, match="only this process knows"):
            next(simulate_cases(INSTANCE, None, [RunSpec("only-here", 0)], dask="tcp://127.0.0.1:1"))
    finally:
        unregister("only-here")
    pytest.importorskip("distributed", reason="Dask is not installed")
    monkeypatch.setattr(cluster, "CONNECT_LIMIT_S", 0.5)
    scenario = ROOT / "examples" / "jetsons" / "scenario.yaml"
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        planner.simulate(scenario, policy="ddi", replications=2, dask="nowhere")
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        planner.compare(scenario, methods=["local"], dask="tcp://127.0.0.1:1")


def test_a_case_travels_as_json() -> None:
    case = draw_case(5)
    assert type(case).model_validate_json(case.model_dump_json()) == case
