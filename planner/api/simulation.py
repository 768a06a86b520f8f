"""Simulate a scenario in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from planner.api.picture import Picture, drawn
from planner.api.plan import Plan, plan_of
from planner.api.progress import Progress, reporting, show_progress
from planner.api.scenario import Scenario, scenario_of
from planner.files import StrPath, several, write_text_atomic
from planner.plan.store import save_plan
from planner.plan.types import PlanSpec
from planner.policy.registry import make_policy, needs_plan
from planner.project import reference_to
from planner.scenario.instance import Instance
from planner.simulation.replications import Replication, RunSpec, simulate_case, simulate_cases
from planner.simulation.summary import describe_policies, describe_runs, runs_document
from planner.solvers.replan.replanner import replanner
from planner.tables import Printable, Table
from planner.trace.metrics import RunMetrics
from planner.trace.records import Record, SampleRecord

if TYPE_CHECKING:
    from collections.abc import Callable

DRAWN: Final = 5000
"""Number of records that the timeline of a run shows; with more, the bars would be too thin to see."""


class SimulationResult(Printable):
    """Replications of a simulated run under one policy.

    Parameters
    ----------
    runs
        One run for each seed, in the order of the seeds.
    """

    def __init__(self, scenario: Scenario, policy: str, runs: Sequence[Replication]) -> None:
        self.scenario = scenario
        self.policy = policy
        self.runs = tuple(runs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each replication."""
        return tuple(run.case.seed for run in self.runs)

    @property
    def metrics(self) -> tuple[RunMetrics, ...]:
        """Delays, accuracies and utilisations of each replication."""
        return tuple(run.metrics for run in self.runs)

    def contents(self) -> Iterator[Table | str]:
        """Return tables of delays, accuracies and utilisations: means over the replications."""
        return describe_runs(self.runs, self.scenario.instance)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of the run; of several, their means and the half-widths of their 95 % intervals."""
        return runs_document(self.runs)

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the delays of each source; write it to ``path`` if given."""
        return _delays({self.policy: self.metrics}, path)

    def __repr__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return f"<SimulationResult of {self.policy}: {len(self.runs)} replications (seeds {seeds})>"


class PolicyComparison(Printable, Mapping[str, SimulationResult]):
    """Results of several policies that met the same arrivals, by the name of the policy."""

    def __init__(self, results: Mapping[str, SimulationResult]) -> None:
        self._results = dict(results)

    def __getitem__(self, policy: str) -> SimulationResult:
        return self._results[policy]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def contents(self) -> Iterator[Table | str]:
        """Return a table with the mean delays under each policy."""
        scenario = next(iter(self.values())).scenario
        return describe_policies({name: result.runs for name, result in self.items()}, scenario.instance)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of each policy."""
        return {"policies": {name: result.to_dict() for name, result in self.items()}}

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the delays of each source under each policy; write it to ``path`` if given."""
        return _delays({name: result.metrics for name, result in self.items()}, path)

    def __repr__(self) -> str:
        return f"<PolicyComparison of {', '.join(self)}>"


def simulate(
    scenario: Scenario | StrPath,
    plan: Plan | StrPath | None = None,
    *,
    policy: str | None = None,
    seed: int = 0,
    replications: int = 1,
    processes: int | None = 1,
    dask: str | None = None,
    folder: StrPath | None = None,
    progress: Progress | None = show_progress,
) -> SimulationResult:
    """Simulate a scenario under a policy.

    Parameters
    ----------
    scenario
        The scenario, or its file.
    plan
        The plan, or its file, for policies that follow one.
    policy
        Name of the policy; see :mod:`planner.policies`. Defaults to ``planned`` with a plan, else ``local``.
    seed
        Seed of the arrivals and the block times; each further replication has the next.
    replications
        Number of independent runs.
    processes
        Number of processes for several runs; None for one per processor, or none but this where that is quicker. With
        more than one, a script must guard its code by ``if __name__ == "__main__":``. A policy that only this process
        knows runs in this process.
    dask
        Address of the scheduler of a Dask cluster on which to simulate, such as ``tcp://10.0.0.1:8786``. The planner
        must be installed there in the same version. Such runs write no traces.
    folder
        Folder to write with the traces and pictures of the runs, their figures (``result.json``) and what they were
        made of (``instance.json``, ``plan.json``, ``run.json``), for :func:`planner.write_report`.
    progress
        Callback ``progress(step, done, total)``. By default, a bar on a terminal; None for none.

    Raises
    ------
    ScenarioError, ProfileError, PlanError
        If the scenario or the plan is invalid, or they do not belong together.
    UsageError
        If the policy is unknown, or follows a plan and there is none; or if the cluster cannot be used.

    Examples
    --------
    >>> import planner
    >>> result = planner.simulate("examples/exits/scenario.yaml", policy="pa-mdi", progress=None)
    >>> sorted(result.to_dict()["sources"])
    ['gate-camera', 'yard-camera']
    """
    loaded, followed = _loaded(scenario, plan)
    name = policy or ("planned" if followed is not None else "local")
    runs = _run(
        loaded.instance,
        followed,
        [name],
        _seeds(seed, replications),
        processes=processes,
        dask=dask,
        folder=folder,
        progress=progress,
    )
    result = SimulationResult(loaded, name, runs[name])
    _write(folder, loaded, followed, result)
    return result


