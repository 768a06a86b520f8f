"""Helix's cluster and machine profile files, with its tables of times.

Helix (Mei et al., ASPLOS 2025) places layers of a language model on machines. A request passes from the coordinator
over machines and back. Between machines it carries 2 bytes and the activation of each token, else 2 bytes of each
token. The units in the files are powers of 1,000 of bytes, also ``mbps`` and ``gbps``: its simulator divides bytes by
bandwidths.
"""

from __future__ import annotations

import configparser
import csv
import re
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from planner.base import FrozenModel
from planner.errors import InterchangeError
from planner.files import read_bounded
from planner.interchange.case import Case, Chain, Device, Link, note_zero_times

UNITS: Final = {
    "Byte": 1.0,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "kbps": 1e3,
    "mbps": 1e6,
    "gbps": 1e9,
    "Sec": 1.0,
    "MilliSec": 1e-3,
}
PRODUCT: Final = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?:\*\s*(\w+))?\s*")
COORDINATOR: Final = "coordinator"
TOKEN_BYTES: Final = 2


class Options(FrozenModel):
    """What Helix has in its code: facts of the model. All but ``tokens`` are needed."""

    layers: Annotated[int, Field(ge=1, le=10**6)]
    """Number of layers of the model."""
    layer_bytes: Annotated[int, Field(ge=2, le=10**15)]
    """Memory of a layer's weights."""
    activation_bytes: Annotated[int, Field(ge=0, le=10**15)]
    """Size of the activation of a token between layers."""
    tokens: Annotated[int, Field(ge=1, le=10**9)] = 1
    """Tokens of a sample; the tables give times by tokens."""


def read(files: Sequence[Path], options: Options) -> Case:
    """Read a cluster file, a machine profile file, and a table of times for each type of machine.

    The type of a table is the name of its folder, as in Helix's own folders: ``a100/prompt_bs2time.csv``.

    Raises
    ------
    InterchangeError
        If a file is malformed, or a type of machine has no profile or no table.
    """
    if len(files) < 3:
        expected = "a cluster file, a machine profile file, and a table TYPE/prompt_bs2time.csv for each type"
        raise InterchangeError("too few files", where="FILE", value=len(files), expected=expected)
    cluster, profiles = _ini(files[0]), _ini(files[1])
    tables = {path.absolute().parent.name.lower(): path for path in files[2:]}
    kinds = _kinds(cluster, files[0], profiles, files[1])
    times = {kind: _layer_s(kind, tables, options.tokens) for kind in dict.fromkeys(kinds.values())}
    memory = {kind: int(_number(profiles, kind, "vram_size", files[1])) for kind in times}
    links, notes = _links(cluster, files[0], kinds, profiles, files[1])
    slowest_s = max(times.values())
    between = (TOKEN_BYTES + options.activation_bytes) * options.tokens
    notes += [
        "a network card's speed bounds each of its links; in Helix it bounds all of them together",
        "all machines take samples from the coordinator and return results to it, which computes nothing",
        "memory holds weights only: Helix keeps room for caches by limits in its code, given by --set layer_bytes",
    ]
    note_zero_times(times.values(), notes)
    return Case(
        origin=f"Helix's {files[0].name} and {files[1].name}",
        chains=[
            Chain(
                name="model",
                layers=[f"layer-{number}" for number in range(options.layers)],
                cut_bytes=[
                    TOKEN_BYTES * options.tokens,
                    *[between] * (options.layers - 1),
                    TOKEN_BYTES * options.tokens,
                ],
                times_s={kind: [time_s] * options.layers for kind, time_s in {COORDINATOR: slowest_s, **times}.items()},
                weight_bytes=[options.layer_bytes] * options.layers,
                activation_bytes=[0] * options.layers,
            )
        ],
        devices={
            COORDINATOR: Device(COORDINATOR, 1),
            **{f"node-{node}": Device(kind, memory[kind]) for node, kind in kinds.items()},
        },
        links=links,
        home=COORDINATOR,
        rate_per_s=0.5 / (max(slowest_s, 1e-9) * options.layers),
        goal="throughput",
        provenance="measured",
        notes=notes,
    )


def _ini(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_bounded(path).decode())
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        what = " ".join(str(error).split())
        raise InterchangeError(f"cannot be read: {what}", where=str(path), expected="an INI file of Helix") from error
    return parser


def _value(parser: configparser.ConfigParser, section: str, key: str, path: Path) -> str:
    if not parser.has_section(section):
        raise InterchangeError("is missing", where=f"{path}: [{section}]", expected=f"a section with {key}")
    value = parser.get(section, key, fallback=None)
    if value is None:
        raise InterchangeError("is missing", where=f"{path}: [{section}] {key}", expected="a value")
    return value


def _number(parser: configparser.ConfigParser, section: str, key: str, path: Path) -> float:
    """Return a product such as ``10 * gbps``; -1 is infinite."""
    text = _value(parser, section, key, path)
    match = PRODUCT.fullmatch(text)
    number = float(match[1]) * UNITS[match[2] or "Byte"] if match and (match[2] or "Byte") in UNITS else -inf
    if number == -1 and key != "vram_size":
        return inf
    if not 0 < number <= 1e18 and not (number == 0 and key == "latency"):
        expected = f"a number greater than 0, or one times {', '.join(UNITS)}, as in 10 * gbps"
        raise InterchangeError(
            "not a quantity of Helix", where=f"{path}: [{section}] {key}", value=text, expected=expected
        )
    return number


