"""A new plan for a session that runs: made of a scenario or a plan, here or for a service elsewhere."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from planner.api.difference import Difference
from planner.api.plan import Plan, load_plan
from planner.api.scenario import Scenario, load_scenario, refuse_paths_outside
from planner.base import FrozenModel
from planner.errors import ExecuteError, Fault, PlanError, PlannerError, UsageError
from planner.files import StrPath, read_bounded
from planner.formats.json import parse_json
from planner.plan.difference import PlanDifference
from planner.plan.types import PlanSpec
from planner.project import check_fit, unknown_accuracies

if TYPE_CHECKING:
    from planner.api.session import Session

APPLY_TIME_LIMIT_S: Final = 10.0
"""Default time limit of the search for a plan that replaces another, in seconds."""

MAX_REQUEST_BYTES: Final = 2**24
"""Size of the largest request to apply something."""

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
        document = json.loads(read_bounded(path))
    except (OSError, ValueError):  # the reader of scenarios tells what is wrong
        return path.suffix == ".json"
    return isinstance(document, dict) and "models" not in document


def plan_for(
    new: Plan | Scenario | StrPath, old: Plan, time_limit_s: float = APPLY_TIME_LIMIT_S, share: float | None = None
) -> Plan:
    """Return the plan that is to replace another; a scenario is solved in a process of its own.

    Parameters
    ----------
    share
        Share of the workers' memory that the plan may use; None for all of it.

    Raises
    ------
    PlannerError
        If there is none, or it does not fit its scenario.
    """
    read = read_new(new)
    if isinstance(read, Plan):
        check_fit(read.spec, read.scenario.instance, str(read.path or "plan"))
        return read
    from planner.solvers.replan.apart import solve_apart
    from planner.solvers.replan.worker import SolveTask

    shared = any(len(source.routes) > 1 for source in old.spec.sources.values())
    solution = solve_apart(
        SolveTask(
            instance=read.instance.with_share(share),
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


class ApplyRequest(FrozenModel):
    """The body of a request that has a service apply a plan or a scenario.

    Paths in the scenario are relative to the folder of the scenario that runs there.
    """

    scenario: dict[str, Any]
    """The keys of a scenario file."""
    plan: PlanSpec | None = None
    """The contents of a plan file for the scenario; None to solve it."""
    time_limit_s: Annotated[float, Field(gt=0, le=_PATIENCE_S / 2, allow_inf_nan=False)] = APPLY_TIME_LIMIT_S
    """Time limit of that search."""
    dry_run: bool = False

    @classmethod
    def read(cls, content: bytes) -> ApplyRequest:
        """Read a body.

        Raises
        ------
        UsageError
            If it is none, with one fault per key.
        """
        if len(content) > MAX_REQUEST_BYTES:
            expected = f"{MAX_REQUEST_BYTES} bytes at most"
            raise UsageError("too long", where="request", value=len(content), expected=expected)
        try:
            return cls.model_validate(parse_json(content))
        except ValidationError as error:
            raise UsageError([
                Fault(each["msg"], ".".join(map(str, ("request", *each["loc"]))), None) for each in error.errors()
            ]) from None  # fmt: skip
        except ValueError as error:
            raise UsageError(f"not JSON: {error}", where="request") from None

    def resolved(self, running: Plan) -> Plan | Scenario:
        """Return the plan or the scenario.

        Raises
        ------
        PlannerError
            If the scenario is invalid, or the plan does not fit it.
        """
        scenario = Scenario.from_dict(self.scenario, folder=running.scenario.folder)
        return Plan(scenario, self.plan) if self.plan is not None else scenario


def answer_request(session: Session, content: bytes, *, confined: bool = False) -> tuple[int, dict[str, Any]]:
    """Apply what a request asks for to a session; return the status of the response, and its JSON document.

    The document is that of the :class:`~planner.api.difference.Difference`, with status 200; or else ``errors``, a list
    of ``what``, ``where``, ``value`` and ``expected``. It takes as long as solving and loading take.

    Parameters
    ----------
    content
        The body of the request: JSON of an :class:`ApplyRequest`.
    confined
        Whether a scenario may refer only to files in the folder of the scenario that runs, or those of that scenario.
    """
    try:
        request = ApplyRequest.read(content)
        if confined:
            refuse_paths_outside(request.scenario, session.plan.scenario)
        new = request.resolved(session.plan)
        return 200, session.apply(new, time_limit_s=request.time_limit_s, dry_run=request.dry_run).to_dict()
    except PlannerError as error:
        faults = [{**asdict(each), "value": None if each.value is None else str(each.value)} for each in error.faults]
        return (409 if isinstance(error, ExecuteError) else 400), {"errors": faults}


# ---- a service elsewhere --------------------------------------------------------------------------------------------


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
    read = read_new(new)
    scenario = read.scenario if isinstance(read, Plan) else read
    plan = {"plan": read.to_dict()} if isinstance(read, Plan) else {}
    document = {"scenario": scenario.to_dict(), **plan, "time_limit_s": time_limit_s, "dry_run": dry_run}
    body = json.dumps(document).encode()
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