def compare_policies(
    scenario: Scenario | StrPath,
    plan: Plan | StrPath | None = None,
    *,
    policies: str | Iterable[str] | None = None,
    seed: int = 0,
    replications: int = 1,
    processes: int | None = 1,
    dask: str | None = None,
    folder: StrPath | None = None,
    progress: Progress | None = show_progress,
) -> PolicyComparison:
    """Simulate a scenario under several policies, which meet the same arrivals.

    Parameters
    ----------
    policies
        Names of the policies. Defaults to the built-in ones; without a plan, those that need none.
    scenario, plan, seed, replications, processes, dask, folder, progress
        As for :func:`planner.simulate`.

    Raises
    ------
    ScenarioError, ProfileError, PlanError, UsageError
        As for :func:`planner.simulate`.
    """
    from planner.policy.registry import POLICIES

    loaded, followed = _loaded(scenario, plan)
    if policies is None:
        policies = [name for name in POLICIES if followed is not None or not needs_plan(name)]
    runs = _run(
        loaded.instance,
        followed,
        several(policies),
        _seeds(seed, replications),
        processes=processes,
        dask=dask,
        folder=folder,
        progress=progress,
    )
    comparison = PolicyComparison({name: SimulationResult(loaded, name, done) for name, done in runs.items()})
    _write(folder, loaded, followed, comparison)
    return comparison


def _loaded(scenario: Scenario | StrPath, plan: Plan | StrPath | None) -> tuple[Scenario, PlanSpec | None]:
    loaded = scenario_of(scenario)
    return loaded, None if plan is None else plan_of(plan, loaded).spec


def _seeds(seed: int, replications: int) -> range:
    if replications < 1:
        from planner.errors import UsageError

        raise UsageError("too few replications", where="replications", value=replications, expected="1 or more")
    return range(seed, seed + replications)


# ---- the runs -------------------------------------------------------------------------------------------------------


def _run(
    instance: Instance,
    plan: PlanSpec | None,
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    processes: int | None,
    dask: str | None,
    folder: StrPath | None,
    progress: Progress | None,
) -> dict[str, list[Replication]]:
    """Make all runs; with a folder, each writes its trace, and a single one draws its timeline."""
    for name in policies:
        make_policy(name, instance, plan)  # an error before any run
    output = None if folder is None else Path(folder)
    with reporting(progress, "simulating") as report:
        if len(policies) * len(seeds) == 1 and dask is None:
            trace = None if output is None else output / "trace.jsonl"
            return {policies[0]: [_run_one(instance, plan, RunSpec(policies[0], seeds[0], trace), report)]}
        cases = [
            RunSpec(name, seed, None if output is None else output / f"trace-{name}-{seed}.jsonl")
            for name in policies
            for seed in seeds
        ]
        runs: list[Replication] = []
        for run in simulate_cases(instance, plan, cases, processes=processes, dask=dask, replanner=replanner):
            runs.append(run)
            report(len(runs), len(cases))
    runs.sort(key=lambda run: run.case.seed)
    return {name: [run for run in runs if run.case.policy == name] for name in policies}


def _run_one(
    instance: Instance, plan: PlanSpec | None, case: RunSpec, report: Callable[[float, float | None], None]
) -> Replication:
    total = sum(map(instance.samples, instance.sources))
    ended = 0
    records: list[Record] = []

    def watch(record: Record) -> None:
        nonlocal ended
        if case.trace is not None and len(records) < DRAWN:
            records.append(record)
        if isinstance(record, SampleRecord):
            ended += 1
            report(ended, total)

    run = simulate_case(instance, plan, case, watch, replanner=replanner)
    if case.trace is not None:
        from planner.report.timeline import draw_timeline

        draw_timeline(records, case.trace.with_name("timeline.png"), instance=instance)
    return run


# ---- what is written ------------------------------------------------------------------------------------------------


def _write(
    folder: StrPath | None, scenario: Scenario, plan: PlanSpec | None, result: SimulationResult | PolicyComparison
) -> None:
    """Write the pictures of a run, its figures, and what it was made of."""
    if folder is None:
        return
    from planner.report.origin import write_origin

    output = Path(folder)
    result.plot(output / "delays.png")
    write_text_atomic(output / "instance.json", scenario.instance.model_dump_json(by_alias=False, indent=1))
    write_text_atomic(output / "result.json", json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    write_origin(output, "simulation")
    if plan is not None:
        from planner.report.plan import draw_plan

        draw_plan(scenario.instance, plan, output / "plan.png")
        path = scenario.path
        reference = None if path is None else reference_to(path, output / "plan.json", sha256=scenario.file()[1])
        save_plan(plan.model_copy(update={"scenario": reference}), output / "plan.json")


def _delays(metrics: Mapping[str, Sequence[RunMetrics]], path: StrPath | None) -> Picture:
    from planner.report.policies import draw_policies

    return drawn(lambda file: draw_policies(metrics, file), path)
