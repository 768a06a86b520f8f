"""A file of another kind than was expected: each reader says what it was given, in one message."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from planner.errors import PlannerError
from planner.model.source import read_model
from planner.plan.store import load_plan
from planner.profiling.adapt import adapt
from planner.profiling.device_classes import load_class
from planner.profiling.device_probe import load_probe
from planner.profiling.store import load_profile
from planner.scenario.catalogue import SCHEMA as CATALOGUE_SCHEMA
from planner.scenario.catalogue import CatalogueSpec
from planner.scenario.document import read_document
from planner.scenario.load import load_instance, load_scenario
from planner.scenario.parse import parse
from planner.schemas import FILES, kind_of


def _catalogue(path: Path) -> CatalogueSpec:
    return parse(read_document(path, "catalogue"), CatalogueSpec, CATALOGUE_SCHEMA, lambda _: ())


def _as_yaml(document: dict[str, str]) -> str:
    written = StringIO()
    YAML().dump(document, written)
    return written.getvalue()


READERS: Final[dict[str, tuple[str, Callable[[Path], Any]]]] = {
    "scenario": ("a scenario", load_scenario),
    "instance": ("a scenario", load_instance),
    "plan": ("a plan", load_plan),
    "profile": ("a profile", load_profile),
    "probe": ("a device probe", load_probe),
    "measurements": ("a profile", lambda path: adapt("here", [path])),
    "class": ("a device class", lambda path: load_class(str(path))),
    "catalogue": ("a catalogue of devices", _catalogue),
    "model": ("a model", read_model),
}
WRITERS: Final[dict[str, Callable[[dict[str, str]], str]]] = {
    "json": json.dumps,
    "indented json": lambda document: json.dumps(document, indent=1),
    "yaml": _as_yaml,
}


WRONG: Final = [
    (reader, start)
    for reader, start in itertools.product(READERS, FILES)
    if READERS[reader][0] != FILES[start] and (reader, FILES[start]) != ("measurements", "a device probe")
]


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(("reader", "start"), WRONG)
def test_a_reader_says_what_it_was_given(reader: str, form: str, start: str, tmp_path: Path) -> None:
    wanted, read = READERS[reader]
    given = FILES[start]
    path = tmp_path / "given.yaml"
    path.write_text(WRITERS[form]({"name": "x", "schema": f"{start}v1"}))
    with pytest.raises(PlannerError) as caught:
        read(path)
    assert len(caught.value.faults) == 1
    assert f"the file is {given}, not {wanted}" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("schema", ["planner/plans/v1", "other/plan/v1", "", None, 3, ["planner/plan/v1"]])
def test_what_is_no_kind_of_file(schema: object) -> None:
    assert kind_of(schema) == ""
