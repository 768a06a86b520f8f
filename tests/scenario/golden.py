"""Write the golden files of the scenario: ``python -m tests.scenario.golden``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from planner.errors import ScenarioError
from planner.files import write_text_atomic
from planner.scenario.load import load_scenario
from planner.scenario.reference import scenario_reference

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "scenario.md"
BAD = HERE / "bad"


def messages(scenario: Path) -> str:
    """Return what a user reads about a bad scenario file, one error per line, with the bare name of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / scenario.name
        path.write_bytes(scenario.read_bytes())
        with pytest.raises(ScenarioError) as caught:
            load_scenario(path)
    told = f"{caught.value}\n".replace(str(path), scenario.name)
    return re.sub(r"(not valid YAML|cannot be read): .*", r"\1: …", told)


def main() -> None:
    """Write the reference of keys, and the messages of every bad scenario."""
    write_text_atomic(DOCS, scenario_reference())
    for scenario in sorted(BAD.glob("*.yaml")):
        write_text_atomic(scenario.with_suffix(".txt"), messages(scenario))


if __name__ == "__main__":
    main()
