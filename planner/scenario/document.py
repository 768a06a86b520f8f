"""A YAML file as values with their lines, which every message about the file needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.errors import Fault, ScenarioError

SCENARIO_KEYS: Final = "models, workers, networks and sources"

Location = tuple[str | int, ...]
"""Keys and list indices that lead from the top of a file to a value."""


def dotted(location: Location) -> str:
    """Return a location as text: ``networks.wifi.members[1]``."""
    text = ""
    for key in location:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


@dataclass(frozen=True)
class Document:
    """A YAML or JSON mapping and the file it came from."""

    path: Path | None
    """The file; None for a mapping that a program made."""
    data: Mapping[str, Any]
    sha256: str = ""
    """Hash of the file's content; empty without a file."""

    def line(self, location: Location) -> int:
        """Return the line, counted from 1, of a value, or of the innermost entry around it that the file has."""
        from ruamel.yaml.comments import CommentedMap, CommentedSeq

        line, inner = 0, self.data
        for key in location:
            if isinstance(inner, CommentedSeq) and isinstance(key, int) and key < len(inner):
                line = inner.lc.item(key)[0]
            elif isinstance(inner, CommentedMap) and key in inner:
                # A key that a merge (<<) brought has no line of its own.
                line = inner.lc.key(key)[0] if key in (inner.lc.data or ()) else line
            else:
                break
            inner = inner[key]
        return int(line) + 1

    def value(self, location: Location) -> Any:
        """Return the value at ``location``."""
        inner: Any = self.data
        for key in location:
            inner = inner[key]
        return inner

    def where(self, location: Location) -> str:
        """Return file, line and key path: ``scenario.yaml:12: sources.gate-camera.rate``; lines are those of YAML."""
        if self.path is None:
            return dotted(location)
        if not hasattr(self.data, "lc"):
            return f"{self.path}: {dotted(location)}".removesuffix(": ")
        return f"{self.path}:{self.line(location)}: {dotted(location)}".removesuffix(": ")


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
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = path.read_bytes()
        data = YAML().load(content.decode("utf-8"))
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path), expected=f"a {kind} file (YAML)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot be read: {error}", where=str(path)) from None
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        what = f"not valid YAML: {error.problem or error.context}".partition(" with value")[0]
        raise ScenarioError(what, where=f"{path}{line}") from None
    except YAMLError as error:
        raise ScenarioError(f"not valid YAML: {str(error).splitlines()[0]}", where=str(path)) from None
    except RecursionError:
        raise ScenarioError("nested too deeply", where=str(path)) from None
    except ValueError as error:  # Python limits the digits of an integer
        raise ScenarioError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(data, Mapping):
        what = "the file is empty" if data is None else "the file holds no mapping"
        raise ScenarioError(what, where=str(path), expected=f"the keys {keys}")
    return _named(Document(path, data, hashlib.sha256(content).hexdigest()))


def document_of(data: Mapping[str, Any]) -> Document:
    """Return a mapping that a program made as a document.

    Raises
    ------
    ScenarioError
        A key is not text.
    """
    return _named(Document(None, plain(data)))


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


def _named(document: Document) -> Document:
    if faults := list(_unnamed(document, document.data, ())):
        raise ScenarioError(faults)
    return document


def _unnamed(document: Document, value: object, location: Location) -> Iterator[Fault]:
    """Yield an error for each key that YAML does not read as text, such as a bare number."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _unnamed(document, inner, (*location, key))
            else:
                where = document.where((*location, key))
                yield Fault("a key must be text", where, key, f'quotes around it: "{key}"')
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unnamed(document, inner, (*location, index))
