"""The example of changing rates and priorities shows what its README says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from planner.scenario.types import AdaptiveParameters
from tests.cli.command import script

FOLDER = Path(__file__).parents[1] / "examples" / "changing"
PHASES = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("changing")
    done = script(FOLDER / "run.py", "-o", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def longest_s(printed: str, policy: str) -> dict[str, list[float]]:
    """The longest delays by source, phase by phase, of one policy's table."""
    lines = printed.splitlines()
    start = next(place for place, line in enumerate(lines) if line.strip() == policy)
    rows = [line.split("│")[1:-1] for line in lines[start:] if line.startswith("│")][:PHASES]
    return {
        source: [float(row[column].strip().removesuffix(" s")) for row in rows]
        for source, column in (("gate", 2), ("yard", 4))
    }


def test_ageing_bounds_what_starves_by_priority_alone(run: tuple[str, Path]) -> None:
    planned, without, adaptive = (
        longest_s(run[0], name) for name in ("planned", "adaptive without ageing", "adaptive")
    )
    ratio = 3.0
    bound_s = (ratio - 1) * AdaptiveParameters().ageing_s + ratio * max(adaptive["gate"][:3])
    assert max(adaptive["yard"]) <= bound_s + 2
    assert min(max(planned["yard"]), max(without["yard"])) > bound_s + 10


def test_a_changed_priority_takes_effect_while_the_other_source_asks_for_all(run: tuple[str, Path]) -> None:
    adaptive = longest_s(run[0], "adaptive")
    assert adaptive["yard"][1] > 20
    assert adaptive["yard"][3] < 2 < adaptive["gate"][3]


def test_the_picture_is_drawn(run: tuple[str, Path]) -> None:
    assert (run[1] / "delays.png").read_bytes().startswith(b"\x89PNG")


def test_phases_are_those_of_the_scenario() -> None:
    from planner.scenario.load import load_instance

    script: dict[str, Any] = runpy.run_path(str(FOLDER / "run.py"))
    changes_s = sorted({event.at_s for event in load_instance(FOLDER / "scenario.yaml").scenario.events})
    assert changes_s == [begin_s for begin_s, _ in script["PHASES"].values()][1:]


def test_with_deadlines_serving_by_value_loses_least(tmp_path: Path) -> None:
    printed = script(FOLDER / "run.py", "--deadlines", "-o", tmp_path).stdout
    (total,) = [line.split("│")[3:-1] for line in printed.splitlines() if "weighted by priority" in line]
    edf, planned, adaptive = (float(cell.strip().removesuffix("%")) for cell in total)
    assert max(planned, adaptive) < 0.8 * edf
    assert (tmp_path / "deadlines.png").read_bytes().startswith(b"\x89PNG")
