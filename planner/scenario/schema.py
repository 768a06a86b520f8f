"""The JSON schemas of scenarios and catalogues, made by pydantic, and what they allow at each place, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel

from planner.formats.yaml import Location
from planner.scenario.document import plain
from planner.scenario.types import ScenarioSpec
from planner.units import EXAMPLES, describe_quantity

Schema = Mapping[str, Any]


@cache
def file_schema(model: type[BaseModel]) -> Schema:
    """Return the JSON schema of a file; a reference (``$ref``) in it is the schema itself in place of its name."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})

    def linked(value: Any) -> Any:
        if isinstance(value, list):
            return [linked(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: linked(definitions[inner.rpartition("/")[2]]) if key == "$ref" else linked(inner)
            for key, inner in value.items()
        }

    whole: Schema = linked(schema)
    return whole


def resolve(schema: Schema) -> Schema:
    """Follow references; of an optional value return the schema that is not null."""
    if "$ref" in schema:
        return resolve(schema["$ref"])
    if "anyOf" in schema:
        return resolve(next(option for option in schema["anyOf"] if option.get("type") != "null"))
    return schema


def schema_at(location: Location, model: type[BaseModel] = ScenarioSpec) -> Schema:
    """Return the schema of the value at ``location`` in a file of this ``model``."""
    schema = file_schema(model)
    for key in location:
        if isinstance(key, int):
            schema = resolve(schema["prefixItems"][key] if "prefixItems" in schema else schema["items"])
        else:
            schema = resolve(schema.get("properties", {}).get(key) or schema["additionalProperties"])
    return schema


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to ``name``, or None when none is."""
    return next(iter(get_close_matches(str(name), list(known), n=1)), None)


def known_keys(location: Location, model: type[BaseModel] = ScenarioSpec) -> tuple[str, ...]:
    """Return the keys that the entry at ``location`` may have."""
    return tuple(schema_at(location, model).get("properties", ()))


def describe(schema: Schema) -> str:
    """Return what a value of this schema is, in words that a user of the file knows."""
    if "quantity" in schema:
        return describe_quantity(schema["quantity"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "array":
        return _describe_list(schema)
    if schema["type"] == "object":
        return "a mapping with the keys " + ", ".join(schema["properties"]) if "properties" in schema else "a mapping"
    return _WORDS[schema["type"]] + _describe_range(schema)


_WORDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


def _describe_list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}"
    examples = {"string": " such as [a, b]", "integer": " such as [1, 3, 224, 224]"}
    return "a list" + examples.get(resolve(schema["items"])["type"], "")


def _describe_range(schema: Schema) -> str:
    low = (
        f" greater than {schema['exclusiveMinimum']:g}"
        if "exclusiveMinimum" in schema
        else f" of at least {schema['minimum']:g}"
        if "minimum" in schema
        else ""
    )
    high = (
        f"less than {schema['exclusiveMaximum']:g}"
        if "exclusiveMaximum" in schema
        else f"at most {schema['maximum']:g}"
        if "maximum" in schema
        else ""
    )
    return low + (f" and {high}" if low and high else high and f" {high}")


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


def mend(data: Mapping[str, Any], wrong: Iterable[tuple[Location, str]], model: type[BaseModel] = ScenarioSpec) -> Any:
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
