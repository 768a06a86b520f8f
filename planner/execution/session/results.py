"""Results as files: one a sample, and of each source a list of what became of its samples.

``SOURCE/SAMPLE.npz`` holds the outputs of a sample by name, and is there whole or not at all. ``SOURCE.jsonl`` has a
line for each sample in the order in which they were given: its delay and file, or why it failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from planner.execution.session.feed import SampleOutcome
from planner.execution.session.session import Result
from planner.files import open_atomic


class ResultFolder:
    """A folder for the results of some sources.

    Parameters
    ----------
    resume
        Whether results that are there already stay, with their lines; else the lists begin anew.
    """

    def __init__(self, folder: Path, sources: Iterable[str], *, resume: bool = False) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if resume:
                _drop_torn_line(self._list(source))
            else:
                self._list(source).unlink(missing_ok=True)

    def has(self, source: str, name: str) -> bool:
        """Tell whether there is a result of a sample."""
        return self._file(source, name).is_file()

    def write(self, outcome: SampleOutcome) -> Path | None:
        """Write what became of a sample; give its file, if it has a result."""
        file = None
        line = outcome_line(outcome)
        if outcome.result is not None:
            file = self._file(outcome.source, outcome.name)
            _write_outputs(file, outcome.result)
            line["file"] = str(file.relative_to(self._folder))
        # Unbuffered, so that a line is there whole as soon as its sample has ended.
        with self._list(outcome.source).open("ab", buffering=0) as listing:
            listing.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        return file

    def _list(self, source: str) -> Path:
        return self._folder / f"{source}.jsonl"

    def _file(self, source: str, name: str) -> Path:
        return self._folder / source / f"{name}.npz"


def outcome_line(outcome: SampleOutcome) -> dict[str, Any]:
    """Give what is said of a sample, its outputs not among it, as JSON data."""
    result = outcome.result
    told = {"error": outcome.reason} if result is None else {"delay_s": result.delay_s}
    return {"source": outcome.source, "sample": outcome.number, "name": outcome.name, **told}


def as_json(array: NDArray[Any]) -> Any:
    """Give nested lists; JSON has null in place of numbers that are not finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()


def _drop_torn_line(listing: Path) -> None:
    """Cut off the last line of a list where a power cut left it without its end; the next would run into it."""
    if listing.is_file():
        with listing.open("r+b") as file:
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(whole)


def _write_outputs(path: Path, result: Result) -> None:
    with open_atomic(path) as file, ZipFile(file, "w") as archive:
        for name, array in result.outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
