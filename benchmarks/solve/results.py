"""Results of a release: written to a file that is committed, rendered as a table, and compared with those before."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.solve.measure import Measurement
from benchmarks.solve.rules import RULES
from planner.files import write_text_atomic

FOLDER: Final = Path(__file__).parent.parent / "results"
WORSE: Final = 0.02
"""Relative increase of a value that counts as worse."""


@dataclass(frozen=True)
class Results:
    """Measurements of a version of planner, each with the same time limit in seconds, on one thread."""

    version: str
    limit_s: float
    seed: int
    measurements: tuple[Measurement, ...]

    def merged(self, newer: Results) -> Results:
        """Return these results with those of the same instances and methods replaced by ``newer`` ones."""
        found = {(each.instance, each.method): each for each in (*self.measurements, *newer.measurements)}
        return Results(newer.version, newer.limit_s, newer.seed, tuple(found.values()))

    def bettered(self, again: Iterable[Measurement]) -> Results:
        """Return these results with those measurements ``again`` that found a better plan."""
        better = [
            new
            for new in again
            if new.value is not None and new.value < (self.value(new.instance, new.method) or float("inf"))
        ]
        return self.merged(Results(self.version, self.limit_s, self.seed, tuple(better)))

    def value(self, instance: str, method: str | None = None) -> float | None:
        """Return the value of a method on an instance, or the best of all methods; None without a plan."""
        values = [
            each.value
            for each in self.measurements
            if each.instance == instance
            and each.value is not None
            and (each.method == method if method else each.method not in RULES)
        ]
        return min(values, default=None)


def path_of(version: str) -> Path:
    """Return the file of a version's results."""
    return FOLDER / f"solve-{version}.json"


def load(path: Path) -> Results:
    """Read results."""
    document = json.loads(path.read_text(encoding="utf-8"))
    measurements = tuple(Measurement(**each) for each in document.pop("measurements"))
    return Results(**document, measurements=measurements)


def newest() -> Results | None:
    """Return the results of the newest version that has any."""
    files = sorted(FOLDER.glob("solve-*.json"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
    return load(files[-1]) if files else None


def save(results: Results) -> Path:
    """Write results, and a table of them beside; merge them with those of the same version, limit and seed."""
    path = path_of(results.version)
    if path.exists():
        before = load(path)
        if (before.limit_s, before.seed) == (results.limit_s, results.seed):
            results = before.merged(results)
    FOLDER.mkdir(exist_ok=True)
    write_text_atomic(path, json.dumps(asdict(results), indent=1) + "\n")
    write_text_atomic(path.with_suffix(".md"), rendered(results))
    return path


def got_worse(before: Results, after: Results) -> dict[str, list[str]]:
    """Return by instance one sentence each if ``auto``, or the best of all methods, got worse."""
    found: dict[str, list[str]] = defaultdict(list)
    for instance in dict.fromkeys(each.instance for each in after.measurements):
        for method in ("auto", None):
            old, new = before.value(instance, method), after.value(instance, method)
            name = method or "the best method"
            if old is not None and new is None:
                found[instance].append(f"{instance}: {name} finds no plan; it had {old:.4g}")
            elif old is not None and new is not None and new > old * (1 + WORSE):
                worse = f"{new / old - 1:.1%} worse than {old:.4g}"
                found[instance].append(f"{instance}: {name} has {new:.4g}, which is {worse}")
    return dict(found)


COLUMNS: Final = ("instance", "method", ">value", ">times auto's", ">gap", ">time", ">processor", ">memory", "status")


def rows(results: Results) -> Iterable[tuple[str, ...]]:
    """Yield the rows of a table; ``times auto's`` is a value relative to that of ``auto`` in the same run."""
    for each in results.measurements:
        auto = results.value(each.instance, "auto")
        yield (
            each.instance,
            each.method,
            "" if each.value is None else f"{each.value:.4g}",
            "" if each.value is None or auto is None else f"{each.value / auto:.3f}",
            "" if each.gap is None else f"{each.gap:.2%}",
            f"{each.seconds:.1f} s",
            f"{each.cpu_s:.1f} s",
            f"{each.peak_mib:.0f} MiB",
            each.status,
        )


def rendered(results: Results) -> str:
    """Return a table in Markdown."""
    lines: list[Sequence[str]] = [
        [name.lstrip(">") for name in COLUMNS],
        ["---:" if name.startswith(">") else "---" for name in COLUMNS],
        *rows(results),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# Solvers of planner {results.version}\n\n"
        f"Made by `make bench-solve`: seed {results.seed}, {results.limit_s:g} s a method, one thread, as many at\n"
        "once as there are processors. The value is that of the scenario's goal; less is better. Where processor\n"
        "time is far below the time, the machine had other work. Instances:\n"
        "[`instances.py`](../solve/instances.py); rules of\n"
        f"other projects: [`rules.py`](../solve/rules.py).\n\n{table}\n"
    )
