"""A new plan for a session that runs: made of a scenario or a plan, here or for a service elsewhere."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from planner.api.difference import Difference
from planner.api.plan import Plan, load_plan
from planner.api.scenario import Scenario, load_scenario
from planner.errors import Fault, PlanError, PlannerError, ScenarioError, UsageError
from planner.files import StrPath
from planner.plan.difference import PlanDifference
from planner.plan.types import PlanSpec
from planner.project import check_fit, unknown_accuracies

APPLY_TIME_LIMIT_S: Final = 10.0
"""Default time limit of the search for a plan that replaces another, in seconds."""

_PATIENCE_S: Final = 600.0
"""How long a service may take to solve a scenario and to load its blocks."""


def read_new(new: Plan | Scenario | StrPath) -> Plan | Scenario:
    """Return a plan or a scenario; a file that ends in ``.json`` and has the schema of a plan is a plan.

    Raises
    ------
    PlannerError
        If the file is neither.
    """
    if isinstance(new, (Plan, Scenario)):
        return new
    return load_plan(new) if _is_plan(Path(new)) else load_scenario(new)


def _is_plan(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):  # the reader of scenarios tells what is wrong
        return path.suffix == ".json"
    return isinstance(document, dict) and "models" not in document


def plan_for(new: Plan | Scenario | StrPath, old: Plan, time_limit_s: float = APPLY_TIME_LIMIT_S) -> Plan:
    """Return the plan that is to replace another; a scenario is solved in a process of its own.

    Raises
    ------
    PlannerError
        If there is none, or it does not fit its scenario.
    """
    read = read_new(new)
    if isinstance(read, Plan):
        check_fit(read.spec, read.scenario.instance, str(read.path or "plan"))
        return read
    from planner.solvers.replan.apart import SolveTask, solve_apart

    shared = any(len(source.routes) > 1 for source in old.spec.sources.values())
    solution = solve_apart(
        SolveTask(
            instance=read.instance,
            start=old.spec,
            routes="shared" if shared else None,
            time_limit_s=time_limit_s,
            gap=0.01,
        )
    )
    spec = solution.plan
    if spec is not None and spec.status == "optimal" and any(unknown_accuracies(read.instance)):
        spec = spec.model_copy(update={"status": "feasible"})  # nobody knows whether it is accurate enough
    plan = Plan(read, spec, status=solution.status, reasons=solution.reasons)
    if not plan:
        raise PlanError(f"there is no plan for the new scenario ({plan.status})", value="; ".join(plan.reasons) or None)
    return plan


# ---- a service elsewhere --------------------------------------------------------------------------------------------


def request_of(new: Plan | Scenario, *, time_limit_s: float, dry_run: bool) -> dict[str, Any]:
    """Return the JSON body of the request that has a service apply a plan or a scenario."""
    scenario = new.scenario if isinstance(new, Plan) else new
    plan = {"plan": new.spec.model_dump(mode="json", by_alias=True)} if isinstance(new, Plan) else {}
    return {"scenario": scenario.to_dict(), **plan, "time_limit_s": time_limit_s, "dry_run": dry_run}


def requested(body: Mapping[str, Any], running: Plan) -> tuple[Plan | Scenario, float, bool]:
    """Return what a request asks a service to apply, the time limit in seconds, and whether it is a trial.

    Paths in the scenario are relative to the folder of the scenario that runs.

    Raises
    ------
    PlannerError
        If the body is malformed, the scenario invalid, or the plan does not fit it.
    """
    unknown = body.keys() - {"scenario", "plan", "time_limit_s", "dry_run"}
    limit_s, dry_run, document = (
        body.get("time_limit_s", APPLY_TIME_LIMIT_S),
        body.get("dry_run", False),
        body.get("scenario"),
    )
    if unknown:
        raise UsageError(
            "unknown key", where="request", value=sorted(unknown)[0], expected="scenario, plan, time_limit_s, dry_run"
        )
    if not isinstance(limit_s, (int, float)) or isinstance(limit_s, bool) or not 0 < limit_s <= _PATIENCE_S / 2:
        raise UsageError(
            "not a time limit", where="time_limit_s", value=limit_s, expected=f"seconds, at most {_PATIENCE_S / 2:g}"
        )
    if not isinstance(dry_run, bool):
        raise UsageError("neither true nor false", where="dry_run", value=dry_run)
    if not isinstance(document, dict):
        raise ScenarioError("the request has no scenario", where="scenario", expected="the keys of a scenario file")
    scenario = Scenario.from_dict(document, folder=running.scenario.folder)
    if "plan" not in body:
        return scenario, float(limit_s), dry_run
    try:
        spec = PlanSpec.model_validate(body["plan"])
    except ValidationError as error:
        first = error.errors()[0]
        raise PlanError(first["msg"], where=".".join(map(str, ("plan", *first["loc"])))) from None
    check_fit(spec, scenario.instance, "plan")
    return Plan(scenario, spec), float(limit_s), dry_run


def apply_at(
    url: str, new: Plan | Scenario | StrPath, *, time_limit_s: float = APPLY_TIME_LIMIT_S, dry_run: bool = False
) -> Difference:
    """Have a running service apply a plan or a scenario, and return how its plan changes.

    Parameters
    ----------
    url
        Address of the service, such as ``http://127.0.0.1:8000``.
    new, time_limit_s, dry_run
        As for :meth:`planner.Session.apply`. Paths in the scenario are relative to the service's scenario.

    Raises
    ------
    PlannerError
        If the service cannot be reached, or refuses; its old plan then goes on.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise UsageError("not the address of a service", where="--to", value=url, expected="http://HOST:PORT")
    body = json.dumps(request_of(read_new(new), time_limit_s=time_limit_s, dry_run=dry_run)).encode()
    request = urllib.request.Request(  # noqa: S310 - the scheme has been checked
        f"{url.rstrip('/')}/apply", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(url, error.code, error.read()) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PlannerError(f"the service cannot be reached: {reason}", where=url, expected="`planner serve`") from None
    answer.pop("lines", None)
    try:
        return Difference(PlanDifference.model_validate(answer))
    except ValidationError as error:
        raise PlannerError("the service's answer cannot be read", where=url, value=error.errors()[0]["msg"]) from None


def _refusal(url: str, code: int, content: bytes) -> PlannerError:
    """Return what a service refuses a request with: a list ``errors`` of faults, or any other text."""
    try:
        faults = [
            Fault(each["what"], each["where"], each["value"], each["expected"])
            for each in json.loads(content)["errors"]
        ]
    except (ValueError, KeyError, TypeError):
        faults = []
    if faults:
        return PlannerError(faults)
    words = content.decode(errors="replace").strip() or f"status {code}"
    return PlannerError(f"the service refuses: {words}", where=url, value=code)
