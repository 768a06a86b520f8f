"""Agents that run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from planner.execute.coordinator import Coordinator
from planner.execute.messages import COORDINATOR
from planner.execute.wire import zenoh_connect

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
        As for :func:`~planner.execute.wire.zenoh_connect`.

    Raises
    ------
    ExecuteError
        An address is malformed, or off the loopback interface without certificates; or an agent did not come.
    """
    connect = zenoh_connect(COORDINATOR, listen=None, connect=addresses, cert_dir=cert_dir, insecure=insecure)
    with Coordinator(connect) as coordinator:
        coordinator.await_agents(names, _PATIENCE_S)
        yield coordinator
