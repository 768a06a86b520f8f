"""Read what other commands wrote, for a report."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from planner.api.plan import load_plan
from planner.api.scenario import Scenario, load_scenario
from planner.errors import PlannerError, UsageError
from planner.plan.evaluate import legs as planned_legs
from planner.plan.store import load_plan as load_spec
from planner.plan.store import plan_document
from planner.plan.types import PlanSpec
from planner.report.html.data import (
    CheckRow,
    FileHash,
    LegRow,
    RunData,
    Scene,
    Spent,
    VerdictData,
    profile_rows,
)
from planner.report.html.tracks import PackedTrace, TraceColumns
from planner.report.origin import read_origin
from planner.scenario.instance import Instance
from planner.schemas import first_fault
from planner.trace.records import Record, iter_records
from planner.validation.legs import LegTimes, latencies

INSTANCE, PLAN, RESULT = "instance.json", "plan.json", "result.json"
EXPECTED: Final = "a plan file, a trace (.jsonl), or a folder of `planner simulate -o` or `planner validate -o`"


class Trace(Iterable[Record]):
    """The records of a file, read anew each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Record]:
        return iter_records(self.path)


@dataclass(frozen=True)
class Run:
    """A plan or a run that was read, with its traces still in their files.

    Parameters
    ----------
    traces
        By label; the prediction comes before the run.
    """

    name: str
    kind: Literal["plan", "simulation", "validation", "trace"]
    traces: Mapping[str, Trace] = field(default_factory=dict)
    instance: Instance | None = None
    plan: PlanSpec | None = None
    verdict: _Result | None = None
    notes: tuple[str, ...] = ()
    command: str | None = None
    version: str | None = None
    files: tuple[Path, ...] = ()

    def data(self, *, max_slices: int) -> RunData:
        """Return what the page shows of it."""
        instance = self.instance
        columns, legs = self._read(max_slices)
        labels = ("plan", "simulated") if self.kind == "simulation" else ("predicted", "measured")
        return RunData(
            name=self.name,
            kind=self.kind,
            notes=self.notes,
            command=self.command,
            version=self.version,
            files=(*map(_hashed, self.files), *self._references()),
            labels=labels,
            scene=Scene.of(instance) if instance else None,
            plan=plan_document(self.plan) if self.plan else None,
            profiles=profile_rows(instance) if instance else (),
            traces=columns,
            legs=self.verdict.leg_rows() if self.verdict else legs,
            verdict=self.verdict.data() if self.verdict else None,
        )

    def _read(self, max_slices: int) -> tuple[tuple[PackedTrace, ...], dict[str, tuple[LegRow, ...]]]:
        instance = self.instance
        order: dict[str, Any] = {}
        if instance is not None:
            order = {"sources": instance.sources, "workers": instance.workers, "resources": instance.resources}
            order["deadlines"] = instance.deadlines
        packed, legs = [], None
        for label, trace in self.traces.items():
            latency_s = latencies(instance) if instance and label != "measured" else {}
            columns, legs = TraceColumns(latency_s), LegTimes(latency_s)
            for record in trace:
                columns.add(record)
                legs.add(record)
            packed.append(columns.packed(label, max_slices=max_slices, **order))
        if legs is None:
            return (), {} if instance is None or self.plan is None else _leg_rows(_planned(instance, self.plan), {})
        followed = instance is not None and self.plan is not None and self.kind == "simulation"
        before = _planned(instance, self.plan) if followed and instance and self.plan else {}
        after = {source: dict(sites) for source, sites in legs.result().items()}
        return tuple(packed), _leg_rows(before, after)

    def _references(self) -> Iterator[FileHash]:
        if self.plan is not None and self.plan.scenario is not None:
            yield FileHash(name=f"{self.plan.scenario.path} (scenario)", sha256=self.plan.scenario.sha256)
        if self.instance is not None:
            for model in self.instance.profiles:
                profile = self.instance.any_profile(model)
                yield FileHash(name=f"{profile.model.name} (model {model})", sha256=profile.model.sha256)


