"""Times written by ``trtexec --exportProfile``: a list of layers, whose names join those of the nodes fused in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from planner.errors import ProfileError
from planner.profiling.layers import NOT_IN_MODEL, Layer, ModelNode, by_name, seconds

SEPARATORS: Final = re.compile(r"\.\.\.|[\s+(),\[\]{}]+")
MS: Final = 1e-3
TIMES: Final = ("averageMs", "medianMs", "timeMs")


def read_layers(
    entries: Sequence[Mapping[str, Any]], nodes: Sequence[ModelNode], where: str
) -> tuple[list[Layer], dict[str, Any]]:
    """Return the layers, and the environment in which they were timed.

    Raises
    ------
    ProfileError
        If an entry is malformed.
    """
    named = by_name(nodes)
    layers = [
        _layer(entry, named, f"{where}: [{index}]") for index, entry in enumerate(entries) if "averageMs" in entry
    ]
    counts = [
        _count(entry["count"], f"{where}: [{index}].count") for index, entry in enumerate(entries) if "count" in entry
    ]
    return layers, {"tool": "trtexec", "provider": "tensorrt", "rounds": counts[0] if counts else 0}


def _count(value: object, where: str) -> int:
    if type(value) is not int or value < 1:
        raise ProfileError("not a number of runs", where=where, value=value, expected="a whole number of 1 or more")
    return value


def _layer(entry: Mapping[str, Any], named: Mapping[str, ModelNode], where: str) -> Layer:
    name = entry.get("name")
    if not isinstance(name, str):
        raise ProfileError("a layer without a name", where=where, value=name, expected="a text")
    # Only the average is used; a wrong number beside it tells that the file is damaged.
    times_s = {key: seconds(entry[key], MS, f"{where}.{key}") for key in TIMES if key in entry}
    found = {named[part].block for part in SEPARATORS.split(name) if part in named}
    between = range(min(found), max(found) + 1) if found and "..." in name else sorted(found)
    return Layer(name, times_s["averageMs"], 0.0, tuple(between), "" if found else NOT_IN_MODEL)
