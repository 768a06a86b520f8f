"""A YAML file as values with their lines, which every message about the file needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from planner.errors import Fault, ScenarioError
from planner.files import read_bounded
from planner.formats.limits import text_fault
from planner.formats.yaml import Location, YamlError, parse_yaml

SCENARIO_KEYS: Final = "models, workers, networks and sources"


def dotted(location: Location) -> str:
    """Return a location as text: ``networks.wifi.members[1]``."""
    text = ""
    for key in location:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


def where(path: Path, line: int, location: Location) -> str:
    """Return file, line and key path as text; the line 0 is unknown."""
    return f"{path}:{line}: {dotted(location)}".replace(":0: ", ": ", 1).removesuffix(": ")


@dataclass(frozen=True)
class Document:
    """A YAML or JSON mapping and the file it came from."""

    path: Path | None
    """The file; None for a mapping that a program made."""
    data: Mapping[str, Any]
    sha256: str = ""
    """Hash of the file's content; empty without a file."""
    lines: Mapping[Location, int] = field(default_factory=dict)
    """Lines of the values, counted from 1."""

    def line(self, location: Location) -> int:
        """Return the line, counted from 1, of a value, or of the innermost entry around it that has one; 0 in JSON."""
        outer = (location[:length] for length in range(len(location), 0, -1))
        return next((self.lines[place] for place in outer if place in self.lines), 1 if self.lines else 0)

    def value(self, location: Location) -> Any:
        """Return the value at ``location``."""
        inner: Any = self.data
        for key in location:
            inner = inner[key]
        return inner

    def where(self, location: Location) -> str:
        """Return file, line and key path: ``scenario.yaml:12: sources.gate-camera.rate``; without a file, no line."""
        return dotted(location) if self.path is None else where(self.path, self.line(location), location)


def read_document(path: Path, kind: str = "scenario", keys: str = SCENARIO_KEYS) -> Document:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    kind, keys
        What the file is and which keys it has, for messages.

    Raises
    ------
    ScenarioError
        The file cannot be read, is not YAML, repeats a key, or holds no mapping.
    """
    try:
        content = read_bounded(path)
        text = parse_yaml(content)
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path), expected=f"a {kind} file (YAML)") from None
    except OSError as error:
        raise ScenarioError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except YamlError as error:
        raise ScenarioError(
            replace(fault, where=where(path, line, location)) for line, location, fault in error.faults
        ) from None
    if not isinstance(text.value, Mapping):
        what = "the file is empty" if text.value is None else "the file holds no mapping"
        raise ScenarioError(what, where=str(path), expected=f"the keys {keys}")
    return Document(path, text.value, hashlib.sha256(content).hexdigest(), text.lines)


def document_of(data: Mapping[str, Any]) -> Document:
    """Return a mapping that a program made as a document.

    Raises
    ------
    ScenarioError
        A key is not text, or a text has a zero byte or is not Unicode.
    """
    copied = plain(data)
    if faults := list(_faults(copied, ())):
        raise ScenarioError(faults)
    return Document(None, copied)


def plain(value: Any) -> Any:
    """Return a copy of a value made of the types of JSON; paths become text, NumPy's numbers Python's."""
    if isinstance(value, Mapping):
        return {key if not isinstance(key, str) else str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool) or value is None:
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return plain(value.item()) if hasattr(value, "item") else value


def _faults(value: object, location: Location) -> Iterator[Fault]:
    """Yield an error for each key of a program's mapping that is not text, and each text that no file can hold."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield Fault("a key must be text", dotted((*location, key)), key, f'quotes around it: "{key}"')
            elif fault := text_fault(key):
                yield Fault(fault, dotted(location), key, "printable text")
            else:
                yield from _faults(inner, (*location, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, (*location, index))
    elif isinstance(value, str) and (fault := text_fault(value)):
        yield Fault(fault, dotted(location), value, "printable text")