def _kinds(
    cluster: configparser.ConfigParser, path: Path, profiles: configparser.ConfigParser, profile_path: Path
) -> dict[int, str]:
    """Return the type of each machine by its number."""
    text = _value(cluster, "NodeNames", "total_compute_nodes", path)
    if not re.fullmatch(r"\d{1,5}", text) or not int(text):
        where, expected = f"{path}: [NodeNames] total_compute_nodes", "a whole number of at least 1"
        raise InterchangeError("not a number of machines", where=where, value=text, expected=expected)
    kinds = {}
    for node in range(int(text)):
        kinds[node] = _value(cluster, f"ComputeNode-{node}", "type", path).strip("\"' ")
        if not profiles.has_section(kinds[node]):
            where = f"{path}: [ComputeNode-{node}] type"
            expected = f"a section of {profile_path}: {', '.join(profiles.sections())}"
            raise InterchangeError("unknown type of machine", where=where, value=kinds[node], expected=expected)
    return kinds


def _links(
    cluster: configparser.ConfigParser,
    path: Path,
    kinds: Mapping[int, str],
    profiles: configparser.ConfigParser,
    profile_path: Path,
) -> tuple[list[Link], list[str]]:
    """Return the links, each as slow as its slower direction, and what that changes."""
    nodes = {str(node): f"node-{node}" for node in kinds} | {"source": COORDINATOR, "sink": COORDINATOR}
    sections = {str(node): kind for node, kind in kinds.items()} | {"source": "SourceNode", "sink": "SinkNode"}
    ways: dict[tuple[str, str], tuple[float, float]] = {}
    for section in cluster.sections():
        if not section.startswith("Link-"):
            continue
        _, sender, receiver = [*section.split("-", 2), ""][:3]
        if sender not in nodes or receiver not in nodes or nodes[sender] == nodes[receiver]:
            expected = f"Link-SENDER-RECEIVER with two of source, sink and 0 to {len(kinds) - 1}"
            raise InterchangeError("not a link between machines", where=f"{path}: [{section}]", expected=expected)
        # Between two machines one section is for both directions; the coordinator has one for each.
        one_way = "source" in (sender, receiver) or "sink" in (sender, receiver)
        for a, b in ((sender, receiver),) if one_way else ((sender, receiver), (receiver, sender)):
            if (nodes[a], nodes[b]) in ways:
                where, expected = f"{path}: [{section}]", "one link between two machines, for both directions"
                raise InterchangeError("this link is already there", where=where, expected=expected)
            bytes_per_s = min(
                _number(cluster, section, "bandwidth", path),
                _number(profiles, sections[a], "outbound_nic_speed", profile_path),
                _number(profiles, sections[b], "inbound_nic_speed", profile_path),
            )
            ways[nodes[a], nodes[b]] = bytes_per_s, _number(cluster, section, "latency", path)
    links, differing, single = [], 0, 0
    for (a, b), way in ways.items():
        back = ways.get((b, a), way)
        single += (b, a) not in ways
        if (b, a) in ways and a > b:
            continue  # told with the other direction
        differing += back != way
        links.append(Link((a, b), min(way[0], back[0]), max(way[1], back[1])))
    notes = []
    if differing:
        notes.append(
            f"{differing} of {len(links)} links differ by direction, which a link here does not: both directions have "
            "the lesser bandwidth and the greater latency"
        )
    if single:
        notes.append(f"{single} of {len(links)} links have one direction in Helix; here both directions can be used")
    return links, notes


def _layer_s(kind: str, tables: Mapping[str, Path], tokens: int) -> float:
    """Return the time of a layer for a number of tokens, interpolated in the table of a type of machine."""
    path = tables.get(kind.lower())
    if path is None:
        expected = f"a table in a folder of that name, such as {kind.lower()}/prompt_bs2time.csv"
        raise InterchangeError("no table of times", where=f"type {kind}", expected=expected)
    expected = "rows of tokens and milliseconds, tokens increasing"
    rows: list[tuple[float, float]] = []
    try:
        lines = read_bounded(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InterchangeError(f"cannot be read: {error}", where=str(path), expected=expected) from error
    for number, row in enumerate(csv.reader(lines), start=1):
        if not row:
            continue
        try:
            count, time_ms = (float(cell) for cell in row)
        except ValueError:
            count = time_ms = -1.0
        if not (isfinite(count) and isfinite(time_ms) and time_ms >= 0 and count > (rows[-1][0] if rows else -1)):
            raise InterchangeError("not a time", where=f"{path}:{number}", value=",".join(row), expected=expected)
        rows.append((count, time_ms))
    if not rows or not rows[0][0] <= tokens <= rows[-1][0]:
        expected = f"from {rows[0][0]:g} to {rows[-1][0]:g}, as in {path}" if rows else expected
        raise InterchangeError(
            "the table has no such number of tokens", where="--set tokens", value=tokens, expected=expected
        )
    return float(np.interp(tokens, [count for count, _ in rows], [time_ms for _, time_ms in rows])) / 1000
