"""The coordinator, which runs deployments on agents, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.membership import Membership, Switchboard
from planner.execution.coordinator.phase import RunState
from planner.execution.coordinator.run_controller import run_controlled
from planner.execution.coordinator.run_result import Observer, RunResult
from planner.execution.wire.claims import Claims
from planner.execution.wire.transport import Connect

READY_TIMEOUT_S: Final = 120.0
"""Default time limit for agents to load their blocks; some execution providers compile a block for minutes."""


_FIND_S: Final = 15.0
"""Time within which further agents must connect."""


class Coordinator:
    """Runs deployments on agents; use it as a context manager.

    Parameters
    ----------
    connect
        Opens the transport; or the membership to use, of one that is open.
    share
        The share of each agent that is enough, beside other coordinators that hold shares; None to hold agents alone.
    take_over
        Whether to take agents that another coordinator holds; its run then ends.
    """

    def __init__(self, connect: Connect | Membership, *, share: float | None = None, take_over: bool = False) -> None:
        self._members = connect if isinstance(connect, Membership) else Membership(Switchboard(connect))
        self._claims = Claims(self._members.send, share=share, take_over=take_over)
        self.start_agents: Callable[[Coordinator, Sequence[str]], None] = _await_them
        """``start_agents(coordinator, names)`` returns once these further agents are connected."""

    def another(self) -> Coordinator:
        """Return a coordinator with the same connection, for a run beside this one's; may be called in any thread.

        The connection is closed by the last one of them.
        """
        other = Coordinator(self._members.another())
        other._claims = self._claims.another()
        other.start_agents = self.start_agents
        return other

    def find_agents(self, names: Sequence[str]) -> None:
        """Wait until all these agents are connected; those that are not are started if this coordinator can do so.

        Raises
        ------
        ExecuteError
            If some do not connect in time.
        """
        missing = self.absent(names)
        if missing:
            self.start_agents(self, missing)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Receive nothing more; the connection ends with the last coordinator that uses it (:meth:`another`)."""
        self._members.close()

    def await_agents(self, names: Sequence[str], timeout_s: float, expected: str = "running agents") -> None:
        """Wait until all these agents are connected; ``expected`` tells what to do where some are not.

        Raises
        ------
        ExecuteError
            If some do not connect in time.
        """
        self._members.wait_for(names, timeout_s, expected)

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
        TakenOverError
            If another coordinator takes over one of the agents.
        ExecuteError
            If another coordinator holds an agent, an agent does not become ready, or this host is slower than a worker
            that it emulates.
        """
        state = RunState(self._members, self._claims, deployment, observer or Observer(), ready_timeout_s)
        return run_controlled(state)

    def stop(self) -> None:
        """End a live run, and wait for the reports of its agents; may be called in any thread."""
        self._members.stop()

    def abandon(self) -> None:
        """End a run at once, whatever it does, without its reports; may be called in any thread."""
        self._members.abandon()


def _await_them(coordinator: Coordinator, names: Sequence[str]) -> None:
    coordinator.await_agents(names, _FIND_S)