def load_run(path: Path, scenario: Scenario | str | Any = None) -> list[Run]:
    """Return what a file or folder holds; a folder of several policies is several runs.

    Raises
    ------
    UsageError, PlannerError
        If it is not what a command wrote.
    """
    if not path.exists():
        raise UsageError("there is no such file or folder", where="planner report", value=str(path), expected=EXPECTED)
    if path.is_dir():
        return _folder(path)
    if path.name in {RESULT, INSTANCE} and (path.parent / INSTANCE).is_file():
        return _folder(path.parent)
    if path.suffix == ".jsonl":
        return [Run(path.stem, "trace", {"run": Trace(path)}, files=(path,))]
    if path.suffix == ".json":
        return [_plan(path, scenario)]
    raise UsageError("not a plan or a run", where="planner report", value=str(path), expected=EXPECTED)


def _plan(path: Path, scenario: Any) -> Run:
    loaded = load_plan(path, scenario)
    if isinstance(scenario, Scenario):
        name = scenario.path
    else:
        name = loaded.scenario.path if scenario is None else load_scenario(scenario).path
    return Run(
        _label(path),
        "plan",
        instance=loaded.scenario.instance,
        plan=loaded.spec,
        command=solve_command(loaded.spec, str(name or "scenario.yaml"), str(path)),
        files=(path,),
    )


def _folder(folder: Path) -> list[Run]:
    instance = _instance(folder / INSTANCE) if (folder / INSTANCE).is_file() else None
    plan = load_spec(folder / PLAN) if (folder / PLAN).is_file() else None
    origin = read_origin(folder)
    of_all: dict[str, Any] = {
        "instance": instance,
        "plan": plan,
        "command": origin.command if origin else None,
        "version": origin.version if origin else None,
    }
    files = tuple(folder / name for name in (PLAN, INSTANCE, RESULT) if (folder / name).is_file())
    predicted, measured = folder / "predicted.jsonl", folder / "measured.jsonl"
    if measured.is_file():
        traces = {"predicted": predicted, "measured": measured}
        present = {label: Trace(file) for label, file in traces.items() if file.is_file()}
        verdict = _result(folder / RESULT) if (folder / RESULT).is_file() else None
        named = (*files, *(trace.path for trace in present.values()))
        return [Run(_label(folder), "validation", present, verdict=verdict, files=named, **of_all)]
    found = _simulated(folder)
    if not found:
        raise UsageError("the folder has no trace", where="planner report", value=str(folder), expected=EXPECTED)
    several = len(found) > 1
    return [
        Run(
            f"{_label(folder)}: {policy}" if several else _label(folder),
            "simulation",
            {"simulated": Trace(traces[0])},
            notes=(f"the first of {len(traces)} replications: {traces[0].name}",) if len(traces) > 1 else (),
            files=(*files, traces[0]),
            **of_all | ({} if policy in {"", "planned", "adaptive"} else {"plan": None}),
        )
        for policy, traces in found.items()
    ]


def _simulated(folder: Path) -> dict[str, list[Path]]:
    """Return the traces of a simulation by policy, in the order of the seeds; that of a single run has no policy."""
    if (folder / "trace.jsonl").is_file():
        return {"": [folder / "trace.jsonl"]}
    by_policy: dict[str, list[tuple[int, Path]]] = {}
    for file in folder.glob("trace-*-*.jsonl"):
        policy, _, seed = file.stem.removeprefix("trace-").rpartition("-")
        if seed.isdigit():
            by_policy.setdefault(policy, []).append((int(seed), file))
    return {policy: [file for _, file in sorted(files)] for policy, files in sorted(by_policy.items())}


def _label(path: Path) -> str:
    """Return a short name: the file's or the folder's, with the folder around it."""
    absolute = path.absolute()
    return "/".join(absolute.parts[-2:]) if len(absolute.parts) > 2 else absolute.name


def _hashed(path: Path) -> FileHash:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    return FileHash(name=path.name, sha256=digest.hexdigest())


def _instance(path: Path) -> Instance:
    try:
        return Instance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PlannerError(
            "not the scenario of a run", where=str(path), value=first_fault(error), expected=EXPECTED
        ) from error


# ---- the verdict ----------------------------------------------------------------------------------------------------


class _Times(BaseModel):
    wait_s: float
    work_s: float

    def pair(self) -> Spent:
        return self.wait_s, self.work_s


class _Leg(BaseModel):
    place: str
    predicted: _Times
    measured: _Times


class _Incident(BaseModel):
    at_s: float
    worker: str
    what: str


