"""Read a scenario file together with its profiles and paths.

All errors of a file are reported at once, each with file, line, key path, the value found and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from planner.errors import ScenarioError, UnitError
from planner.files import StrPath
from planner.profiling.recorded_predictions import RecordedPredictions, load_predictions
from planner.profiling.types import Profile
from planner.scenario.check import Finding, check_scenario
from planner.scenario.document import Document, Location, read_document
from planner.scenario.instance import Instance
from planner.scenario.paths import find_paths
from planner.scenario.profiles import find_profiles
from planner.scenario.schema import describe, known_keys, mend, nearest, schema_at
from planner.scenario.types import SCHEMA, ScenarioSpec
from planner.units import format_quantity, read_quantity


def load_scenario(path: StrPath) -> ScenarioSpec:
    """Read and check a scenario file.

    Raises
    ------
    ScenarioError
        With all errors of the file.
    """
    return _scenario(read_document(Path(path)))


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
    scenario = _scenario(document)
    profiles = find_profiles(scenario, base, chains=chains, where=document.where)
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
        lines = path.read_text(encoding="utf-8").splitlines()
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


def _scenario(document: Document) -> ScenarioSpec:
    stated = document.data.get("schema", SCHEMA)
    if stated != SCHEMA:
        raise ScenarioError(
            "not a scenario of this version", where=document.where(("schema",)), value=stated, expected=SCHEMA
        )
    findings: list[Finding] = []
    covered: list[Location] = []
    try:
        scenario = _validated(document.data)
    except ValidationError as error:
        findings, covered = _schema_findings(document, error)
        # The rules are run on a mended copy, so that the user learns of all errors at once.
        mended = mend(document.data, [(item["loc"], item["type"]) for item in error.errors()])
        scenario = _validated(mended)
    findings += [
        finding
        for finding in check_scenario(scenario)
        if not any(place[: len(wrong)] == wrong for place in (finding.location, *finding.needs) for wrong in covered)
    ]
    if findings:
        findings.sort(key=lambda finding: document.line(finding.location))
        raise ScenarioError(finding.fault(document.where(finding.location)) for finding in findings)
    return scenario


def _validated(data: object) -> ScenarioSpec:
    """Read a file by its keys; the attributes' names, which carry units, are for programs."""
    return ScenarioSpec.model_validate(data, context={"quantity": _read_quantity}, by_alias=True, by_name=False)


def _read_quantity(value: object, kind: str) -> float:
    """Read a quantity such that pydantic collects what is wrong with it."""
    try:
        return read_quantity(value, kind)
    except UnitError as error:
        raise PydanticCustomError("quantity", "{what}", {"what": error.faults[0].what}) from None


_WHATS: Final = {
    "missing": "is missing",
    "quantity": "{what}",
    "too_short": "needs at least one entry",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def _schema_findings(document: Document, error: ValidationError) -> tuple[list[Finding], list[Location]]:
    """Translate pydantic's errors; return also the locations about which nothing more need be said."""
    findings: list[Finding] = []
    covered: list[Location] = []
    for item in error.errors(include_url=False):
        location: Location = item["loc"]
        if item["type"] == "extra_forbidden":
            finding, guess = _unknown_key(document, location)
            findings.append(finding)
            covered += [(*location[:-1], guess)] if guess else []
        else:
            if item["type"] == "too_short" and document.value(location):
                continue  # pydantic counts wrong entries as absent; each has its own message
            what = _WHATS.get(item["type"], "does not fit").format(**_in_words(item.get("ctx", {}), location))
            value = None if item["type"] == "missing" else document.value(location)
            findings.append(Finding(location, what, value, describe(schema_at(location))))
    findings = [finding for finding in findings if finding.location not in covered]
    return findings, covered + [finding.location for finding in findings]


def _in_words(bounds: Mapping[str, Any], location: Location) -> dict[str, Any]:
    """Return the bounds of a value in words, those of a quantity with a unit."""
    kind = schema_at(location).get("quantity")
    return {
        name: bound
        if not isinstance(bound, int | float)
        else format_quantity(bound, kind)
        if kind and bound
        else f"{bound:g}"
        for name, bound in bounds.items()
    }


def _unknown_key(document: Document, location: Location) -> tuple[Finding, str | None]:
    """Report an unknown key; return also the key that was probably meant."""
    *outer, key = location
    known = known_keys(tuple(outer))
    guess = nearest(key, (name for name in known if name not in document.value(tuple(outer))))
    return Finding(location, "unknown key", key, repr(guess) if guess else "one of " + ", ".join(known)), guess
