"""The formats of other projects, by name: their files, options and functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pydantic import BaseModel, ValidationError

from planner.errors import Fault, InterchangeError, UsageError
from planner.interchange.case import Case
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance

READERS: Final = {
    "pipeedge": "PipeEdge: its models, device types and devices files (YAML), or a folder of the three",
    "saga": "SAGA: an instance of a task graph and a network (JSON)",
    "helix": "Helix: its cluster and machine profile files (INI), and a table of times for each machine type (CSV)",
    "distilp": "distilp: its model profile and device profiles (JSON), or a folder of them",
    "nn-meter": "nn-Meter: its predictions (CSV), and the ONNX models that they are for",
}
"""Formats that become scenarios, each with its files."""

WRITERS: Final = {
    "pipeedge": "PipeEdge's schedule (YAML)",
    "saga": "SAGA's schedule (JSON)",
}
"""Formats into which plans can be written."""


@dataclass(frozen=True)
class Exported:
    """A plan in another project's format, and what that cannot hold."""

    text: str
    notes: Sequence[str]


def read_case(name: str, files: Sequence[Path], options: Mapping[str, Any]) -> Case:
    """Read files of another project.

    Parameters
    ----------
    name
        A key of :data:`READERS`.
    options
        Values of the format's ``Options``, as they are or as text.

    Raises
    ------
    UsageError
        If there is no such format or option.
    InterchangeError
        If a file is malformed, or holds what a scenario cannot.
    """
    module = _module(name, READERS, "--from")
    for file in files:
        if not file.exists():
            raise InterchangeError("no such file", where=str(file), expected=READERS[name])
    reader = cast("Callable[[Sequence[Path], BaseModel], Case]", module.read)
    return reader(files, _options(name, module.Options, options))


def write_plan(name: str, plan: PlanSpec, instance: Instance) -> Exported:
    """Return a plan in another project's format.

    Raises
    ------
    UsageError
        If there is no such format.
    InterchangeError
        If the format cannot hold the plan.
    """
    text, notes = _module(name, WRITERS, "--as").write(plan, instance)
    return Exported(text, notes)


def _module(name: str, known: Mapping[str, str], where: str) -> Any:
    if name not in known:
        raise UsageError("unknown format", where=where, value=name, expected=f"one of {', '.join(known)}")
    return importlib.import_module(f"planner.interchange.{name.replace('-', '_')}")


def _options(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    texts = {key: value for key, value in given.items() if value is not None}
    try:
        return model.model_validate(texts)
    except ValidationError as error:
        raise UsageError(
            Fault(
                f"{name} has no such option" if item["type"] == "extra_forbidden" else item["msg"],
                f"--set {item['loc'][0]}",
                None if item["type"] in ("extra_forbidden", "missing") else item["input"],
                f"one of {', '.join(model.model_fields)}" if item["type"] == "extra_forbidden" else None,
            )
            for item in error.errors()
        ) from error
