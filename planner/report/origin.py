"""What wrote a run's folder: the command and the version, in ``run.json``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from planner.base import FrozenModel
from planner.errors import PlannerError
from planner.files import write_text_atomic
from planner.schemas import first_fault
from planner.version import installed_version

FILE: Final = "run.json"
SCHEMA: Final = "planner/run/v1"

Kind = Literal["simulation", "validation"]


class Origin(FrozenModel):
    """Contents of ``run.json``."""

    schema_: Literal["planner/run/v1"] = Field(default=SCHEMA, alias="schema")
    kind: Kind
    command: str
    """The command line, or the Python script, that wrote the folder."""
    version: str
    """Version of the planner."""


def write_origin(folder: Path, kind: Kind) -> None:
    """Write what this process is into a run's folder."""
    origin = Origin(kind=kind, command=_command(), version=installed_version("mdi-planner"))
    write_text_atomic(folder / FILE, origin.model_dump_json(by_alias=True, indent=2) + "\n")


def read_origin(folder: Path) -> Origin | None:
    """Return what wrote a run's folder; None if it has no ``run.json``.

    Raises
    ------
    PlannerError
        If the file is not one of this version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Origin.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PlannerError(
            "cannot read how the run was made", where=str(path), value=first_fault(error), expected=SCHEMA
        ) from error


def _command() -> str:
    program = Path(sys.argv[0])
    own = program.name == "planner" or program.parts[-2:] == ("planner", "__main__.py")
    return shlex.join(["planner", *sys.argv[1:]]) if own else f"a Python process: {program.name or 'interactive'}"
