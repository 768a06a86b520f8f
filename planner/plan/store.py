"""Plan files: JSON with the keys of :class:`planner.plan.types.PlanSpec`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from planner.errors import PlanError
from planner.files import StrPath, read_bounded, write_text_atomic
from planner.formats.json import parse_json
from planner.plan.types import SCHEMA, PlanSpec
from planner.schemas import other_kind, schema_fault, schema_faults

_ABSENT_SOURCE: Final[Mapping[str, Any]] = dict.fromkeys(
    ("delay_interval_s", "rate_interval_per_s", "p50_delay_s", "p95_delay_s", "p99_delay_s", "miss_share")
)
"""Values of keys that only sources of estimates, or with limits on single samples, have; the others are not written."""
_USUAL_ROUTE: Final[Mapping[str, Any]] = {"loop": "home"}
_USUAL_STAGE: Final[Mapping[str, Any]] = {"sessions": [], "max_batch": None}
_USUAL_PLAN: Final[Mapping[str, Any]] = {"search": [], "max_wait_s": None}


def load_plan(path: StrPath) -> PlanSpec:
    """Read a plan file.

    Raises
    ------
    PlanError
        The file cannot be read, is not JSON, or has wrong or missing keys; all errors at once.
    """
    text = ""
    try:
        text = read_bounded(path).decode()
        document = parse_json(text)
    except OSError as error:
        what = f"cannot read the plan: {error.strerror}"
        raise PlanError(what, where=str(path), expected="a plan by `planner solve`") from error
    except ValueError as error:
        if fault := other_kind(text, SCHEMA, f"{path}: schema"):
            raise PlanError([fault]) from None
        raise PlanError(f"not a JSON file: {error}", where=str(path), expected="a plan by `planner solve`") from error
    stated = document.get("schema") if isinstance(document, dict) else None
    if stated != SCHEMA:
        raise PlanError([schema_fault(stated, SCHEMA, f"{path}: schema")])
    try:
        return PlanSpec.model_validate_json(text, strict=True)  # a number is neither text nor a boolean
    except ValidationError as error:
        raise PlanError(schema_faults(error, PlanSpec, str(path))) from error


def save_plan(plan: PlanSpec, path: StrPath) -> None:
    """Write ``plan`` to ``path``, whole or not at all."""
    write_text_atomic(Path(path), json.dumps(plan_document(plan), indent=2, allow_nan=False) + "\n")


def plan_document(plan: PlanSpec) -> dict[str, Any]:
    """Return the plan as it is written to its file."""
    document: dict[str, Any] = plan.model_dump(mode="json", by_alias=True)
    _leave_out(document, _USUAL_PLAN)
    for source in document["sources"].values():
        _leave_out(source, _ABSENT_SOURCE)
        for route in source["routes"]:
            _leave_out(route, _USUAL_ROUTE)
            for stage in route["stages"]:
                _leave_out(stage, _USUAL_STAGE)
    return document


def _leave_out(entries: dict[str, Any], usual: Mapping[str, Any]) -> None:
    """Remove the keys that have their ``usual`` values."""
    for key, value in usual.items():
        if entries[key] == value:
            del entries[key]
