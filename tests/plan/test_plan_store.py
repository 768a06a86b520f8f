from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from planner.errors import PlanError
from planner.plan.store import load_plan, plan_document, save_plan
from planner.plan.types import PlanSpec
from planner.solvers import solve
from tests.instances import make_instance


@pytest.fixture(scope="module")
def plan() -> PlanSpec:
    found = solve(make_instance()).plan
    assert found is not None
    return found


def test_a_plan_comes_back_as_it_was_saved(plan: PlanSpec, tmp_path: Path) -> None:
    save_plan(plan, tmp_path / "deep" / "plan.json")
    assert load_plan(tmp_path / "deep" / "plan.json") == plan
    assert '"schema": "planner/plan/v1"' in (tmp_path / "deep" / "plan.json").read_text()


def test_all_faults_are_told_at_once(plan: PlanSpec, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan, path)
    text = path.read_text().replace('"share": 1.0', '"share": -3').replace('"goal": "delay"', '"goal": "joy"')
    path.write_text(text)
    with pytest.raises(PlanError) as caught:
        load_plan(path)
    assert len(caught.value.faults) >= 2
    assert "-3" in str(caught.value)
    assert "joy" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_what_is_no_plan_is_a_plan_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="latin-1")
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


def test_a_missing_file_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read"):
        load_plan(tmp_path / "none.json")


def test_another_kind_of_file_is_one_message() -> None:
    profile = Path(__file__).parents[2] / "profiles/x86-64/mobilenetv2.json"
    with pytest.raises(PlanError) as caught:
        load_plan(profile)
    assert str(caught.value) == (
        f"{profile}: schema: the file is a profile, not a plan; found 'planner/profile/v1'; expected planner/plan/v1"
    )


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "true", '"1"', "9" * 400])
@pytest.mark.parametrize("key", ["objective", "delay_s", "utilisation", "memory_bytes"])
def test_numbers_are_finite_numbers(plan: PlanSpec, tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan, path)
    path.write_text(re.sub(rf'"{key}": [^,\n]*', f'"{key}": {value}', path.read_text(), count=1))
    with pytest.raises(PlanError, match=rf"plan\.json.*{key}"):
        load_plan(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"pins": 3}, "pins"), ({"pins": {"s": {"x": "a"}}}, r"pins\.s"), ({"max_visits": "x"}, "max_visits")],
)
def test_options_that_a_plan_is_checked_against_have_their_types(
    options: dict[str, object], told: str, plan: PlanSpec, tmp_path: Path
) -> None:
    document = plan_document(plan) | {"options": options}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=told):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("block", [10**6 + 1, 2**63, 10**30])
def test_a_block_that_no_chain_has_is_refused(block: int, plan: PlanSpec, tmp_path: Path) -> None:
    text = re.sub(r'"last_block": \d+', f'"last_block": {block}', json.dumps(plan_document(plan)))
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="last_block"):
        load_plan(tmp_path / "plan.json")
