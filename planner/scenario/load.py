"""Read a scenario file together with its profiles and paths.

All errors of a file are reported at once, each with file, line, key path, the value found and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from planner.errors import ScenarioError
from planner.files import StrPath, read_bounded
from planner.profiling.recorded_predictions import RecordedPredictions, load_predictions
from planner.profiling.types import Profile
from planner.scenario.check import Finding, check_scenario
from planner.scenario.check_batches import check_batches
from planner.scenario.check_sequences import check_sequences
from planner.scenario.check_state import check_state
from planner.scenario.document import Document, read_document
from planner.scenario.instance import Instance
from planner.scenario.parse import parse
from planner.scenario.paths import find_paths
from planner.scenario.profiles import find_profiles
from planner.scenario.types import SCHEMA, ScenarioSpec


def load_scenario(path: StrPath) -> ScenarioSpec:
    """Read and check a scenario file.

    Raises
    ------
    ScenarioError
        With all errors of the file.
    """
    return read_scenario(read_document(Path(path)))


def load_instance(path: StrPath, *, chains: Mapping[str, str] | None = None) -> Instance:
    """Read a scenario file and all that it refers to: profiles, arrival times, recorded predictions; find the paths.

    Parameters
    ----------
    chains
        ``chain_sha256`` of each model whose ONNX file was read; a profile of another chain is then an error.

    Raises
    ------
    ScenarioError, ProfileError
        With all errors of the file; or of its profiles, with the commands that make those that are missing.
    RuntimeSessionError
        Recorded predictions cannot be read.
    """
    return build_instance(read_document(Path(path)), Path(path).parent, chains=chains)


def build_instance(document: Document, base: Path, *, chains: Mapping[str, str] | None = None) -> Instance:
    """Build the instance of a scenario; the same as :func:`load_instance` for a document that was read.

    Parameters
    ----------
    base
        Folder to which the paths in the document are relative.
    """
    scenario = read_scenario(document)
    _refuse(check_state(scenario, base), document)
    profiles = find_profiles(scenario, base, chains=chains, where=document.where)
    _refuse((*check_sequences(scenario, profiles), *check_batches(scenario, profiles)), document)
    return Instance(
        scenario=scenario,
        profiles=profiles,
        paths=find_paths(scenario),
        traces={
            name: read_trace(base / source.trace)
            for name, source in scenario.sources.items()
            if source.trace is not None
        },
        predictions=_predictions(scenario, profiles, base),
    )


def _refuse(findings: Iterable[Finding], document: Document) -> None:
    """Raise an error with all findings, if there is one."""
    faults = [finding.fault(document.where(finding.location)) for finding in findings]
    if faults:
        raise ScenarioError(faults)


def _predictions(
    scenario: ScenarioSpec, profiles: Mapping[str, Mapping[str, Profile]], base: Path
) -> dict[str, dict[str, RecordedPredictions]]:
    """Read recorded predictions, for each source and each of its models that has some."""
    known = {
        name: load_predictions(base / model.predictions, len(next(iter(profiles[name].values())).exits))
        for name, model in scenario.models.items()
        if model.predictions is not None
    }
    return {
        name: {model: known[model] for model in source.models if model in known}
        for name, source in scenario.sources.items()
        if not known.keys().isdisjoint(source.models)
    }


def read_trace(path: Path) -> tuple[float, ...]:
    """Read a text file of arrival times in seconds, one per line, never decreasing; blank lines are skipped.

    Raises
    ------
    ScenarioError
        With file and line.
    """
    expected = "times in seconds, one per line, never decreasing"
    try:
        lines = read_bounded(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"cannot be read: {error}", where=str(path), expected=expected) from None
    times_s = [0.0]
    for number, line in enumerate(lines, start=1):
        try:
            time_s = float(line) if line.strip() else times_s[-1]
        except ValueError:
            time_s = math.nan
        if not times_s[-1] <= time_s < math.inf:
            raise ScenarioError("not an arrival time", where=f"{path}:{number}", value=line.strip(), expected=expected)
        if line.strip():
            times_s.append(time_s)
    if len(times_s) == 1:
        raise ScenarioError("no arrival times", where=str(path), expected=expected)
    return tuple(times_s[1:])


def read_scenario(document: Document) -> ScenarioSpec:
    """Check the contents of a scenario file; as :func:`load_scenario` for a document that was read."""
    return parse(document, ScenarioSpec, SCHEMA, check_scenario)
