"""The coordinator, which runs deployments on agents, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.membership import Membership
from planner.execution.coordinator.run_controller import RunController
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.transport import Connect

READY_TIMEOUT_S: Final = 120.0
"""Default time limit for agents to load their blocks; some execution providers compile a block for minutes."""


class Coordinator:
    """Runs deployments on agents; use it as a context manager."""

    def __init__(self, connect: Connect) -> None:
        self._members = Membership(connect)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self._members.close()

    def await_agents(self, names: Sequence[str], timeout_s: float) -> None:
        """Wait until all these agents are connected.

        Raises
        ------
        ExecuteError
            If some do not connect in time.
        """
        self._members.wait_for(names, timeout_s)

    def absent(self, names: Iterable[str]) -> list[str]:
        """Return those of these agents that are not connected."""
        return self._members.absent(names)

    def run(
        self,
        deployment: Deployment,
        *,
        ready_timeout_s: float = READY_TIMEOUT_S,
        observer: Observer | None = None,
    ) -> RunResult:
        """Run a deployment and return its results: until every sample has ended, or a live run until :meth:`stop`.

        Parameters
        ----------
        ready_timeout_s
            Maximum time in seconds for all agents to load their blocks.
        observer
            Informed during the run, in this thread.

        Raises
        ------
        ExecuteError
            If an agent does not become ready, or this host is slower than a worker that it emulates.
        """
        return RunController(self._members, deployment, observer or Observer()).run(ready_timeout_s)

    def stop(self) -> None:
        """End a live run; may be called in any thread."""
        self._members.stop()
