"""Device classes for which only published figures are known, and the roofline model fitted to these figures.

The time of a model on such a device is::

    fixed + max(flop / (e · peak) + grouped_elements · g, bytes / bandwidth)

``flop`` excludes grouped convolutions. These run so far below the peak that their cost is proportional to the number of
elements that they produce (``g`` seconds each). ``bytes`` covers the weights, and the activations written and read
once, in the class's precision. ``fixed``, ``e`` and ``g`` are fitted by least squares of the relative errors. The
nominal bandwidth is used unchanged, because it is not the limit in any figure. For the roofline model see Williams,
Waterman and Patterson (doi:10.1145/1498765.1498785).
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

from planner.base import FrozenModel
from planner.errors import Fault, ProfileError
from planner.files import read_bounded
from planner.formats.yaml import YamlError, parse_yaml
from planner.profiling.types import NonNegative, Positive
from planner.schemas import schema_fault, schema_faults
from planner.version import installation

FOLDERS: Final = tuple(base / "profiles/classes" for base in (Path(), *Path(__file__).parents[1:3]))
"""Folders of class files: below the working directory, in the installed package, in a checkout of this project."""

SCHEMA: Final = "planner/device-class/v1"
BYTES: Final = {"float16": 2, "float32": 4, "int8": 1}


class Publication(FrozenModel):
    """Publication of one or more figures."""

    title: str
    url: str


class Figure(FrozenModel):
    """Published time of a model at batch size 1."""

    model: str
    flop: Positive
    grouped_elements: NonNegative = 0.0
    """Number of elements that its grouped convolutions produce."""
    parameters: Positive
    activations: NonNegative = 0.0
    """Number of elements that its convolutions and matrix products produce."""
    time_s: Positive
    source: str


class DeviceClass(FrozenModel):
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
    """Origin of the fixed part: launching the layers, or a surrounding program that estimates exclude."""
    sources: dict[str, Publication] = Field(min_length=1)
    figures: tuple[Figure, ...] = Field(min_length=3)


@dataclass(frozen=True)
class Workload:
    """Work of a model, or of one of its blocks, on a device.

    Parameters
    ----------
    flop
        Number of operations, excluding grouped convolutions.
    grouped_elements
        Number of elements that grouped convolutions produce.
    moved_elements
        Number of weights, and of activations written and read once.
    """

    flop: float
    grouped_elements: float
    moved_elements: float


@dataclass(frozen=True)
class Roofline:
    """Fitted roofline model of a class.

    Parameters
    ----------
    fixed_s
        Time of every model that does not depend on its size, seconds.
    flop_per_s
        Achieved rate of operations: efficiency times peak, FLOP/s.
    grouped_s
        Seconds for each element that a grouped convolution produces; None if no figure has any.
    elements_per_s
        Bandwidth, in elements of the class's precision per second.
    errors
        Relative error of each figure when predicted from the others.
    """

    fixed_s: float
    flop_per_s: float
    grouped_s: float | None
    elements_per_s: float
    errors: tuple[float, ...] = ()

    def variable_s(self, work: Workload) -> float:
        """Return the time that depends on the work, in seconds."""
        compute_s = work.flop / self.flop_per_s + work.grouped_elements * (self.grouped_s or 0.0)
        return max(compute_s, work.moved_elements / self.elements_per_s)


def load_class(name: str) -> DeviceClass:
    """Load a device class by name, or from a ``.yaml`` file.

    Raises
    ------
    ProfileError
        If the name is unknown or the file is invalid; all faults at once.
    """
    path = Path(name) if name.endswith(".yaml") else _find(name)
    try:
        document = parse_yaml(read_bounded(path)).value
    except ImportError as error:
        raise ProfileError("estimates require a YAML parser", expected=installation("plan")) from error
    except OSError as error:
        raise ProfileError(f"device class cannot be read: {error.strerror}", where=str(path)) from error
    except YamlError as error:
        raise ProfileError(
            replace(fault, where=f"{path}:{line}: {'.'.join(map(str, location))}".removesuffix(": "))
            for line, location, fault in error.faults
        ) from error
    stated = document.get("schema") if isinstance(document, dict) else None
    if stated is not None and stated != SCHEMA:
        raise ProfileError([schema_fault(stated, SCHEMA, f"{path}: schema")])
    try:
        device_class = DeviceClass.model_validate(document)
    except ValidationError as error:
        raise ProfileError(schema_faults(error, DeviceClass, str(path))) from error
    unknown = [figure for figure in device_class.figures if figure.source not in device_class.sources]
    if unknown:
        raise ProfileError(
            Fault(
                "figure refers to an unknown source",
                f"{path}: {figure.model}",
                figure.source,
                " | ".join(device_class.sources),
            )
            for figure in unknown
        )
    return device_class


def known_classes() -> list[str]:
    """Return the names of the device classes that can be estimated."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.yaml")})


def _find(name: str) -> Path:
    paths = [folder / f"{name}.yaml" for folder in FOLDERS]
    existing = next((path for path in paths if path.is_file()), None)
    if existing is None:
        expected = " | ".join(known_classes()) or "a .yaml file"
        raise ProfileError("no such device class", where="--device-class", value=name, expected=expected)
    return existing


def workload(figure: Figure) -> Workload:
    """Return the workload of the model of a figure."""
    return Workload(figure.flop, figure.grouped_elements, figure.parameters + 2 * figure.activations)


def fit(device_class: DeviceClass) -> Roofline:
    """Fit the roofline model to the class's figures by least squares of relative errors.

    The error of each figure is that of a fit to the other figures: it indicates the error to expect for other models.
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
        # A rate above the peak is an artefact of the fit.
        flop_per_s=min(1 / per_flop_s, peak_flop_per_s) if per_flop_s else peak_flop_per_s,
        grouped_s=grouped_s if any(work.grouped_elements for work in works) else None,
        elements_per_s=device_class.peak_bytes_per_s / BYTES[device_class.precision],
    )


def _least_squares(columns: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the non-negative factors whose row sums are closest to 1, found by trying all subsets of three columns."""
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
