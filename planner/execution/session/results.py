"""Results in files: the outputs of each sample, and a list of the samples of each source.

``SOURCE/SAMPLE.npz`` holds the outputs of a sample by name, and is written completely or not at all. ``SOURCE.jsonl``
has one line per sample, in the order in which they were written: its delay and file, or the reason why it failed.
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
from planner.execution.session.source import Result
from planner.files import open_atomic


class ResultFolder:
    """Writes the results of some sources to a folder.

    Parameters
    ----------
    resume
        Whether to keep existing results with their lines. Otherwise the lists start empty.
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
        """Return whether a sample has a result."""
        return self._file(source, name).is_file()

    def write(self, outcome: SampleOutcome) -> Path | None:
        """Write the outcome of a sample; return the file of its result, if it has one."""
        file = None
        line = outcome_line(outcome)
        if outcome.result is not None:
            file = self._file(outcome.source, outcome.name)
            _write_outputs(file, outcome.result)
            line["file"] = str(file.relative_to(self._folder))
        # Unbuffered, so that each line is written at once and as a whole.
        with self._list(outcome.source).open("ab", buffering=0) as listing:
            listing.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        return file

    def _list(self, source: str) -> Path:
        return self._folder / f"{source}.jsonl"

    def _file(self, source: str, name: str) -> Path:
        return self._folder / source / f"{name}.npz"


def outcome_line(outcome: SampleOutcome) -> dict[str, Any]:
    """Return the outcome of a sample, without its outputs, as JSON data."""
    result = outcome.result
    ending = {"error": outcome.reason} if result is None else {"delay_s": result.delay_s}
    return {"source": outcome.source, "sample": outcome.number, "name": outcome.name, **ending}


def as_json(array: NDArray[Any]) -> Any:
    """Return an array as nested lists, with None for numbers that are not finite, which JSON lacks."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()


def _drop_torn_line(listing: Path) -> None:
    """Remove an incomplete last line, which a power cut may leave and the next line would continue."""
    if listing.is_file():
        with listing.open("r+b") as file:
            complete = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(complete)


def _write_outputs(path: Path, result: Result) -> None:
    with open_atomic(path) as file, ZipFile(file, "w") as archive:
        for name, array in result.outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
