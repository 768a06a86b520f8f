"""What examples/jetsons tells people to type exists, and its scenario can be planned and simulated."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from planner.cli import COMMANDS
from planner.scenario.load import load_scenario
from tests.cli.command import planner

FOLDER = Path(__file__).parents[1] / "examples" / "jetsons"
UNIT = (FOLDER / "planner-agent.service").read_text(encoding="utf-8")
TYPED = [
    *re.findall(r"^    (planner .+)$", (FOLDER / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE),
    re.sub(r".*/planner agent", "planner agent", re.findall(r"^ExecStart=(.+)$", UNIT, flags=re.MULTILINE)[0]),
]


@pytest.mark.parametrize("line", TYPED)
def test_its_commands_have_the_options_it_uses(line: str) -> None:
    words = shlex.split(line)[1:]
    assert words[0] in COMMANDS
    # `models` and `profile` have commands of their own.
    told = planner(*words[: 2 if words[0] in {"models", "profile"} else 1], "--help").stdout
    for option in re.findall(r" (--?[a-z][a-z-]*)", line):
        assert re.search(rf"(^|[\s,]){option}\b", told), option


def test_its_scenario_is_planned_and_simulated(tmp_path: Path) -> None:
    scenario = FOLDER / "scenario.yaml"
    networks = load_scenario(scenario).networks
    assert networks["medium"].members == ("nano", "xavier", "orin")
    solved = planner("solve", scenario, "-o", tmp_path / "plan.json", "--json")
    assert solved.returncode == 0, solved.stderr
    simulated = planner("simulate", scenario, "--plan", tmp_path / "plan.json", "--json")
    assert simulated.returncode == 0, simulated.stderr
