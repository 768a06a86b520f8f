from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.scenario.check import check_scenario
from planner.scenario.instance import Instance
from tests.cli.command import script

FOLDER = Path(__file__).parents[1] / "examples" / "random"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Callable[..., Any]]:
    return runpy.run_path(str(FOLDER / "recipe.py"))


def test_a_seed_names_a_scenario_for_good(recipe: dict[str, Callable[..., Any]]) -> None:
    first, again, other = (recipe["draw"](seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(50))
def test_scenarios_keep_to_the_recipe(recipe: dict[str, Callable[..., Any]], seed: int) -> None:
    instance: Instance = recipe["draw"](seed)
    assert check_scenario(instance.scenario) == []
    assert 3 <= len(instance.workers) <= 6
    assert 2 <= len(instance.sources) <= 4
    assert all(1 <= instance.worker(name).speed <= 8 for name in instance.workers)
    assert all(3 <= instance.length(model) <= 8 for model in instance.profiles)
    assert all(instance.path(a, b) is not None for a in instance.workers for b in instance.workers)


@pytest.mark.parametrize("seed", [0, 1])
def test_at_a_load_the_best_bottleneck_is_that_busy(recipe: dict[str, Callable[..., Any]], seed: int) -> None:
    instance: Instance = recipe["at_load"](recipe["draw"](seed), 0.7, 200)
    assert recipe["capacity"](instance) == pytest.approx(1 / 0.7, rel=1e-3)
    assert sum(instance.samples(source) for source in instance.sources) == pytest.approx(200, abs=20)


def test_quick_run_compares_with_the_best_of_the_six(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gains.png").stat().st_size > 0
    lines = (tmp_path / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    outcomes = [json.loads(line) for line in lines]
    assert len(outcomes) == 2 * 4
    rows = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    for row in rows:
        group = [
            found["delays_s"]
            for found in outcomes
            if row["load"] == f"{found['load']:g}" or (row["load"] == "≥ 0.7" and found["load"] >= 0.7)
        ]
        best = [
            min(float(np.mean(delays[name])) for name in delays if name not in {"planned", "adaptive"})
            for delays in group
        ]
        gains = [1 - float(np.mean(delays[row["policy"]])) / least for delays, least in zip(group, best, strict=True)]
        assert row["median_gain"] == pytest.approx(float(np.median(gains)))
        assert row["worse_by_tolerance"] == sum(gain < -0.02 for gain in gains)
        assert row["significantly_worse_by_tolerance"] <= row["worse_by_tolerance"]


def test_batches_under_adaptive_take_hardly_longer_than_a_fluid(tmp_path: Path) -> None:
    done = script(FOLDER / "batches.py", "--scenarios", "2", "--samples", "1500", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "batches.json").read_text(encoding="utf-8"))
    ratios = {
        policy: [one["makespan_s"][policy] / one["fluid_s"] for one in found] for policy in ("planned", "adaptive")
    }
    assert max(ratios["adaptive"]) < 1.05 < max(ratios["planned"])


def test_deadlines_are_compared_with_the_best_of_eight(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "deadlines.py"), "--scenarios", "1", "--samples", "20", "--ablation"]
    command += ["--replications", "2", "--time-limit", "0.2", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "misses.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    outcomes = [json.loads(line)["misses"] for line in lines]
    assert [len(found) for found in outcomes] == [8 + 2 + 4] * 3
    rows = json.loads((tmp_path / "misses.json").read_text(encoding="utf-8"))
    assert {row["policy"] for row in rows} >= {"planned", "adaptive", "adaptive, order: slack"}
    for row in rows:
        assert 0 <= row["misses"] <= 1
        assert row["surely_worse"] <= row["worse"] <= row["scenarios"]
    same = [(found["adaptive"], found["adaptive, order: value"]) for found in outcomes]
    assert all(one == other for one, other in same)
