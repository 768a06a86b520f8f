"""Connection to agents that already run, on other devices or here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from planner.errors import ExecuteError, UsageError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect

_PATIENCE_S: Final = 15.0


@contextmanager
def remote_agents(
    names: Sequence[str],
    addresses: Sequence[str],
    *,
    cert_dir: Path | None = None,
    insecure: bool = False,
    share: float | None = None,
    take_over: bool = False,
) -> Iterator[Coordinator]:
    """Return a coordinator that has found the agents with these names.

    Parameters
    ----------
    addresses
        ``HOST:PORT`` of at least one agent; the others are found through it.
    cert_dir, insecure
        As for :func:`~planner.execution.wire.zenoh.zenoh_connect`.
    share, take_over
        As for :class:`~planner.execution.coordinator.coordinator.Coordinator`.

    Raises
    ------
    ExecuteError
        If an address is malformed, or not on the loopback interface and used without certificates, or if an agent does
        not connect.
    """
    connect = zenoh_connect(COORDINATOR, listen=None, connect=addresses, cert_dir=cert_dir, insecure=insecure)
    with Coordinator(connect, share=share, take_over=take_over) as coordinator:
        coordinator.await_agents(names, _PATIENCE_S, "running agents; --later WORKER (later=[...]) starts without one")
        yield coordinator


def check_share(share: float | None, addresses: Sequence[str]) -> None:
    """Check a share of agents.

    Raises
    ------
    UsageError
        If it is no share, or no addresses are given: agents that are started on this machine belong to one run.
    """
    if share is None:
        return
    if not 0 < share <= 1:
        raise UsageError(
            "not a share of the agents", where="--share", value=share, expected="more than 0, at most 1 (100 %)"
        )
    if not addresses:
        raise UsageError(
            "only running agents can be shared", where="--share", value=share, expected="--connect HOST:PORT"
        )


def there_at_first(workers: Sequence[str], later: Collection[str], addresses: Sequence[str]) -> list[str]:
    """Return the workers that must be connected when a run starts: all except those that may connect later.

    Raises
    ------
    ExecuteError
        If one of ``later`` is not a worker, or no addresses are given: agents on this machine start together.
    """
    for worker in later:
        if worker not in workers:
            raise ExecuteError("unknown worker", where="later", value=worker, expected=" | ".join(workers))
        if not addresses:
            raise ExecuteError(
                "only running agents can connect later", where="later", value=worker, expected="--connect"
            )
    return [worker for worker in workers if worker not in later]
