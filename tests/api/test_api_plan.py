"""Plans made in Python: as good as those of the command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import planner
from planner.errors import PlanError, PlannerWarning, SolveError
from planner.plan.store import load_plan as load_spec
from tests.cli.command import planner as command
from tests.execution.case import SCENARIO, write_case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case")).parent


@pytest.fixture(scope="module")
def plan(folder: Path) -> planner.Plan:
    return planner.solve(str(folder / "scenario.yaml"), worth=True, progress=None)


def test_it_shows_itself(plan: planner.Plan, tmp_path: Path) -> None:
    assert plan
    assert plan.status == "optimal"
    assert plan.reasons == ()
    for text in (plan.summary(), str(plan)):
        assert "urgent" in text
        assert plan.spec.summary in text
    assert len(repr(plan).splitlines()) == 1
    assert "<td>urgent</td>" in plan._repr_html_()
    picture = plan.plot(str(tmp_path / "plan.svg"))
    assert "urgent" in (tmp_path / "plan.svg").read_text()
    assert picture._repr_svg_() == (tmp_path / "plan.svg").read_text()
    assert plan.to_dict()["sources"].keys() == {"urgent", "other"}


def test_saved_it_is_what_the_command_writes(plan: planner.Plan, folder: Path, tmp_path: Path) -> None:
    finished = command("solve", folder / "scenario.yaml", "-o", tmp_path / "command.json")
    assert finished.returncode == 0, finished.stderr
    assert plan.save(tmp_path / "deep" / "plan.json") == tmp_path / "deep" / "plan.json"
    by_command, by_python = (json.loads(path.read_text()) for path in (tmp_path / "command.json", plan.path or Path()))
    for document in (by_command, by_python):
        del document["solve_s"], document["search"]  # their times differ
        assert (tmp_path / "deep" / document["scenario"].pop("path")).is_file() or document is by_command
    assert by_python == by_command
    again = planner.load_plan(str(plan.path))
    assert again.spec == plan.spec == load_spec(str(plan.path))
    assert planner.solve(again.scenario, start=again, progress=None).objective == pytest.approx(plan.objective)


def test_a_scenario_that_changed_is_refused_unless_given(plan: planner.Plan, folder: Path, tmp_path: Path) -> None:
    own = planner.Scenario.from_dict(plan.scenario.to_dict(), folder=folder)
    own.save(tmp_path / "scenario.yaml")
    made = planner.solve(own, method="milp", progress=None)
    with (tmp_path / "scenario.yaml").open("a") as file:
        file.write("\n# changed\n")
    made.save(tmp_path / "plan.json")  # the plan was made for the file as it was
    with pytest.raises(PlanError, match="the scenario has changed since the plan was made"):
        planner.load_plan(tmp_path / "plan.json")
    assert planner.load_plan(tmp_path / "plan.json", tmp_path / "scenario.yaml").sources == made.sources


def test_without_a_plan_it_is_false_and_says_why(folder: Path) -> None:
    data = planner.load_scenario(folder / "scenario.yaml").to_dict()
    for source in data["sources"].values():
        source["rate"] = "4000 /s"
    none = planner.solve(planner.Scenario.from_dict(data, folder=folder), progress=None)
    assert not none
    assert none.status == "infeasible"
    assert none.reasons
    assert all(reason in none.summary() for reason in none.reasons)
    assert none.to_dict() == {"status": "infeasible", "blame": list(none.reasons)}
    for use in (lambda: none.sources, lambda: none.save("none.json"), lambda: planner.Session(none), none.plot):
        with pytest.raises(PlanError) as caught:
            use()
        assert none.reasons[0] in str(caught.value)


def test_an_accuracy_that_is_unknown_is_warned_of(folder: Path) -> None:
    data = planner.load_scenario(folder / "scenario.yaml").to_dict()
    data["sources"]["urgent"]["min_accuracy"] = "90 %"
    scenario = planner.Scenario.from_dict(data, folder=folder)
    with pytest.warns(PlannerWarning, match=r"sources\.urgent\.min_accuracy has no effect") as caught:
        assert planner.solve(scenario, progress=None).status == "feasible"
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert planner.solve(folder / "scenario.yaml", progress=None).status == "optimal"


def test_prices_and_methods(folder: Path) -> None:
    priced = planner.solve(folder / "scenario.yaml", prices=True, progress=None)
    assert priced.prices is not None
    assert priced.prices.workers.keys() == {"a", "b"}
    assert "10 % faster" in priced.summary()
    with pytest.raises(SolveError, match="unknown method"):
        planner.solve(folder / "scenario.yaml", method="magic", progress=None)


def test_progress_is_reported_to_a_callback_and_ends(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, float, float | None]] = []
    planner.solve(folder / "scenario.yaml", progress=lambda *state: heard.append(state))
    assert heard[-1] == ("solving", 1, 1)
    planner.solve(folder / "scenario.yaml", method="milp")  # not on a terminal
    assert capfd.readouterr() == ("", "")


def test_methods_side_by_side(folder: Path, tmp_path: Path) -> None:
    comparison = planner.compare(folder / "scenario.yaml", methods=["dp", "local"], simulate=True, progress=None)
    assert comparison.plans.keys() <= {"dp", "local"}
    assert "local" in str(comparison)
    assert set(comparison.simulated) == set(comparison.plans)
    assert comparison.to_dict()["methods"].keys() == {"dp", "local"}
    comparison.plot(tmp_path / "methods.svg")
    for plan in comparison.plans.values():
        assert planner.simulate(plan.scenario, plan, progress=None).metrics[0].sources["urgent"].completed == 30


def test_delay_against_accuracy(tmp_path: Path) -> None:
    write_case(tmp_path)
    front = planner.pareto(tmp_path / "scenario.yaml", points=1, progress=None)
    assert len(front) == len(front.plans) == 1  # nothing is known of accuracies
    assert "100.00%" in front.summary()
    assert front.to_dict()["points"][0]["accuracy"] == 1.0
    front.plot(tmp_path / "front.svg")


def test_a_plan_of_another_scenario_is_refused(plan: planner.Plan, tmp_path: Path) -> None:
    write_case(tmp_path)
    (tmp_path / "scenario.yaml").write_text(SCENARIO.replace("urgent:", "gate:"))
    with pytest.raises(PlanError, match="does not hold in this scenario"):
        planner.simulate(tmp_path / "scenario.yaml", plan, progress=None)
