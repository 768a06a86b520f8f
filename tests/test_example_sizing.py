"""The example of sizing: from the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import planner
from planner.cli import main
from planner.errors import SolveError
from tests.cli.command import planner as command

FOLDER = Path(__file__).parents[1] / "examples" / "sizing"
SCENARIO, CATALOGUE = FOLDER / "scenario.yaml", FOLDER / "devices.yaml"


def test_the_command_writes_a_scenario_and_a_plan_that_all_other_commands_take(tmp_path: Path) -> None:
    sized = command("size", SCENARIO, "--catalogue", CATALOGUE, "-o", tmp_path / "sized", "--json")
    assert sized.returncode == 0, sized.stderr
    document = json.loads(sized.stdout)
    assert document["status"] == "optimal"
    bought = {name: device["count"] for name, device in document["devices"].items()}
    assert bought == {"nano": 0, "xavier": 0, "orin": 1}
    assert (document["cost"], document["bound"], document["gap"], document["currency"]) == (259, 259, 0, "EUR")
    assert document["plan"]["energy"]["average_power_w"] > 0
    plan = planner.load_plan(tmp_path / "sized" / "plan.json")
    assert plan.scenario.workers == ("camera-box", "orin-1")
    result = planner.simulate(plan.scenario, plan).to_dict()
    assert result["energy"]["average_power_w"] == pytest.approx(plan.spec.energy.average_power_w, rel=0.1)  # type: ignore[union-attr]
    for name, source in plan.spec.sources.items():
        deadline_s = plan.scenario.spec.sources[name].max_mean_delay_s
        assert deadline_s is None or max(source.delay_s, result["sources"][name]["mean_delay_s"]) <= deadline_s


def at_rates(**rates: float) -> planner.Scenario:
    data = planner.load_scenario(SCENARIO).to_dict()
    for name, rate in rates.items():
        data["sources"][name]["rate"] = f"{rate} /s"
    return planner.Scenario.from_dict(data, folder=FOLDER)


@pytest.mark.parametrize(("rates", "cost"), [((5, 2, 2), 0), ((5, 20, 20), 149)])
def test_fewer_samples_need_cheaper_devices(rates: tuple[float, float, float], cost: float) -> None:
    scenario = at_rates(**dict(zip(("gate", "yard", "alley"), rates, strict=True)))
    sizing = planner.size(scenario, CATALOGUE, time_limit_s=20, progress=None)
    assert sizing
    assert (sizing.status, sizing.cost, sizing.bound) == ("optimal", cost, cost)
    assert "Devices to buy" in sizing.summary()


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[object, str, str]:
    """Run a command in this process; give exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, *capsys.readouterr()


def test_where_no_devices_suffice_the_limits_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_rates(yard=150).save(tmp_path / "scenario.yaml")
    few = CATALOGUE.read_text().replace("count: 8", "count: 1").replace("count: 4", "count: 1")
    (tmp_path / "devices.yaml").write_text(few)
    words = ("size", tmp_path / "scenario.yaml", "--catalogue", tmp_path / "devices.yaml", "--json")
    code, printed, told = run(capsys, *words)
    assert code == 1
    assert "no devices of the catalogue suffice" in told
    document = json.loads(printed)
    assert (document["status"], document["blame"]) == (
        "infeasible",
        ["network switch would be 116% busy, 95% is allowed"],
    )


def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "devices.yaml").write_text(CATALOGUE.read_text().replace(" price: 149,", ""))
    code, _, told = run(capsys, "size", SCENARIO, "--catalogue", tmp_path / "devices.yaml")
    assert code == 2
    assert told.startswith("planner: error: ")
    assert "devices.nano.price: is missing" in told
    assert len(told.splitlines()) == 1
    pins = ("--pin", "gate:0=orin-1", "--pin", "gate:2=camera-box", "--pin", "gate:4=orin-1", "--max-visits", "1")
    planner.size(SCENARIO, CATALOGUE, progress=None).save(tmp_path)
    code, _, told = run(capsys, "solve", tmp_path / "scenario.yaml", *pins)
    assert (code, len(told.splitlines())) == (2, 1)
    assert "the pinned blocks of gate need 2 visits to orin-1" in told
    data = planner.load_scenario(SCENARIO).to_dict() | {"objective": {"goal": "makespan"}}
    with pytest.raises(SolveError, match="a batch has no rate"):
        planner.size(planner.Scenario.from_dict(data, folder=FOLDER), CATALOGUE, progress=None)
