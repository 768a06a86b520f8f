from __future__ import annotations

import pytest

from planner.scenario.reference import scenario_keys, scenario_reference
from planner.scenario.schema import nearest, scenario_schema
from tests.scenario.golden import DOCS

SECTIONS = ["", "models", "workers", "networks", "sources", "objective", "policy", "events"]


def test_the_documentation_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == scenario_reference(), "write it with: python -m tests.scenario.golden"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_type_and_a_meaning(section: str) -> None:
    keys = list(scenario_keys(section))
    assert keys
    for key in keys:
        assert key.type
        assert key.meaning.endswith((".", ".)")), f"{section}.{key.name} has no sentence that says what it means"


def test_every_section_is_in_the_reference() -> None:
    assert {*SECTIONS[1:], "schema", "profiles"} == set(scenario_schema()["properties"])
    for section in SECTIONS[1:]:
        assert f"\n## `{section}`\n" in scenario_reference()


def test_the_nearest_name_is_found() -> None:
    assert nearest("bandwith", ["latency", "bandwidth"]) == "bandwidth"
    assert nearest("colour", ["latency", "bandwidth"]) is None
