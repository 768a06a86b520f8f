from __future__ import annotations

import pytest

from planner.scenario.catalogue import CatalogueSpec
from planner.scenario.reference import keys_of, scenario_reference
from planner.scenario.types import ScenarioSpec
from planner.schemas import file_schema, nearest
from tests.scenario.golden import DOCS

SECTIONS = ["", "models", "workers", "networks", "sources", "objective", "policy", "events"]
CATALOGUE = ["networks", "devices"]


def test_the_documentation_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == scenario_reference(), "write it with: python -m tests.scenario.golden"


@pytest.mark.parametrize(
    ("section", "model"),
    [*((section, ScenarioSpec) for section in SECTIONS), *((section, CatalogueSpec) for section in ("", *CATALOGUE))],
)
def test_every_key_has_a_type_and_a_meaning(section: str, model: type[ScenarioSpec | CatalogueSpec]) -> None:
    keys = list(keys_of(section, model))
    assert keys
    for key in keys:
        assert key.type
        assert key.meaning.endswith((".", ".)")), f"{section}.{key.name} has no sentence that says what it means"


def test_every_section_is_in_the_reference() -> None:
    assert {*SECTIONS[1:], "schema", "profiles"} == set(file_schema(ScenarioSpec)["properties"])
    for section in SECTIONS[1:]:
        assert f"\n## `{section}`\n" in scenario_reference()
    assert {*CATALOGUE, "schema", "currency"} == set(file_schema(CatalogueSpec)["properties"])
    for section in CATALOGUE:
        assert f"\n## `{section}` of a catalogue\n" in scenario_reference()


def test_the_nearest_name_is_found() -> None:
    assert nearest("bandwith", ["latency", "bandwidth"]) == "bandwidth"
    assert nearest("colour", ["latency", "bandwidth"]) is None
