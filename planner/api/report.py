"""Reports: plans and runs as one HTML page, and traces for other viewers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planner.api.report_runs import Run, load_run
from planner.api.scenario import Scenario
from planner.errors import UsageError
from planner.files import StrPath, several, write_text_atomic
from planner.report.html.data import ReportData
from planner.report.html.page import report_page
from planner.report.html.tracks import MAX_SLICES
from planner.trace.chrome import write_chrome_trace
from planner.version import installed_version


def write_report(
    runs: StrPath | Sequence[StrPath],
    path: StrPath | None = None,
    *,
    trace: StrPath | None = None,
    scenario: Scenario | StrPath | None = None,
) -> Path | None:
    """Write plans and runs side by side as one HTML page, which needs no other file and contacts nobody.

    The page has routes on a map, timelines, distributions of the delays, legs, queues, the solver's bound over time,
    the verdict with its reasons, where the costs come from, and commands and hashes; of each run what it has.

    Parameters
    ----------
    runs
        Files and folders that other commands wrote: plan files, folders of :func:`planner.simulate` and
        :func:`planner.validate`, and traces (``.jsonl``).
    path
        HTML file to write.
    trace
        JSON file to write as well, or alone: the traces in the Chrome Trace Event Format, for https://ui.perfetto.dev.
        It has a process a run, a track a worker and link, and arrows that follow each sample.
    scenario
        Scenario, or its file, to use in place of those that plan files refer to.

    Returns
    -------
    Path
        The page; None without one.

    Raises
    ------
    UsageError
        If there is nothing to read or to write, or nothing has a trace though one is asked for.
    PlannerError
        If something is not what a command wrote, or a plan does not fit its scenario.

    Examples
    --------
    >>> import planner
    >>> plan = planner.solve("examples/exits/scenario.yaml", time_limit_s=2, progress=None)
    >>> _ = plan.save("runs/plan.json")
    >>> _ = planner.simulate(plan.scenario, plan, folder="runs/simulated", progress=None)
    >>> planner.write_report(["runs/plan.json", "runs/simulated"], "runs/report.html").name
    'report.html'
    """
    if path is None and trace is None:
        raise UsageError("nothing to write", where="write_report", expected="a file for the page or for the trace")
    runs = several(runs)
    loaded = [run for source in runs for run in load_run(Path(source), scenario)]
    if not loaded:
        raise UsageError("nothing to report", where="runs", value=list(map(str, runs)), expected="files or folders")
    if trace is not None:
        traces = [(_title(run, label, loaded), records) for run in loaded for label, records in run.traces.items()]
        if not traces:
            raise UsageError("none of the runs has a trace", where="trace", value=str(trace), expected="a run's folder")
        write_chrome_trace(Path(trace), traces)
    if path is None:
        return None
    count = sum(len(run.traces) for run in loaded)
    data = ReportData(
        title=" | ".join(run.name for run in loaded[:3]) + (" | …" if len(loaded) > 3 else ""),
        version=installed_version("mdi-planner"),
        runs=tuple(run.data(max_slices=MAX_SLICES // max(count, 1)) for run in loaded),
    )
    write_text_atomic(Path(path), report_page(data))
    return Path(path)


def _title(run: Run, label: str, runs: Sequence[Run]) -> str:
    return label if len(runs) == 1 else f"{run.name}: {label}"
