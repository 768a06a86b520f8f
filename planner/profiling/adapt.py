"""Fit a device class to a few measurements of it, and estimate other models on it.

Each model is predicted by a fit that saw neither it nor a model that is like it (leave-one-out cross-validation); that
gives the errors. Models are alike if they have the same mix of operators:
one architecture in two sizes would tell each other's time, and the error of any other model would be larger. With fewer
than three kinds of models, blocks and probed kernels are left out instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from planner.errors import Fault, ProfileError
from planner.files import StrPath, read_bounded
from planner.formats.json import parse_json
from planner.profiling.assemble import SHORTEST_S, ChainCosts, assemble
from planner.profiling.device_probe import SCHEMA as PROBE_SCHEMA
from planner.profiling.device_probe import DeviceProbe, load_probe
from planner.profiling.intervals import COVERAGE, around, half_width
from planner.profiling.kernel_times import Fitter, KernelTimes, Measurement
from planner.profiling.sampling import ProfiledModel
from planner.profiling.store import load_profile
from planner.profiling.types import EstimateInterval, OperatingPoint, Profile

Measured = Profile | DeviceProbe

Mix = tuple[dict[str, float], dict[str, float]]
"""Kernels and FLOP by kind of operator."""

ALIKE: Final = 0.995
"""Cosine between the mixes of two models, from which on they are alike."""
MIN_MODELS: Final = 3
"""With fewer kinds of measured models, single blocks are left out to determine the errors."""
MIN_MEASUREMENTS: Final = 4
FOLDS: Final = 10
ROUNDED: Final = 4
COPIED: Final = (
    "device",
    "architecture",
    "provider",
    "precision",
    "threads",
    "power_mode",
    "onnxruntime",
    "l4t",
    "gpu",
)
"""Entries of the environment that an estimate takes from the measurements."""


@dataclass(frozen=True)
class LeftOut:
    """A model, or a single block, predicted by a fit that did not see it.

    Parameters
    ----------
    name
        Name of the model or of the block.
    error
        Relative error of the time of the whole.
    block_errors
        Logarithms of predicted over measured time, of each block.
    """

    name: str
    error: float
    block_errors: tuple[float, ...]


@dataclass(frozen=True)
class AdaptedClass:
    """A device class fitted to measurements.

    Parameters
    ----------
    device_class
        Name of the class.
    measured
        The measured profiles and device probes.
    """

    device_class: str
    measured: tuple[Measured, ...]

    @cached_property
    def models(self) -> dict[str, str]:
        """Names of the measured models by their hash."""
        return {item.model.sha256: item.model.name for item in self.measured if isinstance(item, Profile)}

    @property
    def by_model(self) -> bool:
        """Whether whole models are left out to determine the errors."""
        return len(self.families) >= MIN_MODELS

    @cached_property
    def families(self) -> list[list[str]]:
        """Hashes of the measured models, those that are alike together."""
        mixes: dict[str, list[Mix]] = {}
        for item in self.measured:
            if isinstance(item, Profile):
                mixes.setdefault(item.model.sha256, []).append(_mix(item))
        families: list[list[str]] = []
        for sha256, own in mixes.items():
            alike = [
                family
                for family in families
                if any(_alike(left, right) for member in family for left in mixes[member] for right in own)
            ]
            families = [family for family in families if family not in alike]
            families.append([*(member for family in alike for member in family), sha256])
        return families

    @cached_property
    def times(self) -> KernelTimes:
        """Coefficients fitted to all measurements."""
        return self._fitter.fit()

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Each model, or each block, predicted without it."""
        return tuple(item for fold in self._folds for item in self._leave_out(fold))

    @cached_property
    def width(self) -> float:
        """Half the width of the interval of a whole model's time, as a logarithm."""
        return half_width([float(np.log1p(item.error)) for item in self.left_out])

    @cached_property
    def block_width(self) -> float:
        """Half the width of the interval of a block's time, as a logarithm; no narrower than a whole model's."""
        return max(half_width([error for item in self.left_out for error in item.block_errors]), self.width)

    @property
    def fit(self) -> dict[str, Any]:
        """Contents of ``environment["fit"]`` of an estimate."""
        errors = np.abs([item.error for item in self.left_out])
        kernels = sum(len(item.kernels) for item in self.measured if isinstance(item, DeviceProbe))
        return {
            "models": sorted(self.models.values()),
            "blocks": len(self._measurements) - kernels,
            "kernels": kernels,
            "left_out": "model" if self.by_model else "block",
            "median_error": float(np.median(errors)),
            "p90_error": float(np.percentile(errors, 90)),
            "worst_error": float(errors.max()),
            "errors": {item.name: round(item.error, ROUNDED) for item in self.left_out} if self.by_model else {},
        }

    @cached_property
    def _measurements(self) -> list[Measurement]:
        found = []
        for number, item in enumerate(self.measured):
            if isinstance(item, DeviceProbe):
                named = [(f"{number}:{kernel.name}", kernel.work, kernel.time_s) for kernel in item.kernels]
                found += [Measurement(name, work, time_s, number) for name, work, time_s in named]
                continue
            for index, block in enumerate(item.blocks):
                group = item.model.sha256 if self.by_model else f"{number}:{index}"
                found.append(Measurement(group, block.work, block.mean_s, number, self.by_model))
        return found

    @cached_property
    def _fitter(self) -> Fitter:
        return Fitter(self._measurements)

    @cached_property
    def _folds(self) -> list[list[str]]:
        """Groups that are left out together."""
        if self.by_model:
            return self.families
        groups = [item.group for item in self._measurements]
        count = min(FOLDS, len(groups))
        return [groups[start::count] for start in range(count)]

    def _leave_out(self, fold: list[str]) -> list[LeftOut]:
        times = self._fitter.fit(without=frozenset(fold))
        found = []
        for group in fold:
            rows = [item for item in self._measurements if item.group == group]
            predicted = [times.time_s(item.work) for item in rows]
            logs = [float(np.log(time_s / item.time_s)) for time_s, item in zip(predicted, rows, strict=True)]
            error = sum(predicted) / sum(item.time_s for item in rows) - 1
            found.append(LeftOut(self.models.get(group, group), float(error), tuple(logs)))
        return found


