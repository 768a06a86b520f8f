"""Files of other projects as scenarios; plans in their formats are written by :meth:`planner.Plan.export`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from planner.api.scenario import Scenario, load_scenario
from planner.files import StrPath
from planner.tables import Printable, Table


class Conversion(Printable):
    """A scenario that was made of another project's files. Made by :func:`planner.convert`."""

    def __init__(self, scenario: Scenario, notes: Sequence[str]) -> None:
        self.scenario = scenario
        """The scenario, whose file and profiles were written."""
        self.notes = tuple(notes)
        """What the files say that a scenario cannot hold, and how the scenario is to be used; a sentence each."""

    def contents(self) -> Iterator[Table | str]:
        """Return the tables of the scenario, and the notes."""
        yield from self.scenario.contents()
        yield from (f"note: {note}" for note in self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario's file and the notes."""
        return {"scenario": str(self.scenario.path), "notes": list(self.notes)}

    def __repr__(self) -> str:
        return f"<Conversion to {self.scenario.path}: {len(self.notes)} notes>"


def convert(format: str, files: Iterable[StrPath] | StrPath, folder: StrPath, **options: Any) -> Conversion:  # noqa: A002
    """Write ``scenario.yaml`` and its profiles into a folder, made of another project's files.

    Parameters
    ----------
    format
        ``pipeedge``, ``saga``, ``helix``, ``distilp`` or ``nn-meter``.
    files
        Its file or files, in the order that ``docs/interchange.md`` gives.
    options
        Further values that the format needs, such as ``batch_size=8``.

    Raises
    ------
    UsageError
        If there is no such format or option.
    InterchangeError
        If a file is malformed, or holds what a scenario cannot; nothing is written then.
    """
    from planner.interchange.case import SCENARIO_FILE, write_case
    from planner.interchange.formats import read_case

    paths = [Path(files)] if isinstance(files, str | os.PathLike) else [Path(file) for file in files]
    notes = write_case(read_case(format, paths, options), Path(folder))
    return Conversion(load_scenario(Path(folder) / SCENARIO_FILE), notes)