class _Source(BaseModel):
    explanation: str = ""
    legs: list[_Leg] = []


class _Result(BaseModel):
    """What a report needs of a validation's ``result.json``."""

    passed: bool
    checks: list[CheckRow] = []
    faults: list[str] = []
    incidents: list[_Incident] = []
    host_limits: list[str] = []
    sources: dict[str, _Source] = {}

    def data(self) -> VerdictData:
        return VerdictData(
            passed=self.passed,
            checks=tuple(self.checks),
            explanations={name: source.explanation for name, source in self.sources.items()},
            host_limits=tuple(self.host_limits),
            faults=tuple(self.faults),
            incidents=tuple((it.at_s, f"{it.worker} {it.what}".strip()) for it in self.incidents),
        )

    def leg_rows(self) -> dict[str, tuple[LegRow, ...]]:
        return {
            name: tuple(
                LegRow(
                    place=leg.place,
                    transfer=leg.place.rpartition(": ")[2].startswith("cut "),
                    predicted=leg.predicted.pair(),
                    measured=leg.measured.pair(),
                )
                for leg in source.legs
            )
            for name, source in self.sources.items()
            if source.legs
        }


def _result(path: Path) -> _Result:
    try:
        return _Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise PlannerError(
            "not the result of a validation", where=str(path), value=first_fault(error), expected=EXPECTED
        ) from error


# ---- legs -----------------------------------------------------------------------------------------------------------

Sites = Mapping[str, Mapping[Any, Sequence[float]]]


def _planned(instance: Instance, plan: PlanSpec) -> dict[str, dict[Any, Spent]]:
    """Return the mean times of the legs of each source by the plan; without those where queues grow without limit."""
    by_route = planned_legs(instance, {name: flow.routes for name, flow in plan.sources.items()})
    found: dict[str, dict[Any, Spent]] = {}
    for source, routes in by_route.items():
        sites = found.setdefault(source, {})
        for route, route_legs in zip(plan.sources[source].routes, routes, strict=True):
            for leg in route_legs:
                wait_s, work_s = sites.get(leg.site, (0.0, 0.0))
                sites[leg.site] = (wait_s + route.share * leg.wait_s, work_s + route.share * leg.work_s)
    return {
        source: {site: it for site, it in sites.items() if sum(it) < float("inf")} for source, sites in found.items()
    }


def _leg_rows(before: Sites, after: Sites) -> dict[str, tuple[LegRow, ...]]:
    rows = {}
    for source in dict.fromkeys([*before, *after]):
        planned, spent = before.get(source, {}), after.get(source, {})
        order = sorted({*planned, *spent}, key=lambda site: (site.first, not site.transfer, site.resource))
        rows[source] = tuple(
            LegRow(
                place=str(site),
                transfer=site.transfer,
                predicted=_pair(planned, site) if before else None,
                measured=_pair(spent, site) if after else None,
            )
            for site in order
        )
    return rows


def _pair(times: Mapping[Any, Sequence[float]], site: Any) -> Spent:
    wait_s, work_s = times.get(site, (0.0, 0.0))
    return wait_s, work_s


# ---- the command ----------------------------------------------------------------------------------------------------


def solve_command(plan: PlanSpec, scenario: str, output: str) -> str:
    """Return the command line that solves a scenario as a plan was, by the options in it."""
    options = plan.options
    words = ["planner", "solve", scenario]
    for option, name in (("method", "--method"), ("routes", "--routes"), ("rank", "--rank")):
        if options.get(option) not in {None, "auto", "evaluated"}:
            words += [name, str(options[option])]
    for option, name, default in (("gap", "--gap", 1e-4), ("seed", "--seed", 0), ("threads", "--threads", 1)):
        if options.get(option, default) != default:
            words += [name, str(options[option])]
    if options.get("time_limit_s", 60.0) != 60.0:
        words += ["--time-limit", f"{options['time_limit_s']:g}s"]
    if options.get("max_visits") is not None:
        words += ["--max-visits", str(options["max_visits"])]
    if options.get("max_wait_s") is not None:
        words += ["--max-wait", f"{options['max_wait_s']:g}s"]
    for source, workers in options.get("pins", {}).items():
        for block, worker in workers.items():
            words += ["--pin", f"{source}:{block}={worker}"]
    return shlex.join([*words, "-o", output])
