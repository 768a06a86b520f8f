"""With ``--json`` a command writes JSON alone to descriptor 1, where libraries below Python write as well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from planner.profiling.store import save_profile
from planner.solvers import METHODS
from tests.cli.command import planner
from tests.instances import make_profile
from tests.model.chained import reference

GOALS: Final = ("delay", "throughput", "makespan", "energy")
EXACT: Final = ("convex", "milp", "colgen", "exhaustive")
SCENARIO: Final = """\
schema: planner/scenario/v1
profiles: [profiles]
models:
  classifier: {profile: classifier}
workers:
  nano: {device_class: reference, memory: 3 GiB, power: {idle: 2 W, busy: 8 W}}
  orin: {device_class: reference, memory: 6 GiB, speed: 4.0, power: {idle: 4 W, busy: 20 W}, max_utilisation: 60 %}
networks:
  link: {kind: point-to-point, links: [[nano, orin]], bandwidth: 540 Mbit/s, latency: 1 ms}
sources:
  gate: {worker: nano, models: [classifier], rate: 5 /s, samples: 20DEADLINE}
objective: {goal: GOAL}
"""


def scenario(folder: Path, goal: str, deadline: str = "") -> Path:
    """Write a scenario that every method can solve for the goal ``throughput``, and all but dp for the others."""
    profile = make_profile("classifier", block_s=[0.01, 0.02, 0.015])
    save_profile(profile, folder / "profiles" / "reference" / "classifier.json")
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO.replace("GOAL", goal).replace("DEADLINE", deadline and f", max_mean_delay: {deadline}"))
    return path


def printed(*words: str | Path, code: int = 0) -> Any:
    """Run a command with ``--json`` and read the whole of its stdout."""
    done = planner(*words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def all_printed(lines: Iterable[Sequence[str | Path]]) -> list[tuple[int, Any]]:
    """Run commands with ``--json`` and give exit code and document of each."""
    done = [planner(*line, "--json") for line in lines]
    return [(one.returncode, json.loads(one.stdout) if one.stdout else None) for one in done]


def solving(path: Path, method: str) -> list[str | Path]:
    visits = ["--max-visits", "1"] if method == "dp" else []  # without it dp solves another problem
    return ["solve", path, "--method", method, "--routes", METHODS[method].routes[0], *visits]


@pytest.mark.parametrize("goal", GOALS)
def test_a_plan_by_every_method_for_any_goal(goal: str, tmp_path: Path) -> None:
    """With one and two threads in turn: HiGHS takes the number of the first model for that of all later ones."""
    path = scenario(tmp_path, goal)
    found = all_printed([*solving(path, name), "--threads", str(1 + place % 2)] for place, name in enumerate(METHODS))
    plans = {method: plan for method, (_, plan) in zip(METHODS, found, strict=True)}
    assert [code for code, _ in found] == [2 if plan is None else 0 for plan in plans.values()]
    assert {name for name, plan in plans.items() if plan is None} == ({"dp"} if goal != "throughput" else set())
    assert {(plan["method"] == name, plan["goal"]) for name, plan in plans.items() if plan} == {(True, goal)}
    assert {plans[name]["status"] for name in EXACT} == {"optimal"}


@pytest.mark.parametrize("goal", GOALS)
def test_every_method_says_why_there_is_no_plan(goal: str, tmp_path: Path) -> None:
    path = scenario(tmp_path, goal, deadline="1 ms")
    methods = [*EXACT, "search"]
    found = all_printed([*solving(path, name), "--threads", "2"] for name in methods)
    assert [(code, document["status"]) for code, document in found] == [(1, "infeasible")] * len(methods)
    told = [document["blame"] for _, document in found]
    assert told == [told[0]] * len(methods)
    assert "no worker can meet max_mean_delay 1 ms of gate: the best is" in told[0][0]


@pytest.mark.parametrize("goal", ["throughput", "makespan"])
def test_shared_routes_in_a_process_of_their_own(goal: str, tmp_path: Path) -> None:
    assert printed("solve", scenario(tmp_path, goal), "--routes", "shared")["method"] == "colgen"


def test_methods_that_stand_side_by_side_may_all_use_two_threads(tmp_path: Path) -> None:
    methods = printed("compare", scenario(tmp_path, "throughput"), "--threads", "2", "--simulate")["methods"]
    assert list(methods) == list(METHODS)
    assert {methods[name]["status"] for name in EXACT} == {"optimal"}
    assert methods["milp"]["objective"] == pytest.approx(methods["exhaustive"]["objective"], rel=1e-3)


def test_frontiers_prices_and_a_simulation(tmp_path: Path) -> None:
    path, plan = scenario(tmp_path, "delay"), tmp_path / "plan.json"
    drawn: list[str | Path] = ["--prices", "--picture", tmp_path / "plan.svg"]
    lines: list[list[str | Path]] = [["solve", path, "-o", plan, *drawn], ["simulate", path, "--plan", plan]]
    lines += [["pareto", path, "--points", "1", "--method", method] for method in ("milp", "colgen", "convex")]
    found = all_printed(lines)
    assert [code for code, _ in found] == [0] * len(lines)
    assert found[0][1]["prices"]


def test_what_reads_models(tmp_path: Path) -> None:
    model, profile = reference("resnet56-exits"), tmp_path / "profile.json"
    lines: list[list[str | Path]] = [
        ["inspect", model],
        ["split", model, "--cuts", "3", "-o", tmp_path / "stages"],
        ["profile", "estimate", model, "--device-class", "jetson-nano", "-o", profile],
        ["profile", "show", profile],
        ["profile", "diff", profile, profile],
        ["models", "list"],
    ]
    assert [code for code, _ in all_printed(lines)] == [0] * len(lines)
