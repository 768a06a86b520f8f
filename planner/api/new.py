"""New scenarios to start from, made of the examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from planner.api.schemas import json_schema
from planner.errors import UsageError
from planner.files import StrPath, shipped_file, write_bytes_atomic, write_text_atomic

_SCENARIO: Final = "scenario.yaml"
_SCHEMA: Final = "scenario.schema.json"

_BUILD: Final = "planner models build {model} -o models/{model}.onnx"
_MEASURE: Final = (
    "planner profile measure models/{model}.onnx --device-class {device} -o profiles/{device}/{model}.json"
)
_ESTIMATE: Final = (
    "planner profile estimate models/{model}.onnx --device-class {device} -o profiles/{device}/{model}.json"
)
_SOLVE: Final = "planner solve scenario.yaml -o plan.json"
_SIMULATE: Final = "planner simulate scenario.yaml --plan plan.json"


@dataclass(frozen=True)
class _Example:
    steps: tuple[str, ...]
    """Commands that make what the scenario lacks, in the order in which they are run."""
    files: tuple[str, ...] = ()
    """What nobody can make quickly, with paths as in a checkout."""


def _steps(model: str, profile: str, *devices: str) -> tuple[str, ...]:
    lines = [_BUILD, *(profile.replace("{device}", device) for device in devices)]
    return tuple(line.replace("{model}", model) for line in lines)


_EXAMPLES: Final = {
    "two-cameras": _Example(_steps("mobilenetv2", _MEASURE, "this-machine")),
    "jetsons": _Example(_steps("resnet50", _ESTIMATE, "jetson-nano", "jetson-xavier-nx", "jetson-orin-nano")),
    "tokens": _Example(
        (
            "planner models build llama-small -o llama-small.onnx",
            "planner profile measure llama-small.onnx --axis sequence_length=1 --axis past_sequence_length=64 "
            "--max-blocks 6 --device-class this-machine -o profiles/this-machine/llama-small.json",
        )
    ),
    "exits": _Example(
        (),
        (
            "models/resnet56-exits-fashion.onnx",
            "models/resnet56-exits-fashion.npz",
            "profiles/x86-64/resnet56-exits-fashion.json",
        ),
    ),
}
EXAMPLE_NAMES: Final = tuple(_EXAMPLES)
"""The examples that a new scenario can be made of."""


@dataclass(frozen=True)
class NewScenario:
    """What :func:`new` wrote."""

    files: tuple[Path, ...]
    """The scenario first."""
    steps: tuple[str, ...]
    """Commands to run in the folder, up to a simulated plan."""


def new(folder: StrPath, example: str = "two-cameras") -> NewScenario:
    """Write a commented scenario to start from, with its JSON Schema, by which editors complete and check it.

    Parameters
    ----------
    folder
        Folder to create; it may exist, but must be empty.
    example
        ``two-cameras``, ``jetsons``, ``tokens`` or ``exits``.

    Raises
    ------
    UsageError
        There is no such example, or the folder holds something.
    """
    folder = Path(folder)
    if example not in _EXAMPLES:
        raise UsageError("no such example", where="example", value=example, expected=f"one of {', '.join(_EXAMPLES)}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError("exists already", where=str(folder), expected="a new or an empty folder")
    source = shipped_file(f"examples/{example}/{_SCENARIO}").read_text(encoding="utf-8")
    # The scenario is in the folder itself here, not in examples/NAME.
    text = f"# yaml-language-server: $schema={_SCHEMA}\n" + source.replace("../../", "")
    if "profiles:" not in source:
        text = text.replace("\nmodels:\n", "\nprofiles: [profiles]\n\nmodels:\n", 1)
    wanted = _EXAMPLES[example]
    for file in wanted.files:
        write_bytes_atomic(folder / file, shipped_file(file).read_bytes())
    write_text_atomic(folder / _SCHEMA, json.dumps(json_schema("scenario"), indent=1) + "\n")
    write_text_atomic(folder / _SCENARIO, text)
    files = (_SCENARIO, _SCHEMA, *wanted.files)
    return NewScenario(tuple(folder / file for file in files), (*wanted.steps, _SOLVE, _SIMULATE))
