"""Import profiles measured by other tools, for devices too old to run this toolkit.

onnxruntime writes a trace of events if ``SessionOptions.enable_profiling`` is set. TensorRT's ``trtexec
--exportProfile`` writes a list of layers. Both name layers after the model's nodes, including fused layers.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from planner.errors import ProfileError
from planner.profiling.assemble import ChainCosts, assemble
from planner.profiling.sampling import ProfiledModel
from planner.profiling.timing import robust_std
from planner.profiling.types import OperatingPoint, Profile

KERNEL_SUFFIX: Final = "_kernel_time"
TRT_SEPARATORS: Final = re.compile(r"\.\.\.|[\s+(),\[\]{}]+")
MIN_MATCHED: Final = 0.5
"""Minimum share of the time in layers of the model; with less, the file belongs to another model."""


@dataclass(frozen=True)
class Layer:
    """A layer as timed by another tool.

    Parameters
    ----------
    names
        Names that the layer may have in the model.
    mean_s, std_s
        Mean and standard deviation of its time per run, seconds.
    stands_for
        Nodes that the layer stands for: the ``first`` of its names in the model, ``all`` of them, or also all nodes
        ``between`` them.
    """

    names: tuple[str, ...]
    mean_s: float
    std_s: float
    stands_for: Literal["first", "all", "between"]

    def blocks(self, block_of: Mapping[str, int]) -> list[int]:
        """Return the indices of the blocks that the layer belongs to, in order."""
        indices = [block_of[name] for name in self.names if name in block_of]
        if self.stands_for == "first":
            return indices[:1]
        if indices and self.stands_for == "between":
            return list(range(min(indices), max(indices) + 1))
        return sorted(set(indices))


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
        If neither tool wrote the file, or its layers are not those of this model.
    """
    layers, environment = _read(path)
    mean_s, variance, matched = _per_block(layers, chain_model)
    if matched < MIN_MATCHED:
        names = ", ".join(layer.names[0] for layer in layers[:3])
        raise ProfileError(
            f"only {matched:.0%} of the time is in layers of the model {chain_model.chain.name}",
            where=str(path),
            value=names,
            expected="a profile of this model that uses the names of its nodes",
        )
    warnings = [] if matched > 0.9 else [f"{1 - matched:.0%} of the time is in layers that are not in the model"]
    return assemble(
        chain_model.chain,
        ChainCosts(mean_s.tolist(), std_s=np.sqrt(variance).tolist()),
        device_class=device_class,
        provenance="measured",
        environment=environment | {"imported_from": path.name, "warnings": warnings},
        operating_points=operating_points,
    )


def _read(path: Path) -> tuple[list[Layer], dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"file cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise ProfileError(f"not JSON: {error}", where=str(path)) from error
    entries = [entry for entry in document if isinstance(entry, dict)] if isinstance(document, list) else []
    try:
        if any(entry.get("cat") == "Node" for entry in entries):
            return _onnxruntime_layers(entries)
        if any("averageMs" in entry for entry in entries):
            return _trtexec_layers(entries)
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"malformed entry: {error}", where=str(path)) from error
    expected = "a profile written by onnxruntime or by `trtexec --exportProfile`"
    raise ProfileError("the file contains no layers with times", where=str(path), expected=expected)


def _onnxruntime_layers(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Layer], dict[str, Any]]:
    times_s: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    providers: Counter[str] = Counter()
    for entry in entries:
        if entry.get("cat") == "Node" and entry["name"].endswith(KERNEL_SUFFIX):
            times_s[entry["name"].removesuffix(KERNEL_SUFFIX), entry["args"]["node_index"]].append(1e-6 * entry["dur"])
            providers[entry["args"].get("provider", "unknown")] += 1
    layers = [
        Layer(_name_prefixes(name), float(np.median(samples_s)), float(robust_std(samples_s)), "first")
        for (name, _), samples_s in times_s.items()
    ]
    runs = max(len(samples_s) for samples_s in times_s.values())
    provider = providers.most_common(1)[0][0].removesuffix("ExecutionProvider").lower()
    return layers, {"tool": "onnxruntime", "provider": provider, "rounds": runs}


def _name_prefixes(name: str) -> tuple[str, ...]:
    """Return a name and its prefixes, longest first: onnxruntime appends ``_nchwc``, ``/MatMulAddFusion`` and so on."""
    name = name.removeprefix("fused ")
    ends = [match.start() for match in re.finditer("[_/]", name)]
    return (name, *(name[:end] for end in reversed(ends)))


def _trtexec_layers(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Layer], dict[str, Any]]:
    layers = [
        Layer(
            tuple(name for name in TRT_SEPARATORS.split(entry["name"]) if name),
            1e-3 * float(entry["averageMs"]),
            0.0,
            "between" if "..." in entry["name"] else "all",
        )
        for entry in entries
        if "averageMs" in entry
    ]
    runs = next((entry["count"] for entry in entries if "count" in entry), 0)
    return layers, {"tool": "trtexec", "provider": "tensorrt", "rounds": runs}


def _per_block(
    layers: Sequence[Layer], chain_model: ProfiledModel
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the time and variance of each block, and the share of the time in layers of the model."""
    flop = np.array([block.flop for block in chain_model.chain.blocks]) + 1.0
    block_of = _block_of_names(chain_model)
    mean_s, variance = np.zeros(len(flop)), np.zeros(len(flop))
    matched_s = 0.0
    current = [0]
    for layer in layers:
        blocks = layer.blocks(block_of)
        if blocks:
            current = blocks
            matched_s += layer.mean_s
        # A layer that the tool added (a copy, a layout change) counts for the blocks of the previous layer.
        share = flop[current] / flop[current].sum()
        mean_s[current] += layer.mean_s * share
        variance[current] += np.square(layer.std_s * share)
    return mean_s, variance, matched_s / max(float(mean_s.sum()), 1e-12)


def _block_of_names(chain_model: ProfiledModel) -> dict[str, int]:
    import onnx

    block_of: dict[str, int] = {}
    for index in range(len(chain_model.chain)):
        for node in onnx.load_model_from_string(chain_model.block_model(index)).graph.node:
            for name in (node.name, *node.output):
                if name:
                    block_of.setdefault(name, index)
    return block_of
