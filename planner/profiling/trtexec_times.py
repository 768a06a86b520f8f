"""Times written by ``trtexec --exportProfile``: a list of layers, whose names join those of the nodes fused in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from planner.errors import ProfileError
from planner.profiling.layers import NOT_IN_MODEL, Layer, ModelNode, by_name, seconds

SEPARATORS: Final = re.compile(r"\.\.\.|[\s+(),\[\]{}]+")
MS: Final = 1e-3


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
    runs = next((entry["count"] for entry in entries if "count" in entry), 0)
    if type(runs) is not int or runs < 0:
        raise ProfileError("not a number of runs", where=f"{where}: count", value=runs, expected="0 or more")
    return layers, {"tool": "trtexec", "provider": "tensorrt", "rounds": runs}


def _layer(entry: Mapping[str, Any], named: Mapping[str, ModelNode], where: str) -> Layer:
    name = entry.get("name")
    if not isinstance(name, str):
        raise ProfileError("a layer without a name", where=where, value=name, expected="a text")
    mean_s = seconds(entry["averageMs"], MS, f"{where}.averageMs")
    found = {named[part].block for part in SEPARATORS.split(name) if part in named}
    between = range(min(found), max(found) + 1) if found and "..." in name else sorted(found)
    return Layer(name, mean_s, 0.0, tuple(between), "" if found else NOT_IN_MODEL)
