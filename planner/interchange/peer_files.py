"""Files of other projects, checked: every message has file, place, value and what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel

from planner.errors import InterchangeError, ScenarioError
from planner.files import read_bounded
from planner.formats.json import parse_json
from planner.scenario.document import Document, read_document
from planner.scenario.parse import parse_entries

_M = TypeVar("_M", bound=BaseModel)

# Numbers are strict, because text and booleans would be read as numbers otherwise.
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, le=10**15, strict=True)]
PositiveCount = Annotated[int, Field(ge=1, le=10**15, strict=True)]


class PeerModel(BaseModel):
    """Base of the entries of another project's files; keys that are not read are kept, to tell of them."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


def read_yaml(path: Path, model: type[_M], kind: str, keys: str) -> _M:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    kind, keys
        What the file is and which keys it has, for messages.

    Raises
    ------
    InterchangeError
        With all errors of the file, each with its line.
    """
    try:
        return parse_entries(read_document(path, kind, keys), model)
    except ScenarioError as error:
        raise InterchangeError(error.faults) from error


def read_json(path: Path, model: type[_M], kind: str, keys: str) -> _M:
    """Read a JSON file whose top level is an object; as :func:`read_yaml`, without lines."""
    expected = f"{kind} (JSON)"
    try:
        data = parse_json(read_bounded(path))
    except OSError as error:
        raise InterchangeError(f"cannot be read: {error.strerror}", where=str(path), expected=expected) from error
    except ValueError as error:
        raise InterchangeError(f"not JSON: {error}", where=str(path), expected=expected) from error
    if not isinstance(data, dict):
        raise InterchangeError("the file holds no object", where=str(path), expected=f"{kind} with the keys {keys}")
    try:
        return parse_entries(Document(path, data), model)
    except ScenarioError as error:
        raise InterchangeError(error.faults) from error


def unread(path: Path, contents: BaseModel) -> Iterator[str]:
    """Return a note that names the keys of a file that were not read."""
    if keys := list(dict.fromkeys(_unread(contents, ""))):
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        yield f"{path.name}: not used: {', '.join(keys[:5])}{more}"


def _unread(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, RootModel):
        yield from _unread(value.root, place)
    elif isinstance(value, BaseModel):
        for key in value.model_extra or {}:
            yield f"{place}.{key}".removeprefix(".")
        for key in type(value).model_fields:
            yield from _unread(getattr(value, key), f"{place}.{key}")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _unread(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple) and value and isinstance(value[0], BaseModel):
        for inner in value:
            yield from _unread(inner, f"{place}[]")
