"""Parse the contents of a file that people write: all of its errors at once, each with file, line and key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from planner.errors import ScenarioError, UnitError
from planner.formats.yaml import Location
from planner.scenario.check import Finding
from planner.scenario.document import Document, plain
from planner.scenario.schema import mend
from planner.schemas import describe, known_keys, nearest, schema_at, schema_fault
from planner.units import format_quantity, read_quantity

_M = TypeVar("_M", bound=BaseModel)


def parse(document: Document, model: type[_M], version: str, check: Callable[[_M], Iterable[Finding]]) -> _M:
    """Return the contents of a file.

    Parameters
    ----------
    version
        Expected value of the key ``schema``, which may be missing.
    check
        Returns what is wrong beyond the schema.

    Raises
    ------
    ScenarioError
        With all errors of the file.
    """
    stated = document.data.get("schema", version)
    if stated != version:
        raise ScenarioError([schema_fault(stated, version, document.where(("schema",)))])
    findings: list[Finding] = []
    covered: list[Location] = []
    try:
        contents = _validated(document.data, model)
    except ValidationError as error:
        findings, covered = _schema_findings(document, error, model)
        # The rules are run on a mended copy, so that the user learns of all errors at once.
        mended = mend(document.data, [(item["loc"], item["type"]) for item in error.errors()], model)
        contents = _validated(mended, model)
    findings += [
        finding
        for finding in check(contents)
        if not any(place[: len(wrong)] == wrong for place in (finding.location, *finding.needs) for wrong in covered)
    ]
    if findings:
        findings.sort(key=lambda finding: document.line(finding.location))
        raise ScenarioError(finding.fault(document.where(finding.location)) for finding in findings)
    return contents


def parse_entries(document: Document, model: type[_M]) -> _M:
    """Return the contents of a file that has no version, no quantities and no further rules.

    Raises
    ------
    ScenarioError
        With all errors of the file.
    """
    try:
        return model.model_validate(plain(document.data))
    except ValidationError as error:
        findings, _ = _schema_findings(document, error, model)
        faults = [finding.fault(document.where(finding.location)) for finding in findings]
    raise ScenarioError(faults)


def _validated(data: object, model: type[_M]) -> _M:
    """Read a file by its keys; the attributes' names, which carry units, are for programs."""
    return model.model_validate(data, context={"quantity": _read_quantity}, by_alias=True, by_name=False)


def _read_quantity(value: object, kind: str) -> float:
    """Read a quantity such that pydantic collects what is wrong with it."""
    try:
        return read_quantity(value, kind)
    except UnitError as error:
        fault = error.faults[0]
        raise PydanticCustomError("quantity", "{what}", {"what": fault.what, "expected": fault.expected}) from None


_WHATS: Final = {
    "missing": "is missing",
    "quantity": "{what}",
    "too_short": "needs at least one entry",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def _schema_findings(
    document: Document, error: ValidationError, model: type[BaseModel]
) -> tuple[list[Finding], list[Location]]:
    """Translate pydantic's errors; return also the locations about which nothing more need be said."""
    findings: list[Finding] = []
    covered: list[Location] = []
    for item in error.errors(include_url=False):
        location: Location = item["loc"]
        if item["type"] == "extra_forbidden":
            finding, guess = _unknown_key(document, location, model)
            findings.append(finding)
            covered += [(*location[:-1], guess)] if guess else []
        else:
            if item["type"] == "too_short" and document.value(location):
                continue  # pydantic counts wrong entries as absent; each has its own message
            what = _WHATS.get(item["type"], "does not fit").format(**_in_words(item.get("ctx", {}), location, model))
            value = None if item["type"] == "missing" else document.value(location)
            expected = item.get("ctx", {}).get("expected") if item["type"] == "quantity" else None
            findings.append(Finding(location, what, value, expected or describe(schema_at(location, model))))
    findings = [finding for finding in findings if finding.location not in covered]
    return findings, covered + [finding.location for finding in findings]


def _in_words(bounds: Mapping[str, Any], location: Location, model: type[BaseModel]) -> dict[str, Any]:
    """Return the bounds of a value in words, those of a quantity with a unit."""
    kind = schema_at(location, model).get("quantity")
    return {
        name: bound
        if not isinstance(bound, int | float)
        else format_quantity(bound, kind)
        if kind and bound
        else f"{bound:g}"
        for name, bound in bounds.items()
    }


def _unknown_key(document: Document, location: Location, model: type[BaseModel]) -> tuple[Finding, str | None]:
    """Report an unknown key; return also the key that was probably meant."""
    *outer, key = location
    known = known_keys(tuple(outer), model)
    guess = nearest(key, (name for name in known if name not in document.value(tuple(outer))))
    return Finding(location, "unknown key", key, repr(guess) if guess else "one of " + ", ".join(known)), guess
