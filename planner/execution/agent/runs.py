"""The runs that an agent has at hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from math import inf
from typing import Any

from planner.execution.agent.worker_run import WorkerRun
from planner.execution.wire.transport import IDLE_BYTES


class Runs:
    """Runs by their identifiers, the newest last."""

    def __init__(self) -> None:
        self._runs: dict[str, WorkerRun] = {}

    def __iter__(self) -> Iterator[WorkerRun]:
        return iter(list(self._runs.values()))  # the executor's thread may drop one meanwhile

    def __contains__(self, run: object) -> bool:
        return isinstance(run, WorkerRun) and self._runs.get(run.id) is run

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run: str) -> WorkerRun | None:
        """Return the run with an identifier."""
        return self._runs.get(run)

    def add(self, run: WorkerRun) -> None:
        """Add the newest run."""
        self._runs[run.id] = run

    def drop(self, runs: Iterable[WorkerRun]) -> None:
        """Close runs, and drop those that are at hand."""
        for run in runs:
            if run in self:
                del self._runs[run.id]
            run.close()

    def of(self, coordinator: str) -> list[WorkerRun]:
        """Return the runs of a coordinator."""
        return [run for run in self if run.coordinator == coordinator]

    @property
    def last(self) -> WorkerRun | None:
        """The newest run; None if there is none."""
        return next(reversed(list(self)), None)

    def newest(self, coordinator: str) -> str | None:
        """Return the identifier of the newest run of a coordinator; None if it has none."""
        return next((run.id for run in reversed(self.of(coordinator))), None)

    def except_of(self, coordinators: Collection[str]) -> list[WorkerRun]:
        """Return the runs of other coordinators."""
        return [run for run in self if run.coordinator not in coordinators]

    @property
    def wait_s(self) -> float:
        """Seconds until one of them has something to do."""
        return min((run.wait_s for run in self), default=inf)

    @property
    def largest_bytes(self) -> int:
        """Size of the largest message that one of them needs, in bytes."""
        return max((run.largest_bytes for run in self), default=IDLE_BYTES)

    @property
    def announced(self) -> frozenset[str]:
        """Hashes of the block models that they have."""
        return frozenset(sha256 for run in self for sha256 in run.announced)

    def describe(self) -> dict[str, Any]:
        """Return the fields of :class:`~planner.execution.wire.diagnostics.About` that describe them."""
        if self.last is None:
            return {}
        described = [run.describe() for run in self]
        loaded: dict[str, set[int]] = {}
        for model, blocks in (pair for each in described for pair in each["loaded"].items()):
            loaded.setdefault(model, set()).update(blocks)
        return self.last.describe() | {
            "loaded": {model: tuple(sorted(blocks)) for model, blocks in loaded.items()},
            "queued": sum(each["queued"] for each in described),
            "running": ", ".join(each["running"] for each in described if each["running"]) or None,
        }
