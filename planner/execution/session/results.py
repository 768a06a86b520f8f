"""Results in files: the outputs of each sample, and a list of the samples of each source.

1. ``SOURCE/SAMPLE.npz`` holds the outputs of a sample by name, and is written completely or not at all.
2. ``SOURCE.jsonl`` has one line per sample, in the order in which they were written: its delay and file, or the reason
   why it failed. The line is written after the file.
3. A sample has a result if there are both its line and its file. A run that is resumed keeps the lines of these samples
   and runs all others: those that failed, and those whose line or file a kill or a power cut has prevented.
4. ``run.json`` states where the samples of each source come from, and the hashes of its models. Only a run of the same
   samples and models is resumed: those of others may have the same names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from planner.errors import ExecuteError, Fault
from planner.execution.session.feed import SampleOutcome
from planner.execution.session.source import Result
from planner.files import open_atomic, write_text_atomic
from planner.formats.json import parse_json
from planner.scenario.instance import Instance


class ResultFolder:
    """Writes the results of some sources to a folder.

    Parameters
    ----------
    sources
        Each source with what its results are of, as JSON data.
    resume
        Whether to keep existing results with their lines. Otherwise the lists start empty.

    Raises
    ------
    ExecuteError
        If the results to be kept are not of the same, or ``run.json`` cannot be read.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Any], *, resume: bool = False) -> None:
        self._folder = folder
        self._done: set[tuple[str, str]] = set()
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / "run.json"
        kept = _read_record(record) if resume else {}
        if different := [source for source in sources if kept.get(source, sources[source]) != sources[source]]:
            raise ExecuteError(
                Fault("its results are of other samples or models", f"{record}, {source}", kept[source], str(expected))
                for source, expected in ((source, sources[source]) for source in different)
            )
        write_text_atomic(record, json.dumps({**kept, **sources}, indent=2) + "\n")
        for source in sources:
            if resume:
                self._keep_done(source)
            else:
                self._list(source).unlink(missing_ok=True)

    def has(self, source: str, name: str) -> bool:
        """Return whether a sample had a result when the run was resumed."""
        return (source, name) in self._done

    def write(self, outcome: SampleOutcome) -> SampleOutcome:
        """Write the outcome of a sample; return it with its file, or failed if it cannot be written."""
        file = self._file(outcome.source, outcome.name)
        written = outcome
        if outcome.result is not None:
            try:
                _write_outputs(file, outcome.result)
                written = replace(outcome, file=file)
            except OSError as error:
                written = outcome.failed(_unwritten("result", file, error))
        try:
            self._append(written)
        except OSError as error:
            if written.result is not None:
                written = written.failed(_unwritten("line of the result", self._list(outcome.source), error))
        return written

    def _append(self, outcome: SampleOutcome) -> None:
        line = outcome_line(outcome)
        if outcome.file is not None:
            line["file"] = str(outcome.file.relative_to(self._folder))
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        # Unbuffered, so that each line is written at once and as a whole.
        with self._list(outcome.source).open("ab", buffering=0) as listing:
            before = listing.tell()
            try:
                if listing.write(data) != len(data):
                    listing.write(data)  # raises what has kept it from being written as a whole
            except OSError:
                listing.truncate(before)
                raise

    def _keep_done(self, source: str) -> None:
        """Keep the line of each sample that has a result."""
        listing = self._list(source)
        if not listing.is_file():
            return
        found = listing.read_text(encoding="utf-8", errors="replace")
        kept = {}
        for text in found.splitlines(keepends=True):
            name = _name_of_result(text)
            if name is not None and self._file(source, name).is_file():
                kept[name] = text
        self._done.update((source, name) for name in kept)
        if (rewritten := "".join(kept.values())) != found:
            write_text_atomic(listing, rewritten)

    def _list(self, source: str) -> Path:
        return self._folder / f"{source}.jsonl"

    def _file(self, source: str, name: str) -> Path:
        return self._folder / source / f"{name}.npz"


def folder_of_run(folder: Path, instance: Instance, places: Mapping[str, str], *, resume: bool) -> ResultFolder:
    """Return a folder for the results of a run, or of one that is resumed.

    Parameters
    ----------
    places
        Where the samples of each source come from: a folder, a file or a command.

    Raises
    ------
    ExecuteError
        As :class:`ResultFolder`, or if results would overwrite samples.
    """
    refuse_overwriting(folder, places)
    models = {source: instance.scenario.sources[source].models for source in places}
    of = {
        source: {
            "samples": str(Path(place).resolve()) if os.path.exists(place) else place,  # noqa: PTH110 - a long command
            "models": {model: instance.any_profile(model).chain_sha256 for model in models[source]},
        }
        for source, place in places.items()
    }
    return ResultFolder(folder, of, resume=resume)


def refuse_overwriting(folder: Path, places: Mapping[str, str]) -> None:
    """Refuse samples that lie where results would be written.

    Raises
    ------
    ExecuteError
        If one does.
    """
    for source, place in places.items():
        if os.path.exists(place):  # noqa: PTH110 - a command may be too long for a path
            samples = Path(place).resolve()
            for own in places:
                if (folder / own).resolve() in (samples, samples.parent):
                    expected = "another --output FOLDER"
                    raise ExecuteError(
                        "results would overwrite the samples", where=f"source {source}", value=place, expected=expected
                    )


def _read_record(path: Path) -> dict[str, Any]:
    """Return the contents of ``run.json``; nothing if there is none."""
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ExecuteError("cannot be read", where=str(path), value=str(error)) from error
    if not isinstance(found, dict):
        raise ExecuteError("not a record of a run", where=str(path), expected="a JSON object")
    return found


def _unwritten(what: str, path: Path, error: OSError) -> ExecuteError:
    return ExecuteError(f"the {what} cannot be written: {error.strerror}", where=str(path))


def _name_of_result(text: str) -> str | None:
    """Return the name of the sample of a complete line, if it has a result."""
    try:
        line = json.loads(text) if text.endswith("\n") else None
    except (ValueError, RecursionError):
        return None
    name = line.get("name") if isinstance(line, dict) and "error" not in line else None
    return name if isinstance(name, str) else None


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


def _write_outputs(path: Path, result: Result) -> None:
    with open_atomic(path) as file, ZipFile(file, "w") as archive:
        for name, array in result.outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
