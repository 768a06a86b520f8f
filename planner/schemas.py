"""What the files of this project may contain at each place, in words: from the JSON schemas that pydantic makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from planner.errors import Fault
from planner.formats.yaml import Location
from planner.units import describe_quantity

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Schema = Mapping[str, Any]

FILES: Final = {
    "planner/scenario/": "a scenario",
    "planner/plan/": "a plan",
    "planner/profile/": "a profile",
    "planner/device-probe/": "a device probe",
    "planner/device-class/": "a device class",
    "planner/catalogue/": "a catalogue of devices",
}
"""Kinds of files by the beginning of their key ``schema``."""


def kind_of(schema: object) -> str:
    """Return what a file with this key ``schema`` is, as in ``a plan``; empty for none of :data:`FILES`."""
    return next((kind for start, kind in FILES.items() if isinstance(schema, str) and schema.startswith(start)), "")


def schema_fault(stated: object, expected: str, where: str) -> Fault:
    """Return the fault of a file whose key ``schema`` is not the expected one: of another kind or another version."""
    wanted = kind_of(expected)
    found = kind_of(stated)
    other = found not in ("", wanted)
    what = f"the file is {found}, not {wanted}" if other else f"not {wanted} of this version"
    return Fault(what, where, stated, expected)


def stated_schema(text: str | bytes) -> str | None:
    """Return the key ``schema`` of a text in YAML or JSON, which need not be valid; None if it has none of ours."""
    content = text if isinstance(text, str) else text.decode(errors="replace")
    match = re.search(r"""(?:^|[{,])\s*["']?schema["']?\s*:\s*["']?(planner/[a-z-]+/v\d+)""", content, re.MULTILINE)
    return match[1] if match else None


def other_kind(text: str | bytes, expected: str, where: str) -> Fault | None:
    """Return the fault of a text that cannot be read because it is a file of another kind."""
    stated = stated_schema(text)
    return schema_fault(stated, expected, where) if kind_of(stated) not in ("", kind_of(expected)) else None


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


def schema_at(location: Location, model: type[BaseModel]) -> Schema:
    """Return the schema of the value at ``location`` in a file of this ``model``."""
    schema = file_schema(model)
    for key in location:
        if isinstance(key, int):
            schema = resolve(schema["prefixItems"][key] if "prefixItems" in schema else schema["items"])
        else:
            schema = resolve(schema.get("properties", {}).get(key) or schema["additionalProperties"])
    return schema


def known_keys(location: Location, model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys that the entry at ``location`` may have."""
    return tuple(schema_at(location, model).get("properties", ()))


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to ``name``, or None when none is."""
    return next(iter(get_close_matches(str(name), list(known), n=1)), None)


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


_WORDS: Final = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
_EXAMPLES: Final = {"string": " such as [a, b]", "integer": " such as [1, 3, 224, 224]"}


def _describe_list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])}"
    return "a list" + _EXAMPLES.get(resolve(schema["items"]).get("type", ""), "")


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


# ---- what is wrong with a file that a program wrote -----------------------------------------------------------------

_WHATS: Final = {
    "missing": "is missing",
    "too_short": "has too few entries",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "finite_number": "not a finite number",
    "literal_error": "unknown value",
}
_UNITS: Final = {"_bytes_per_s": "bytes per second", "_per_s": "per second", "_s": "seconds", "_bytes": "bytes"}


def schema_faults(error: ValidationError, model: type[BaseModel], where: str) -> list[Fault]:
    """Return what is wrong with a file that pydantic has refused, a fault for each value.

    Parameters
    ----------
    model
        What the file should be.
    where
        The file.
    """
    details = error.errors(include_url=False)
    # A list with invalid entries is reported as empty as well; that fault only follows from theirs.
    return [
        _fault(each, model, where)
        for each in details
        if not any(other["loc"][: len(each["loc"])] == each["loc"] != other["loc"] for other in details)
    ]


def first_fault(error: ValidationError) -> Fault:
    """Return the first thing that is wrong with an entry of a kind that its key ``kind`` tells."""
    detail = error.errors(include_url=False)[0]
    return _fault({**detail, "loc": detail["loc"][1:]}, None, "")


def _fault(detail: ErrorDetails, model: type[BaseModel] | None, where: str) -> Fault:
    kind, location = detail["type"], detail["loc"]
    place = ": ".join(filter(None, (where, _place(location)))) or None
    if kind == "value_error":
        what, value, expected = detail["msg"].removeprefix("Value error, "), detail["input"], None
    elif kind == "extra_forbidden":
        keys = _allowed(location[:-1], model).get("properties", {})
        guess = nearest(location[-1], keys)
        what, value = "unknown key", location[-1]
        expected = repr(guess) if guess else f"one of {', '.join(keys)}" if keys else None
    else:
        what, value = _WHATS.get(kind, "does not fit"), None if kind == "missing" else detail["input"]
        least = detail.get("ctx", {}).get("min_length") if kind == "too_short" else None
        expected = _expected(location, model) if least is None else f"at least {least}"
    return Fault(what, place, None if isinstance(value, dict | list | tuple) else value, expected)


def _allowed(location: Location, model: type[BaseModel] | None) -> Schema:
    """Return the schema at a location; empty where one value may have several, so that the place is no path of keys."""
    try:
        return schema_at(location, model) if model is not None else {}
    except (KeyError, IndexError, TypeError, StopIteration):
        return {}


def _expected(location: Location, model: type[BaseModel] | None) -> str | None:
    schema = _allowed(location, model)
    try:
        words = describe(schema)
    except (KeyError, TypeError):
        return None
    unit = next((unit for ending, unit in _UNITS.items() if _name(location).endswith(ending)), None)
    return f"{words} ({unit})" if unit and schema.get("type") in ("number", "integer") else words


def _name(location: Location) -> str:
    return next((key for key in reversed(location) if isinstance(key, str)), "")


def _place(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
