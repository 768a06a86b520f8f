"""Agents that run elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect

_PATIENCE_S: Final = 15.0


@contextmanager
def remote_agents(
    names: Sequence[str], addresses: Sequence[str], *, cert_dir: Path | None = None, insecure: bool = False
) -> Iterator[Coordinator]:
    """Give a coordinator that has found the agents of these names.

    Parameters
    ----------
    addresses
        ``HOST:PORT`` of one agent or more; the others are found through them.
    cert_dir, insecure
        As for :func:`~planner.execution.wire.zenoh.zenoh_connect`.

    Raises
    ------
    ExecuteError
        An address is malformed, or off the loopback interface without certificates; or an agent did not come.
    """
    connect = zenoh_connect(COORDINATOR, listen=None, connect=addresses, cert_dir=cert_dir, insecure=insecure)
    with Coordinator(connect) as coordinator:
        coordinator.await_agents(names, _PATIENCE_S)
        yield coordinator


def there_at_first(workers: Sequence[str], later: Collection[str], addresses: Sequence[str]) -> list[str]:
    """Give the workers that must be there when a run starts: all but those that may come later.

    Raises
    ------
    ExecuteError
        One of those is no worker; or all agents are of this machine, where they are started together.
    """
    for worker in later:
        if worker not in workers:
            raise ExecuteError("no such worker", where="later", value=worker, expected=" | ".join(workers))
        if not addresses:
            raise ExecuteError("only agents elsewhere come later", where="later", value=worker, expected="--connect")
    return [worker for worker in workers if worker not in later]
