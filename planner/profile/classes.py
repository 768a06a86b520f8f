"""Device classes that are known by published figures only, and the roofline fitted to these.

A model takes, on such a device::

    fixed + max(flop / (e · peak) + grouped_elements · g, bytes / bandwidth)

``flop`` without those of grouped convolutions, which run so far below the peak that their cost goes with the elements
they make (``g`` seconds each); ``bytes`` are weights, and activations written and read once, in the class's precision.
``fixed``, ``e`` and ``g`` are fitted to the figures' relative errors; the bandwidth counts in full, because in no
figure it is the limit. The roofline is Williams, Waterman and Patterson's (doi:10.1145/1498765.1498785).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from planner.errors import Fault, ProfileError
from planner.profile.types import NonNegative, Positive, Record

CLASSES_SCHEMA: Final = "planner/device-class/v1"
FOLDERS: Final = tuple(base / "profiles/classes" for base in (Path(), *Path(__file__).parents[1:3]))
"""Where classes lie: below the working directory, in the installed package, in a checkout of this project."""

BYTES: Final = {"float16": 2, "float32": 4, "int8": 1}


class Source(Record):
    """Where figures were published."""

    title: str
    url: str


class Figure(Record):
    """One published time of one model, batch 1."""

    model: str
    flop: Positive
    grouped_elements: NonNegative = 0.0
    """Elements that its grouped convolutions make."""
    parameters: Positive
    activations: NonNegative = 0.0
    """Elements that its convolutions and matrix products make."""
    time_s: Positive
    source: str


class DeviceClass(Record):
    """A device with its execution provider, precision and power mode."""

    schema_: Literal["planner/device-class/v1"] = Field(alias="schema")
    name: str
    device: str
    provider: str
    precision: Literal["float16", "float32", "int8"]
    power_mode: str
    peak_flop_per_s: Positive
    peak_bytes_per_s: Positive
    fixed_part: Literal["device", "program"]
    """What the figures' fixed part is: launching the layers, or a surrounding program that estimates leave out."""
    sources: dict[str, Source] = Field(min_length=1)
    figures: tuple[Figure, ...] = Field(min_length=3)


@dataclass(frozen=True)
class Workload:
    """What a model, or a block of one, asks of a device.

    Parameters
    ----------
    flop
        Operations, those of grouped convolutions left out.
    grouped_elements
        Elements that grouped convolutions make.
    moved_elements
        Weights, and activations written and read once.
    """

    flop: float
    grouped_elements: float
    moved_elements: float


@dataclass(frozen=True)
class Roofline:
    """The fitted times of a class.

    Parameters
    ----------
    fixed_s
        Part of every model's time that does not go with its size, seconds.
    flop_per_s
        Achieved rate of operations: efficiency times peak.
    grouped_s
        Seconds for each element that a grouped convolution makes; None where no figure has any.
    elements_per_s
        Bandwidth, in elements of the class's precision.
    errors
        Relative error of each figure, predicted from the others.
    """

    fixed_s: float
    flop_per_s: float
    grouped_s: float | None
    elements_per_s: float
    errors: tuple[float, ...] = ()

    def variable_s(self, work: Workload) -> float:
        """Give the time that goes with the work, in seconds."""
        compute_s = work.flop / self.flop_per_s + work.grouped_elements * (self.grouped_s or 0.0)
        return max(compute_s, work.moved_elements / self.elements_per_s)


def load_class(name: str) -> DeviceClass:
    """Read a class by its name, or from a ``.yaml`` file.

    Raises
    ------
    ProfileError
        There is none of that name, or its file is wrong: all faults at once.
    """
    path = Path(name) if name.endswith(".yaml") else _find(name)
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError as error:
        raise ProfileError("estimates need a YAML reader", expected='`pip install "mdi-planner[plan]"`') from error
    try:
        document = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise ProfileError(f"device class cannot be read: {error}", where=str(path)) from error
    try:
        found = DeviceClass.model_validate(document)
    except ValidationError as error:
        raise ProfileError(
            Fault(fault["msg"], f"{path}: {'.'.join(map(str, fault['loc']))}") for fault in error.errors()
        ) from error
    unknown = [figure for figure in found.figures if figure.source not in found.sources]
    if unknown:
        raise ProfileError(
            Fault("figure without its source", f"{path}: {figure.model}", figure.source, " | ".join(found.sources))
            for figure in unknown
        )
    return found


def known_classes() -> list[str]:
    """Give the names of the classes that can be estimated."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def _find(name: str) -> Path:
    paths = [folder / f"{name}.yaml" for folder in FOLDERS]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        expected = " | ".join(known_classes()) or "a .yaml file"
        raise ProfileError("no such device class", where="--estimate", value=name, expected=expected)
    return found


def workload(figure: Figure) -> Workload:
    """Give what the model of a figure asks of a device."""
    return Workload(figure.flop, figure.grouped_elements, figure.parameters + 2 * figure.activations)


def fit(device_class: DeviceClass) -> Roofline:
    """Fit the roofline to the class's figures by least squares of relative errors.

    Each figure's error is that of a fit to the others: what may be expected of a model that is no figure.
    """
    figures = device_class.figures
    errors = []
    for index, figure in enumerate(figures):
        others = _fit(device_class, figures[:index] + figures[index + 1 :])
        errors.append((others.fixed_s + others.variable_s(workload(figure))) / figure.time_s - 1)
    return replace(_fit(device_class, figures), errors=tuple(errors))


def _fit(device_class: DeviceClass, figures: Sequence[Figure]) -> Roofline:
    works = [workload(figure) for figure in figures]
    times_s = np.array([figure.time_s for figure in figures])
    columns = np.array([[1.0, work.flop, work.grouped_elements] for work in works])
    fixed_s, per_flop_s, grouped_s = _least_squares(columns / times_s[:, None])
    peak_flop_per_s = device_class.peak_flop_per_s
    return Roofline(
        fixed_s=fixed_s,
        # A rate beyond the peak would be a misfit of the figures, not of the device.
        flop_per_s=min(1 / per_flop_s, peak_flop_per_s) if per_flop_s else peak_flop_per_s,
        grouped_s=grouped_s if any(work.grouped_elements for work in works) else None,
        elements_per_s=device_class.peak_bytes_per_s / BYTES[device_class.precision],
    )


def _least_squares(columns: NDArray[np.float64]) -> tuple[float, ...]:
    """Give the factors, none negative, that bring each row's sum closest to 1: three factors, so all subsets."""
    count = columns.shape[1]
    best, least = np.zeros(count), np.inf
    for size in range(1, count + 1):
        for chosen in map(list, itertools.combinations(range(count), size)):
            factors = np.linalg.lstsq(columns[:, chosen], np.ones(len(columns)), rcond=None)[0]
            error = float(np.square(columns[:, chosen] @ factors - 1).sum())
            if (factors >= 0).all() and error < least:
                best, least = np.zeros(count), error
                best[chosen] = factors
    return tuple(float(factor) for factor in best)
