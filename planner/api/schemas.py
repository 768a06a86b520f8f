"""JSON Schemas of the project's files, by which editors complete and check what people write."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from planner.errors import UsageError
from planner.plan.types import PlanSpec
from planner.profiling.types import Profile
from planner.scenario.catalogue import CatalogueSpec
from planner.scenario.types import ScenarioSpec
from planner.units import EXAMPLES, format_quantity, quantity_pattern

_FILES: Final[dict[str, type[BaseModel]]] = {
    "scenario": ScenarioSpec,
    "catalogue": CatalogueSpec,
    "plan": PlanSpec,
    "profile": Profile,
}
SCHEMA_KINDS: Final = tuple(_FILES)
"""The kinds of files that have a schema."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a kind of file.

    It holds what can be said of each value by itself. Rules that join several values, such as names that must exist,
    are checked when the file is read.

    Parameters
    ----------
    kind
        ``scenario``, ``catalogue``, ``plan`` or ``profile``.

    Raises
    ------
    UsageError
        There is no such kind.

    Examples
    --------
    >>> json_schema("plan")["required"][:3]
    ['status', 'method', 'goal']
    """
    if kind not in _FILES:
        raise UsageError("no such kind of file", where="schema", value=kind, expected=f"one of {', '.join(_FILES)}")
    schema = _published(_FILES[kind].model_json_schema(by_alias=True))
    head = {"$schema": _DIALECT, "title": f"planner {kind}", "description": f"A {kind} file of planner."}
    return {**head, **{key: value for key, value in schema.items() if key not in head}}


def _published(schema: Any) -> Any:
    """Return a copy of part of a schema: quantities as people write them, descriptions as plain text."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A title repeats the key. `properties` and `$defs` are mappings by name, in which a key may be called anything.
    result = {key: _published(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if isinstance(text := result.get("description"), str):
        result["description"] = " ".join(text.replace("``", "`").split())
    if isinstance(kind := result.get("quantity"), str):
        del result["quantity"]
        result |= {"pattern": quantity_pattern(kind), "examples": [EXAMPLES[kind]]}
    if isinstance(default := schema.get("default"), float) and (kind := _kind_of(schema)):
        result["default"] = format_quantity(default, kind)
    return result


def _kind_of(schema: dict[str, Any]) -> str | None:
    """Return the kind of quantity that a value is, if it is one; it may be optional."""
    options = [schema, *(option for option in schema.get("anyOf", ()) if isinstance(option, dict))]
    return next((option["quantity"] for option in options if isinstance(option.get("quantity"), str)), None)
