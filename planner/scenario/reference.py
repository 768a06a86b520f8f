"""The reference of all keys of scenario and catalogue files, generated from the schemas that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from planner.scenario.catalogue import CatalogueSpec
from planner.scenario.types import ScenarioSpec, WorkerSpec
from planner.schemas import Schema, file_schema, resolve
from planner.units import EXAMPLES, format_quantity

_HEAD: Final = """# Scenario file

A YAML file that describes models, workers, networks and sources, and the objective of a plan for them. `planner new
NAME` writes one to start from, with a schema by which editors complete and check it. A quantity carries its unit in the
value, `bandwidth: 54 Mbit/s`; a bare number in its place is an error. Names consist of letters, digits, `_`, `.` and
`-`. Paths are relative to the file. All errors of a file are reported at once, each with its line.

Units: `ns`, `us`, `ms`, `s`, `min`, `h` for times; `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB` for memory; `bit/s`,
`kbit/s`, `Mbit/s`, `Gbit/s`, `B/s`, `MB/s`, … for bandwidths; `/s`, `/min`, `/h`, `Hz`, `fps` for rates; `%` for
fractions; `mW`, `W`, `kW` for powers.
"""

_CATALOGUE: Final = """# Catalogue file

The devices that `planner size` may add to a scenario, with their prices. Quantities are written as in a scenario.
"""


@dataclass(frozen=True)
class Key:
    """One key of a scenario file; every field is text for people."""

    name: str
    type: str
    unit: str
    default: str
    meaning: str


def keys_of(section: str, model: type[BaseModel] = ScenarioSpec) -> Iterator[Key]:
    """Return the keys of an entry of a section, or of the file itself.

    Parameters
    ----------
    section
        ``workers``, ``objective``, …; ``policy.adaptive`` for a section inside another; empty for the file itself.
    model
        The file: a scenario or a catalogue.
    """
    schema = file_schema(model)
    for name in section.split(".") if section else ():
        schema = _entry(schema["properties"][name])
    for name, described in schema["properties"].items():
        value = resolve(described)
        kind = value.get("quantity")
        yield Key(
            name=name,
            type=_type(value),
            unit=f"such as `{EXAMPLES[kind]}`" if kind else "",
            default="required" if name in schema.get("required", ()) else _default(described.get("default"), kind),
            meaning=str(described.get("description") or value["description"]).replace("\n", " ").replace("``", "`"),
        )


def scenario_reference() -> str:
    """Return the whole reference as Markdown."""
    parts = [_HEAD, _table(keys_of(""))]
    for section, schema in _sections(file_schema(ScenarioSpec)):
        mark = "#" * (2 + section.count("."))
        meaning = schema["description"].replace("``", "`")
        parts += [f"{mark} `{section}`\n\n{meaning}\n", _table(keys_of(section))]
    parts += [_CATALOGUE, _table(keys_of("", CatalogueSpec))]
    for section in ("networks", "devices"):
        schema = _entry(file_schema(CatalogueSpec)["properties"][section])
        keys = (key for key in keys_of(section, CatalogueSpec) if key.name not in file_schema(WorkerSpec)["properties"])
        meaning = schema["description"].replace("``", "`")
        parts += [f"## `{section}` of a catalogue\n\n{meaning}\n", _table(keys)]
    return "\n".join(parts)


def _sections(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield the name and the schema of each entry that has keys, outer ones first."""
    for name, described in schema["properties"].items():
        entry = _entry(described)
        if "properties" in entry:
            yield prefix + name, entry
            yield from _sections(entry, f"{prefix}{name}.")


def _entry(described: Schema) -> Schema:
    """Return the schema of one entry: the values of a mapping by name, the items of a list, else the value itself."""
    schema = resolve(described)
    inner = schema.get("additionalProperties") or schema.get("items")
    return resolve(inner) if inner else schema


def _type(value: Schema) -> str:
    if "quantity" in value:
        return str(value["quantity"])
    if "const" in value or "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if value["type"] == "array":
        pair = value.get("prefixItems")
        return f"list of {len(pair)} names" if pair else f"list of {_PLURALS.get(_items(value), _items(value))}"
    if value["type"] == "object":
        return "keys below" if "properties" in value else f"{_type(resolve(value['additionalProperties']))} by name"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}[
        value["type"]
    ]


_PLURALS: Final = {"whole number": "whole numbers", "keys below": "entries with the keys below"}


def _items(value: Schema) -> str:
    return _type(resolve(value["items"]))


def _default(value: Any, kind: str | None) -> str:
    if value is None or value in ([], {}, ""):
        return ""
    return f"`{format_quantity(value, kind)}`" if kind else "" if isinstance(value, dict) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def _table(keys: Iterator[Key]) -> str:
    rows = ["| key | type | unit | default | meaning |", "| --- | --- | --- | --- | --- |"]
    rows += [f"| `{key.name}` | {key.type} | {key.unit} | {key.default} | {key.meaning} |" for key in keys]
    return "\n".join(rows) + "\n"
