"""nn-Meter's predictions: the latency of whole models on the devices of its predictors.

nn-Meter (Zhang et al., MobiSys 2021) prints a latency in milliseconds for each model file. Its tables have the columns
``model_name``, ``predictor`` and ``latency``, and may have ``model_type`` and ``predictor_version``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from planner.base import FrozenModel
from planner.errors import InterchangeError, PlannerError, UsageError
from planner.files import read_bounded
from planner.interchange.case import Case, Chain, Device, Link
from planner.model.load import ChainModel, load_chain
from planner.units import read_quantity

COLUMNS: Final = ("model_name", "predictor", "latency")
OTHER_COLUMNS: Final = ("model_type", "predictor_version")


class Options(FrozenModel):
    """What nn-Meter does not know of."""

    bandwidth: str | None = None
    """Bandwidth between the devices, such as ``54 Mbit/s``; needed if there are several."""
    memory: str = "4 GiB"
    """Memory of each device."""
    max_blocks: Annotated[int, Field(ge=1, le=10**6)] = 8
    """Maximum number of blocks of each model."""


def read(files: Sequence[Path], options: Options) -> Case:
    """Read a table of predictions and the ONNX models that it names; each predictor becomes a device.

    A prediction is divided among the blocks by their operations (FLOP).

    Raises
    ------
    InterchangeError
        If the table is malformed or lacks a prediction.
    ModelError
        If a model is invalid.
    """
    table, *paths = files
    if not paths:
        expected = "a table of predictions (CSV), and the ONNX models that it names"
        raise InterchangeError("no models", where="FILE", value=len(files), expected=expected)
    found = _predictions(table)
    devices = sorted({predictor for _, predictor in found})
    models = {path: load_chain(path, max_blocks=options.max_blocks) for path in paths}
    notes = []
    if unused := sorted({name for name, _ in found} - {key for path in paths for key in (path.name, path.stem)}):
        notes.append(f"{table.name}: not used, as the models are not given: {', '.join(unused[:5])}")
    notes.append("nn-Meter predicts whole models: each time is divided among the blocks by their operations")
    notes.append("nn-Meter knows no memory and no network: both are values of --set, the same for all devices")
    chains = [
        _chain(path, model, {name: _time_s(found, path, name, table) for name in devices})
        for path, model in models.items()
    ]
    longest_s = max(sum(max(times) for times in zip(*chain.times_s.values(), strict=True)) for chain in chains)
    links = []
    if len(devices) > 1:
        if options.bandwidth is None:
            what, expected = "nn-Meter knows no network", "--set bandwidth='54 Mbit/s', say"
            raise InterchangeError(what, where="--set bandwidth", expected=expected)
        bytes_per_s = _quantity(options.bandwidth, "bandwidth", "--set bandwidth")
        links = [Link(ends, bytes_per_s) for ends in combinations(devices, 2)]
    return Case(
        origin=f"nn-Meter's {table.name}",
        chains=chains,
        devices={name: Device(name, int(_quantity(options.memory, "memory", "--set memory"))) for name in devices},
        links=links,
        home=devices[0],
        rate_per_s=0.5 / longest_s,
        goal="delay",
        provenance="estimated",
        notes=notes,
    )


def _quantity(text: str, kind: str, where: str) -> float:
    try:
        return read_quantity(text, kind)
    except PlannerError as error:
        fault = error.faults[0]
        raise UsageError(fault.what, where=where, value=text, expected=fault.expected) from error


def _predictions(path: Path) -> dict[tuple[str, str], float]:
    """Return the predicted time in seconds by model and predictor."""
    expected = f"a table (CSV) with the columns {', '.join(COLUMNS)}"
    try:
        lines = read_bounded(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InterchangeError(f"cannot be read: {error}", where=str(path), expected=expected) from error
    rows = csv.reader(lines, skipinitialspace=True)
    names = [name.strip() for name in next(rows, [])]
    if missing := [name for name in COLUMNS if name not in names]:
        raise InterchangeError(f"no column {missing[0]}", where=f"{path}:1", value=names or None, expected=expected)
    found: dict[tuple[str, str], float] = {}
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        cells = dict(zip(names, (cell.strip() for cell in row), strict=False))
        where = f"{path}:{number}"
        try:
            time_ms = float(cells.get("latency", ""))
        except ValueError:
            time_ms = -1.0
        if not 0 < time_ms <= 1e9:
            what, wanted = "not a latency", "milliseconds greater than 0"
            raise InterchangeError(what, where=where, value=cells.get("latency"), expected=wanted)
        version = cells.get("predictor_version", "")
        key = (cells["model_name"], "-".join(filter(None, (cells["predictor"], version))))
        if not all(key) or not cells["predictor"]:
            raise InterchangeError("a name is missing", where=where, value=",".join(row), expected=expected)
        if key in found:
            raise InterchangeError(
                "this prediction is already there", where=where, value=", ".join(key), expected="each once"
            )
        found[key] = time_ms / 1000
    if not found:
        raise InterchangeError("no predictions", where=str(path), expected=expected)
    return found


def _time_s(found: Mapping[tuple[str, str], float], model: Path, device: str, table: Path) -> float:
    for name in (model.name, model.stem):
        if (name, device) in found:
            return found[name, device]
    known = sorted({name for name, other in found if other == device})
    raise InterchangeError(
        f"no prediction of {model.name} on {device}",
        where=str(table),
        expected=f"a row; it has {', '.join(known[:10])}",
    )


def _chain(path: Path, model: ChainModel, whole_s: Mapping[str, float]) -> Chain:
    chain = model.chain
    flop = [block.flop for block in chain.blocks]
    total = sum(flop)
    shares = [each / total for each in flop] if total else [1 / len(flop)] * len(flop)
    return Chain(
        name=path.stem,
        layers=[block.name for block in chain.blocks],
        cut_bytes=[cut.bytes for cut in chain.cuts],
        times_s={device: [time_s * share for share in shares] for device, time_s in whole_s.items()},
        weight_bytes=[block.weight_bytes for block in chain.blocks],
        activation_bytes=[block.activation_bytes for block in chain.blocks],
        sha256=(chain.model_sha256, chain.chain_sha256),
    )
