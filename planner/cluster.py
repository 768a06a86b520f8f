"""Work on an existing Dask cluster, through joblib."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from planner.errors import PlannerError, UsageError
from planner.version import installation

CONNECT_LIMIT_S: Final = 10.0
"""How long to wait for a scheduler, and then for its first worker."""

_R = TypeVar("_R")


@contextmanager
def dask_client(address: str, error: type[PlannerError] = UsageError) -> Iterator[Any]:
    """Return a client of the cluster whose scheduler has this address, until it is left.

    Parameters
    ----------
    error
        Raised where Dask is not installed, no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError as missing:
        raise error("Dask is not installed", where="dask", value=address, expected=installation("dask")) from missing
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # failures are reported once, as errors
    try:
        # A client that cannot connect leaves sockets and threads behind, so something must listen there.
        socket.create_connection(get_address_host_port(address), CONNECT_LIMIT_S).close()
        client = Client(address, timeout=CONNECT_LIMIT_S, set_as_default=False)
    except (OSError, OverflowError, TypeError, ValueError) as refusal:
        raise error("no Dask scheduler answers", where="dask", value=address, expected="tcp://HOST:PORT") from refusal
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_LIMIT_S)
        except (TimeoutError, asyncio.TimeoutError) as late:  # two classes before Python 3.11
            raise error(
                "the Dask scheduler has no workers", where="dask", value=address, expected=f"dask worker {address}"
            ) from late
        yield client


@contextmanager
def cluster_errors(error: type[PlannerError] = UsageError) -> Iterator[None]:
    """Turn a failure of the cluster into an ``error``; those of the work itself, about a user's input, stay."""
    try:
        yield
    except PlannerError:
        raise
    except Exception as failure:
        raise error("the Dask cluster failed", where="dask", value=f"{type(failure).__name__}: {failure}") from failure


def on_cluster(
    address: str, work: Callable[..., _R], cases: Iterable[tuple[Any, ...]], shared: Sequence[Any] = ()
) -> list[_R]:
    """Call ``work(*case)`` for each case on a cluster; return the results in the order of the cases.

    Parameters
    ----------
    work
        A function of a module that the cluster's workers have in the same version.
    shared
        Large arguments that all cases have in common, which are sent to each worker once.

    Raises
    ------
    UsageError
        Dask is not installed, no scheduler answers, it has no workers, or it failed.
    PlannerError
        As ``work`` raises it.
    """
    with dask_client(address) as client, cluster_errors():
        from joblib import Parallel, delayed, parallel_config

        with parallel_config(backend="dask", client=client, scatter=list(shared), n_jobs=-1):
            parallel = Parallel(batch_size=1)
        results: list[_R] = parallel(delayed(work)(*case) for case in cases)
        return results
