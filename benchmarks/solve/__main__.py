"""``make bench-solve``: measure solvers and the rules of other projects on public classes of instances.

Results are kept by version under ``benchmarks/results``. With ``--check`` nothing is written: the exit code is 1 if
``auto``, or the best method, got more than 2 % worse on a class than in the newest kept results, twice in a row.
Each measurement is a process with one thread; as many run at once as there are processors.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.solve.instances import CLASSES, SMALL
from benchmarks.solve.measure import Measurement, measured
from benchmarks.solve.results import COLUMNS, Results, got_worse, newest, rows, save
from benchmarks.solve.rules import RULES
from planner.cli.output import print_table
from planner.version import installed_version

METHODS = ("auto", "auto shared", "milp", "ar-mdi")


def main() -> None:
    """Measure, and keep or check the results."""
    asked = _arguments()
    instances = asked.instance or (SMALL if asked.small else [name for name in CLASSES if name not in SMALL])
    methods = asked.method or [*METHODS, *RULES]
    kept = newest() if asked.check else None
    if asked.check and kept is None:
        sys.exit("no results are kept yet; run without --check first")
    limit_s = asked.limit or (kept.limit_s if kept else 10.0)
    pairs = [
        (instance, method)
        for instance in instances
        for one in [len(CLASSES[instance](0).sources) == 1]  # the rules know one source
        for method in methods
        if one or method not in RULES
    ]
    measure = partial(_measured, limit_s=limit_s, seed=asked.seed, jobs=asked.jobs)
    results = Results(installed_version("mdi-planner"), limit_s, asked.seed, measure(pairs))
    if kept is None:
        _print(results)
        sys.stdout.write(f"wrote {save(results)}\n")
        return
    if (kept.limit_s, kept.seed) != (limit_s, asked.seed):
        sys.exit(f"the kept results have another time limit or seed: {kept.limit_s:g} s, seed {kept.seed}")
    if again := got_worse(kept, results):  # other work on the machine may have taken the time
        sys.stderr.write(f"measured again: {', '.join(again)}\n")
        results = results.bettered(measure([pair for pair in pairs if pair[0] in again and pair[1] not in RULES]))
    _print(results)
    worse = [line for lines in got_worse(kept, results).values() for line in lines]
    sys.stdout.write("".join(f"worse: {line}\n" for line in worse) or f"no class is worse than in {kept.version}\n")
    sys.exit(1 if worse else 0)


def _measured(pairs: Sequence[tuple[str, str]], *, limit_s: float, seed: int, jobs: int) -> tuple[Measurement, ...]:
    """Return the measurements of methods on instances, ``jobs`` at once, and print each."""

    def one(pair: tuple[str, str]) -> Measurement:
        found = measured(*pair, limit_s=limit_s, seed=seed)
        (row,) = rows(Results("", limit_s, seed, (found,)))
        sys.stderr.write(f"{'  '.join(row)}\n")
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return tuple(pool.map(one, pairs))


def _print(results: Results) -> None:
    print_table(f"Solvers, {results.limit_s:g} s a method", COLUMNS, rows(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instance", action="append", choices=list(CLASSES), help="class of instances; repeatable")
    parser.add_argument("--method", action="append", choices=[*METHODS, "search", "colgen", "convex", "dp", *RULES])
    parser.add_argument("--small", action="store_true", help="only the small classes, to try this tool")
    parser.add_argument("--limit", type=float, help="time limit of a method in seconds; 10 by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="measurements at once; by default one a processor"
    )
    parser.add_argument("--check", action="store_true", help="compare with the newest kept results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
