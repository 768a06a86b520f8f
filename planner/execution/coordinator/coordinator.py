"""The coordinator: the member that runs deployments on agents, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.membership import Membership
from planner.execution.coordinator.run_controller import RunController
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.transport import Connect

READY_TIMEOUT_S: Final = 120.0
"""Time within which all agents must have loaded their blocks, by default, in seconds."""


class Coordinator:
    """A member that runs deployments on agents; use it as a context manager."""

    def __init__(self, connect: Connect) -> None:
        self._members = Membership(connect)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self._members.close()

    def await_agents(self, names: Sequence[str], timeout_s: float) -> None:
        """Wait until all agents are there.

        Raises
        ------
        ExecuteError
            Some did not come in time.
        """
        self._members.wait_for(names, timeout_s)

    def absent(self, names: Iterable[str]) -> list[str]:
        """Give those of these agents that are not there."""
        return self._members.absent(names)

    def run(
        self, deployment: Deployment, *, ready_timeout_s: float = READY_TIMEOUT_S, observer: Observer | None = None
    ) -> RunResult:
        """Deploy, run, and collect: until every sample has ended, a live run until :meth:`stop`.

        Raises
        ------
        ExecuteError
            An agent could not make ready; or this host is slower than a worker it plays.
        """
        return RunController(self._members, deployment, observer or Observer()).run(ready_timeout_s)

    def stop(self) -> None:
        """End a live run; called in any thread."""
        self._members.stop()
