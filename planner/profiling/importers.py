"""Import profiles measured by other tools, for devices too old to run this toolkit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import ProfileError
from planner.files import read_bounded
from planner.formats.json import parse_json
from planner.profiling import onnxruntime_events, trtexec_times
from planner.profiling.assemble import ChainCosts, assemble
from planner.profiling.layers import Layer, ModelNode, model_nodes
from planner.profiling.sampling import ProfiledModel
from planner.profiling.types import OperatingPoint, Profile

MIN_MATCHED: Final = 0.5
"""Minimum share of the time in layers of the model; with less, the file belongs to another model."""
WELL_MATCHED: Final = 0.9
"""Share of the time from which the rest is not worth a warning."""


def import_profile(
    chain_model: ProfiledModel, path: Path, *, device_class: str, operating_points: Sequence[OperatingPoint] = ()
) -> Profile:
    """Return a profile built from a file written by onnxruntime or ``trtexec``.

    Parameters
    ----------
    chain_model
        The chain of the model that was run.
    path
        The file; its content tells which tool wrote it.
    device_class
        Name for the device on which the model ran.
    operating_points
        The chain's operating points, copied to the profile.

    Returns
    -------
    Profile
        Profile with ``provenance: measured``, without stage overhead and load time, because the model ran as a whole.

    Raises
    ------
    ProfileError
        If neither tool wrote the file, a time in it is not a finite number of 0 or more, its layers are not those of
        this model, or a provider compiled several nodes into one.
    """
    layers, environment = _read(path, model_nodes(chain_model))
    total_s = sum(layer.mean_s for layer in layers)
    if not 0 < total_s < inf:
        raise ProfileError(
            "impossible times", where=str(path), value=f"{total_s:g} s", expected="layers that take time"
        )
    matched = sum(layer.mean_s for layer in layers if not layer.unknown) / total_s
    unknown = _unknown(layers, total_s)
    name = chain_model.chain.name
    if sum(layer.mean_s for layer in layers if layer.compiled) > (1 - WELL_MATCHED) * total_s:
        what = f"the times of blocks of the model {name} cannot be told apart"
        expected = "a run without this provider, or `planner profile measure` on the device"
        raise ProfileError(what, where=str(path), value="; ".join(unknown), expected=expected)
    if matched < MIN_MATCHED:
        raise ProfileError(
            f"only {matched:.0%} of the time is in layers of the model {name}",
            where=str(path),
            value="; ".join(unknown),
            expected="a profile of this model that uses the names of its nodes",
        )
    mean_s, variance = _per_block(layers, chain_model)
    return assemble(
        chain_model,
        ChainCosts(
            mean_s.tolist(),
            std_s=np.sqrt(variance).tolist(),
            works=[chain_model.work(index) for index in range(len(mean_s))],
        ),
        device_class=device_class,
        provenance="measured",
        environment=environment | {"imported_from": path.name, "warnings": [] if matched > WELL_MATCHED else unknown},
        operating_points=operating_points,
    )


def _read(path: Path, nodes: Sequence[ModelNode]) -> tuple[list[Layer], dict[str, Any]]:
    try:
        document = parse_json(read_bounded(path))
    except OSError as error:
        raise ProfileError(f"file cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise ProfileError(f"not JSON: {error}", where=str(path)) from error
    entries = [entry if isinstance(entry, dict) else {} for entry in document] if isinstance(document, list) else []
    if any(entry.get("cat") == "Node" for entry in entries):
        return onnxruntime_events.read_layers(entries, nodes, str(path))
    if any("averageMs" in entry for entry in entries):
        return trtexec_times.read_layers(entries, nodes, str(path))
    expected = "a profile written by onnxruntime or by `trtexec --exportProfile`"
    raise ProfileError("the file contains no layers with times", where=str(path), expected=expected)


def _unknown(layers: Sequence[Layer], total_s: float) -> list[str]:
    """Return what the layers are that are not in the model: a sentence for each kind, the largest first."""
    kinds: defaultdict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        if layer.unknown:
            kinds[layer.unknown].append(layer)
    share = {kind: sum(layer.mean_s for layer in found) / total_s for kind, found in kinds.items()}
    return [
        f"{share[kind]:.0%} of the time is in {kind}: {', '.join(layer.name for layer in kinds[kind][:3])}"
        + (f" and {len(kinds[kind]) - 3} more" if len(kinds[kind]) > 3 else "")
        for kind in sorted(kinds, key=lambda kind: -share[kind])
    ]


def _per_block(layers: Sequence[Layer], chain_model: ProfiledModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the time and variance of each block."""
    flop = np.array([block.flop for block in chain_model.chain.blocks]) + 1.0
    mean_s, variance = np.zeros(len(flop)), np.zeros(len(flop))
    current = [0]
    for layer in layers:
        # A layer that the tool added (a copy, a layout change) counts for the blocks of the previous layer.
        current = list(layer.blocks) or current
        share = flop[current] / flop[current].sum()
        mean_s[current] += layer.mean_s * share
        variance[current] += np.square(layer.std_s * share)
    return mean_s, variance
