"""JSON Schemas, held against the reader of the files by a checker that knows neither."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_jsonschema import main as checker
from click.testing import CliRunner, Result

import planner
from planner.api.schemas import SCHEMA_KINDS
from planner.errors import UsageError
from tests.api.schema_files import FOLDER, schema_text

ROOT = Path(__file__).parents[2]
SCENARIO = """\
profiles: [profiles]
models: {m: {profile: mobilenetv2}}
workers: {w: {device_class: jetson-nano, memory: 1 GiB}}
sources: {s: {worker: w, models: [m], rate: 4 /s}}
"""


def check(kind: str, *files: Path) -> Result:
    return CliRunner().invoke(checker, ["--schemafile", str(FOLDER / f"{kind}.schema.json"), *map(str, files)])


@pytest.mark.parametrize("kind", SCHEMA_KINDS)
def test_the_published_schema_is_today_s(kind: str) -> None:
    assert (FOLDER / f"{kind}.schema.json").read_text(encoding="utf-8") == schema_text(kind)


def test_what_comes_with_the_project_fits(tmp_path: Path) -> None:
    scenarios = [path for path in ROOT.glob("examples/*/*.yaml") if "sources:" in path.read_text(encoding="utf-8")]
    catalogues = [path for path in ROOT.glob("examples/*/*.yaml") if "price:" in path.read_text(encoding="utf-8")]
    (tmp_path / "scenario.yaml").write_text(SCENARIO.replace("[profiles]", f"[{ROOT / 'profiles'}]"), encoding="utf-8")
    planner.solve(tmp_path / "scenario.yaml").save(tmp_path / "plan.json")
    for kind, files in {
        "scenario": [*scenarios, tmp_path / "scenario.yaml"],
        "catalogue": catalogues,
        "profile": [*ROOT.glob("profiles/*/*.json")],
        "plan": [tmp_path / "plan.json"],
    }.items():
        checked = check(kind, *files)
        assert files, kind
        assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("rate: 4 /s", "rate: 4"),
        ("rate: 4 /s", "rates: 4 /s"),
        ("rate: 4 /s", "rate: 4 Mbit/s"),
        ("memory: 1 GiB", "memory: 1 Gb"),
        ("models: [m]", "models: m"),
        (", memory: 1 GiB", ""),
        ("rate: 4 /s", "rate: 4 /s, priority: -1"),
    ],
)
def test_the_checker_refuses_what_the_reader_refuses(tmp_path: Path, right: str, wrong: str) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO.replace(right, wrong), encoding="utf-8")
    assert check("scenario", path).exit_code == 1
    with pytest.raises(planner.PlannerError):
        planner.load_scenario(path)


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="no such kind of file; found 'trace'; expected one of scenario, catalogue"):
        planner.json_schema("trace")
