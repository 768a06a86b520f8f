"""The fields of the project's classes as tables for the documentation: name, type, default, meaning.

Names, types and defaults are those of the classes. The meaning of a field is the docstring below it, or its entry under
``Parameters`` in the docstring of its class; both are read from the source, since Python does not keep the former.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import griffe
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

_NAMES: Final = {
    float: "number",
    int: "whole number",
    str: "text",
    bool: "`true` or `false`",
    types.NoneType: "null",
    Any: "any",
}


class Field(NamedTuple):
    """A field of a class; every entry is text for people, in Markdown."""

    name: str
    type: str
    default: str
    meaning: str


def fields_of(cls: type) -> Iterator[Field]:
    """Yield the fields of a pydantic model or of a dataclass, in their order."""
    told = _meanings(cls)
    hints = get_type_hints(cls)
    if issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            yield Field(field.alias or name, _type(hints[name]), default, told.get(name, ""))
        return
    for item in dataclasses.fields(cast("Any", cls)):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        yield Field(
            item.name,
            _type(hints[item.name]),
            "required" if required else _default(item.default),
            told.get(item.name, ""),
        )


def table(cls: type, *, defaults: bool = True) -> str:
    """Return the table of a class."""
    heads = ["key", "type", *(["default"] if defaults else []), "meaning"]
    rows = [" | ".join(heads), " | ".join("---" for _ in heads)]
    hints = get_type_hints(cls)
    for field in fields_of(cls):
        inner = next(_classes(hints.get(field.name)), None)
        meaning = field.meaning or (about(inner) if inner else "")
        cells = [f"`{field.name}`", field.type, *([field.default] if defaults else []), meaning]
        rows.append(" | ".join(cell.replace("|", r"\|") for cell in cells))
    return "".join(f"| {row} |\n" for row in rows)


def about(cls: type) -> str:
    """Return the first paragraph of the docstring of a class, as Markdown."""
    return _plain((cls.__doc__ or "").split("\n\n")[0])


def inner_classes(cls: type) -> list[type]:
    """Return the classes that a class holds, and those that they hold, each once, in their order."""
    found: list[type] = []
    for hint in get_type_hints(cls).values():
        for inner in _classes(hint):
            found += [one for one in (inner, *inner_classes(inner)) if one not in found]
    return found


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, BaseModel)):
        yield hint
    for argument in get_args(hint):
        yield from _classes(argument)


@cache
def _module(name: str) -> Any:
    """Return a module as it is written; griffe's loader would read all of the package."""
    path = Path(inspect.getfile(importlib.import_module(name)))
    return griffe.visit(name, filepath=path, code=path.read_text(encoding="utf-8"))


def _meanings(cls: type) -> dict[str, str]:
    """Return the documentation of the fields of a class and its bases."""
    told: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("planner."):
            continue
        source = _module(base.__module__)[base.__qualname__]
        for section in source.docstring.parse("numpy", warnings=False) if source.docstring else ():
            if section.kind is griffe.DocstringSectionKind.parameters:
                told |= {name: _plain(entry.description) for entry in section.value for name in entry.name.split(", ")}
        told |= {name: _plain(member.docstring.value) for name, member in source.members.items() if member.docstring}
    return told


def _plain(text: str) -> str:
    """Return the text of a docstring on one line, without the roles of cross-references."""
    words = re.sub(r"\bNone\b", "null", " ".join(text.split()).replace("``", "`"))
    for role in (":func:", ":class:", ":mod:", ":attr:", ":meth:", ":data:"):
        words = words.replace(role, "")
    return words.replace("`~planner.", "`planner.")


def _type(hint: Any) -> str:
    """Return the type of a value in a file, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is None:
        return _NAMES[hint] if hint in _NAMES else _class(hint)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"list of {len(arguments)}: {', '.join(map(_type, arguments))}"
    return {
        Literal: lambda: ", ".join(f"`{choice}`" for choice in arguments),
        Union: lambda: " or ".join(map(_type, arguments)),
        types.UnionType: lambda: " or ".join(map(_type, arguments)),
        tuple: lambda: f"list: {_type(arguments[0])}",
        list: lambda: f"list: {_type(arguments[0])}",
        dict: lambda: f"by name: {_type(arguments[1])}",
    }[origin]()


def _class(cls: Any) -> str:
    """Return a class, in words: a named tuple is written as a list, all others have a section of their own."""
    names = getattr(cls, "_fields", None)
    return f"list of {len(names)}: {', '.join(names)}" if names else f"[{cls.__name__}](#{cls.__name__.lower()})"


def _default(value: Any) -> str:
    if value is None or value in ({}, (), "", PydanticUndefined):
        return ""
    return f"`{value}`"
