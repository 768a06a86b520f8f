"""What examples/jetsons tells people to type exists, and its scenario can be planned and simulated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner.scenario.load import load_scenario
from tests.cli.command import parse, planner

FOLDER = Path(__file__).parents[1] / "examples" / "jetsons"
SERVICE = Path(__file__).parents[1] / "deploy" / "planner-serve.service"
UNITS = [path.read_text(encoding="utf-8") for path in (FOLDER / "planner-agent.service", SERVICE)]
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
TYPED = [
    *re.findall(r"^    (planner .+)$", PAGE, flags=re.MULTILINE),
    *re.findall(r"`(planner [^`]+ -[^`]+)`", PAGE),
    *(re.sub(r".*/planner ", "planner ", re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)[0]) for unit in UNITS),
]


@pytest.mark.parametrize("line", TYPED)
def test_its_commands_are_read_as_they_stand(line: str) -> None:
    assert parse(line) == 0


def test_its_scenario_is_planned_and_simulated(tmp_path: Path) -> None:
    scenario = FOLDER / "scenario.yaml"
    networks = load_scenario(scenario).networks
    assert networks["medium"].members == ("nano", "xavier", "orin")
    solved = planner("solve", scenario, "-o", tmp_path / "plan.json", "--json")
    assert solved.returncode == 0, solved.stderr
    simulated = planner("simulate", scenario, "--plan", tmp_path / "plan.json", "--json")
    assert simulated.returncode == 0, simulated.stderr
