"""Whether the state that a scenario names is in the models' files, wherever these are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from planner.scenario.check import Finding
from planner.scenario.types import ModelSpec, ScenarioSpec


def check_state(scenario: ScenarioSpec, base: Path) -> Iterator[Finding]:
    """Yield the pairs that scenarios name as state and that their models do not have.

    Parameters
    ----------
    base
        Folder to which the paths of the models are relative.
    """
    for name, model in scenario.models.items():
        if model.state and model.path is not None and (base / model.path).is_file():
            yield from _of_model(name, model, base / model.path)


def _of_model(name: str, model: ModelSpec, file: Path) -> Iterator[Finding]:
    from planner.model.state import declared, named_faults, type_faults

    found, named = declared(file), model.state or {}
    if found is None:
        return
    for key, fault in (*named_faults(*found, named),) or type_faults(*found, named):
        yield Finding(("models", name, "state", key), f"{fault.what} of {file.name}", fault.value, fault.expected)