def adapt(device_class: str, measured: Sequence[Measured | StrPath]) -> AdaptedClass:
    """Fit a device class to measured profiles and device probes of it.

    Parameters
    ----------
    device_class
        Name of the class.
    measured
        Profiles and probes, their files, or folders of files, of which those with estimates are left out.

    Raises
    ------
    ProfileError
        If there is nothing to fit, or something is not a measurement of this class; all faults at once.
    """
    named = [pair for item in measured for pair in _named(item)]
    faults = [fault for where, item in named for fault in _faults(device_class, where, item)]
    if not faults:
        faults = _differences(named)
    if faults:
        raise ProfileError(faults)
    adapted = AdaptedClass(device_class, tuple(item for _, item in named))
    count = sum(len(item.blocks if isinstance(item, Profile) else item.kernels) for item in adapted.measured)
    if count < MIN_MEASUREMENTS:
        raise ProfileError(
            "too few measured blocks to fit a device class",
            where="--adapt",
            value=count,
            expected=f"{MIN_MEASUREMENTS} or more: profiles of several models, or a file by `planner probe-device`",
        )
    return adapted


def estimate_adapted(
    chain_model: ProfiledModel, adapted: AdaptedClass, *, operating_points: Sequence[OperatingPoint] = ()
) -> Profile:
    """Estimate a chain's costs on a device class that was fitted to measurements.

    Returns
    -------
    Profile
        Profile with ``provenance: estimated`` and intervals. ``environment["fit"]`` has the errors on models that were
        left out of the fit. Stage overhead, spread and load time are typical of the measured profiles; 0 without any.
    """
    chain = chain_model.chain
    works = [chain_model.work(index) for index in range(len(chain))]
    mean_s = [max(adapted.times.time_s(work), SHORTEST_S) for work in works]
    profiles = [item for item in adapted.measured if isinstance(item, Profile)]
    spread = _typical([block.std_s / block.mean_s for item in profiles for block in item.blocks])
    unmeasured = sorted({kind for work in works for kind in work} - adapted.times.kinds)
    warnings = [
        f"no measurement has operators of this kind, so the time of a nominal device counts: {kind}"
        for kind in unmeasured
    ]
    if not adapted.by_model:
        warnings.append(
            f"fewer than {MIN_MODELS} different models are measured: the interval follows from single blocks"
        )
    environment = {key: value for key, value in adapted.measured[0].environment.items() if key in COPIED}
    return assemble(
        chain_model,
        ChainCosts(
            mean_s,
            std_s=[spread * time_s for time_s in mean_s],
            load_s=[_typical([block.load_s for item in profiles for block in item.blocks])] * len(chain),
            stage_overhead_s=_typical([item.stage_overhead_s for item in profiles]),
            intervals_s=[around(time_s, adapted.block_width) for time_s in mean_s],
            interval=EstimateInterval(coverage=COVERAGE, total_s=around(sum(mean_s), adapted.width)),
        ),
        device_class=adapted.device_class,
        provenance="estimated",
        environment=environment | {"fit": adapted.fit, "warnings": warnings},
        operating_points=operating_points,
    )


