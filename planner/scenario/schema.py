"""Valid values in place of wrong ones, so that all errors of a file are found at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from planner.formats.yaml import Location
from planner.scenario.document import plain
from planner.schemas import Schema, resolve, schema_at
from planner.units import EXAMPLES


def stand_in(schema: Schema) -> Any:
    """Return some valid value, to go on checking the rest of a file in which this one is wrong."""
    schema = resolve(schema)
    if "quantity" in schema:
        return EXAMPLES[schema["quantity"]]
    if "const" in schema or "enum" in schema:
        return schema.get("const") or schema["enum"][0]
    if schema["type"] == "array":
        items = schema.get("prefixItems", [schema["items"]] * schema.get("minItems", 0) if "items" in schema else [])
        return [stand_in(item) for item in items]
    if schema["type"] == "object":
        required = {key: schema["properties"][key] for key in schema.get("required", ())}
        if schema.get("minProperties"):
            required["_"] = schema["additionalProperties"]
        return {key: stand_in(value) for key, value in required.items()}
    # A default lies in the range of its key.
    return schema.get("default") or {"string": "_", "integer": 1, "number": 1.0, "boolean": False}[schema["type"]]


def mend(data: Mapping[str, Any], wrong: Iterable[tuple[Location, str]], model: type[BaseModel]) -> Any:
    """Return a copy of a file's values: with stand-ins for those that pydantic found wrong, without unknown keys.

    Parameters
    ----------
    wrong
        Location and pydantic error type of each of them.
    """
    mended = plain(data)
    for location, kind in wrong:
        *outer, key = location
        entry: Any = mended
        for step in outer:
            entry = entry[step]
        if kind == "extra_forbidden":
            entry.pop(key, None)
        elif isinstance(entry, list) and isinstance(key, int) and key >= len(entry):
            entry.append(stand_in(schema_at(location, model)))
        else:
            entry[key] = stand_in(schema_at(location, model))
    return mended
