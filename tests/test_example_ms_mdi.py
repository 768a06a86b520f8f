"""The example repeats the MS-MDI paper's order of policies, and its set-ups are the paper's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.model.reference import REFERENCE
from planner.scenario.load import load_instance

EXAMPLE = Path(__file__).parents[1] / "examples" / "ms-mdi"
SET_UPS = (2, 3, 5)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("ms-mdi")
    command = [sys.executable, str(EXAMPLE / "run.py"), "--share", "0.025", "--json", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), folder


def test_every_image_is_done_under_every_policy(quick: tuple[dict[str, Any], Path]) -> None:
    runs = quick[0]["runs"]
    assert {(run["workers"], run["policy"]) for run in runs} == {
        (workers, policy) for workers in SET_UPS for policy in ("local", "ar-mdi", "ms-mdi", "adaptive")
    }
    assert {run["images"] for run in runs} == {1000}
    for run in runs:
        assert run["curve"] == sorted(run["curve"])
        assert run["curve"][-1] == [1000, run["makespan_s"]]


def test_ms_mdi_is_best_and_its_lead_over_local_grows(quick: tuple[dict[str, Any], Path]) -> None:
    makespan_s = {(run["workers"], run["policy"]): run["makespan_s"] for run in quick[0]["runs"]}
    leads = []
    for workers in SET_UPS:
        ours_s = makespan_s[workers, "ms-mdi"]
        assert ours_s < makespan_s[workers, "ar-mdi"]
        leads.append(makespan_s[workers, "local"] / ours_s - 1)
    assert 0 < leads[0] < leads[1] < leads[2]
    assert quick[0]["in_order"]


def test_figures_are_ratios_of_the_makespans(quick: tuple[dict[str, Any], Path]) -> None:
    makespan_s = {(run["workers"], run["policy"]): run["makespan_s"] for run in quick[0]["runs"]}
    figures = quick[0]["figures"]
    assert [figure["paper"] for figure in figures] == [0.11, 0.16, 0.32, 0.20, 0.74, 0.29]
    for figure in figures:
        theirs_s, ours_s = (makespan_s[figure["workers"], policy] for policy in (figure["over"], "ms-mdi"))
        assert figure["ours"] == pytest.approx(theirs_s / ours_s - 1)


def test_ours_is_ahead_of_all_of_them(quick: tuple[dict[str, Any], Path]) -> None:
    runs = {(run["workers"], run["policy"]): run for run in quick[0]["runs"]}
    for workers in SET_UPS:
        for policy in ("local", "ar-mdi", "ms-mdi"):
            for figure in ("makespan_s", "mean_delay_s"):
                assert runs[workers, "adaptive"][figure] < runs[workers, policy][figure]


def test_a_batch_takes_hardly_longer_than_a_fluid(quick: tuple[dict[str, Any], Path]) -> None:
    batches = quick[0]["batches"]
    assert [batch["workers"] for batch in batches] == list(SET_UPS)
    for batch in batches:
        assert batch["fluid_s"] < 1.005 * batch["makespan_s"]  # chance in the block times is not in the bound
        assert batch["makespan_s"] < 1.05 * batch["fluid_s"]


def test_plots_are_drawn(quick: tuple[dict[str, Any], Path]) -> None:
    picture = (quick[1] / "ms-mdi.svg").read_text(encoding="utf-8")
    for text in ("2 workers", "3 workers", "Time per image [ms]", "ar-mdi"):
        assert text in picture


@pytest.mark.parametrize("workers", SET_UPS)
def test_the_set_ups_are_those_of_the_paper(workers: int) -> None:
    instance = load_instance(EXAMPLE / f"workers-{workers}.yaml")
    sources = instance.scenario.sources.values()
    assert [(spec.rate_per_s, spec.samples, spec.arrivals) for spec in sources] == [
        (5, 10_000, "poisson"),
        (10, 30_000, "poisson"),
    ]
    assert len(instance.workers) == workers
    assert instance.resources == ("wifi",)


def test_the_set_ups_share_their_free_parameters() -> None:
    scenarios = [load_instance(EXAMPLE / f"workers-{workers}.yaml").scenario for workers in SET_UPS]
    workers = [spec for scenario in scenarios for spec in scenario.workers.values()]
    assert len({(spec.device_class, spec.speed, spec.overlap) for spec in workers}) == 1
    assert len({scenario.networks["wifi"].bandwidth_bytes_per_s for scenario in scenarios}) == 1


def test_the_profile_is_of_the_model_that_the_paper_used() -> None:
    profile = load_instance(EXAMPLE / "workers-2.yaml").any_profile("classifier")
    assert sum(block.parameters for block in profile.blocks) == REFERENCE["mobilenetv2"].parameters
    assert profile.cut_bytes[0] == 3 * 256 * 256 * 4
    assert profile.provenance == "estimated"