def _mix(profile: Profile) -> Mix:
    kinds = sorted({kind for block in profile.blocks for kind in block.work})
    works = {kind: [block.work[kind] for block in profile.blocks if kind in block.work] for kind in kinds}
    kernels = {kind: sum(work.kernels for work in of_kind) for kind, of_kind in works.items()}
    return kernels, {kind: sum(work.flop for work in of_kind) for kind, of_kind in works.items()}


def _alike(left: Mix, right: Mix) -> bool:
    """Return whether two models have the same mix of kernels and of FLOP."""
    return all(_cosine(a, b) >= ALIKE for a, b in zip(left, right, strict=True))


def _cosine(left: dict[str, float], right: dict[str, float]) -> float:
    lengths = math.hypot(*left.values()) * math.hypot(*right.values())
    return sum(amount * right.get(kind, 0.0) for kind, amount in left.items()) / lengths if lengths else 1.0


def _typical(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0


def _named(item: Measured | StrPath) -> list[tuple[str, Measured]]:
    """Return a measurement, that of a file, or those of a folder, with where it comes from."""
    if isinstance(item, Profile | DeviceProbe):
        return [(item.device_class, item)]
    if not Path(item).is_dir():
        return [(str(item), _load(item))]
    found = [(str(path), _load(path)) for path in sorted(Path(item).glob("*.json"))]
    kept = [(path, entry) for path, entry in found if isinstance(entry, DeviceProbe) or entry.provenance == "measured"]
    if not kept:
        raise ProfileError(
            "the folder holds no measurements",
            where=str(item),
            expected="files by `planner profile measure` or `planner probe-device`",
        )
    return kept


def _load(path: StrPath) -> Measured:
    try:
        document = parse_json(read_bounded(path))
    except (OSError, ValueError):
        return load_profile(path)  # which says what is wrong
    schema = document.get("schema") if isinstance(document, dict) else None
    return load_probe(path) if schema == PROBE_SCHEMA else load_profile(path)


def _faults(device_class: str, where: str, item: Measured) -> list[Fault]:
    """Return why an item is no measurement of a class."""
    faults = []
    if isinstance(item, Profile) and item.provenance != "measured":
        faults.append(Fault("is an estimate", f"{where}: provenance", item.provenance, "a measured profile"))
    elif isinstance(item, Profile) and any(not block.work for block in item.blocks):
        what = "does not hold the work of its blocks, as earlier versions wrote it"
        expected = "a profile measured anew with `planner profile measure`"
        faults.append(Fault(what, f"{where}: blocks", expected=expected))
    if item.device_class != device_class:
        faults.append(
            Fault("measured on another device class", f"{where}: device_class", item.device_class, device_class)
        )
    return faults


def _differences(named: Sequence[tuple[str, Measured]]) -> list[Fault]:
    """Return a fault for each item that was measured in another way than the first one."""
    first_where, first = named[0]
    return [
        Fault(
            f"measured with another {what} than {first_where}",
            f"{where}: environment.{key}",
            item.environment.get(key, "none"),
            str(first.environment.get(key, "none")),
        )
        for where, item in named[1:]
        for key, what in (("provider", "provider"), ("threads", "number of threads"), ("power_mode", "power mode"))
        if item.environment.get(key) != first.environment.get(key)
    ]
