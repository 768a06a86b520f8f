"""``python -m tests.campaign``: random runs of the worker state machine under faults; exit code 1 if one goes wrong.

``--seed N`` replays one seed, ``--case FILE`` a shrunk one. A failing seed is shrunk and printed as JSON.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import typer

from planner.cluster import on_cluster
from tests.campaign.case import Case, draw_case
from tests.campaign.invariants import ViolationError, run_case
from tests.campaign.shrink import shrink

BATCH = 50
"""Seeds of a task."""


class Outcome(NamedTuple):
    """What a batch of seeds showed: how many steps, and the failing seeds with what went wrong."""

    seeds: int
    steps: int
    failures: list[tuple[int, str]]


def failure(case: Case) -> str | None:
    """Run a case; return what went wrong, or None."""
    try:
        run_case(case)
    except Exception as error:  # noqa: BLE001 - whatever a worker may raise
        return _told(error)
    return None


def run_batch(seeds: Sequence[int]) -> Outcome:
    """Run cases."""
    steps, failures = 0, []
    for seed in seeds:
        try:
            steps += run_case(draw_case(seed))
        except Exception as error:  # noqa: BLE001 - whatever a worker may raise
            failures.append((seed, _told(error)))
    return Outcome(len(seeds), steps, failures)


def shrunk(case: Case) -> Case:
    """Return the simplest case that goes wrong in the same way."""
    wrong = (failure(case) or "").partition(":")[0]
    return shrink(case, lambda candidate: (failure(candidate) or "").partition(":")[0] == wrong)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ViolationError) else f"{type(error).__name__}: {error}"


def _outcomes(batches: Sequence[Sequence[int]], processes: int, dask: str | None) -> Iterator[Outcome]:
    if dask is not None:
        yield from on_cluster(dask, run_batch, ((batch,) for batch in batches))
    elif processes == 1:
        yield from map(run_batch, batches)
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(run_batch, batch) for batch in batches]):
                yield future.result()


def _report(outcomes: Iterable[Outcome]) -> int:
    runs, steps, failures = 0, 0, 0
    for outcome in outcomes:
        runs, steps, failures = runs + outcome.seeds, steps + outcome.steps, failures + len(outcome.failures)
        for seed, what in outcome.failures:
            typer.echo(f"seed {seed}: {what}\n  python -m tests.campaign --seed {seed}")
    typer.echo(f"{runs} scenarios, {steps} steps, {failures} failed")
    return failures


def main() -> None:
    """Run the campaign."""
    parser = ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--scenarios", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (0)")
    parser.add_argument("--processes", type=int, default=1, help="processes side by side (1)")
    parser.add_argument("--dask", help="scheduler of a Dask cluster, whose workers run in this folder: tcp://HOST:PORT")
    parser.add_argument("--seed", type=int, help="replay this seed only, and shrink it")
    parser.add_argument("--case", type=Path, help="replay the case of this JSON file only, and shrink it")
    given = parser.parse_args()
    if given.seed is None and given.case is None:
        seeds = range(given.first, given.first + given.scenarios)
        batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
        sys.exit(_report(_outcomes(batches, given.processes, given.dask)) > 0)
    case = draw_case(given.seed) if given.case is None else Case.model_validate_json(given.case.read_text("utf-8"))
    wrong = failure(case)
    typer.echo(wrong or "nothing goes wrong")
    if wrong is not None:
        smallest = shrunk(case)
        typer.echo(f"shrunk: {failure(smallest)}\n{smallest.model_dump_json(exclude_defaults=True)}")
    sys.exit(wrong is not None)


if __name__ == "__main__":
    main()
