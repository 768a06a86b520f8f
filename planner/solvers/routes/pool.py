"""Pricing by site in parallel: in threads of this process, or on a Dask cluster through joblib.

Sources whose samples arrive at the same site are priced together. numpy releases Python's lock in the large operations
of :mod:`planner.solvers.routes.site_pricing`, so threads of one process run at the same time; without sites, operations
are small, and threads would only wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from planner.cluster import cluster_errors, dask_client
from planner.errors import SolveError
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.pricing import Priced, cheapest_routes


class PricingPool:
    """Prices the routes of all sources in several parts at the same time.

    Parameters
    ----------
    threads
        Number of threads of this process.
    client
        A Dask client, whose cluster is used instead.
    """

    def __init__(self, threads: int = 1, client: Any = None) -> None:
        self._threads, self._client = threads, client
        self._problem: Problem | None = None
        self._parallel: Any = None

    @property
    def parts(self) -> int:
        """Number of parts that are priced at the same time."""
        return self._threads if self._client is None else len(self._client.scheduler_info(n_workers=-1)["workers"])

    def cheapest_routes(self, problem: Problem, prices: Prices, near: Mapping[int, Choice]) -> list[Priced]:
        """Return each source's cheapest route, as :func:`~planner.solvers.routes.pricing.cheapest_routes` does.

        Raises
        ------
        SolveError
            The Dask cluster failed.
        """
        if self._client is None and (self._threads == 1 or problem.sites is None):
            return cheapest_routes(problem, prices, near)
        parts = _parts(problem, max(self.parts, 1))
        routes = self._run(problem, prices, near, parts)
        priced: dict[int, Priced] = {}
        for sources, found in zip(parts, routes, strict=True):
            priced.update(zip(sources, found, strict=True))
        return [priced[source] for source in range(len(problem.demands))]

    def _run(
        self, problem: Problem, prices: Prices, near: Mapping[int, Choice], parts: list[list[int]]
    ) -> list[list[Priced]]:
        from joblib import Parallel, delayed, parallel_config

        if problem is not self._problem:
            keys: dict[str, Any] = {"backend": "threading", "n_jobs": self._threads}
            if self._client is not None:
                # The problem is sent once; each round sends prices only.
                keys = {"backend": "dask", "client": self._client, "scatter": [problem], "n_jobs": -1}
            with cluster_errors(SolveError), parallel_config(**keys):
                self._parallel = Parallel(batch_size=1)
            self._problem = problem
        # In this process there is no cluster to blame.
        with cluster_errors(SolveError) if self._client is not None else nullcontext():
            found: list[list[Priced]] = self._parallel(
                delayed(cheapest_routes)(
                    problem, prices, {source: near[source] for source in sources if source in near}, sources
                )
                for sources in parts
            )
        return found


@contextmanager
def pricing_pool(threads: int, dask: str | None) -> Iterator[PricingPool]:
    """Return a pool of ``threads``, or of the cluster whose scheduler has the address ``dask``, until it is left.

    Raises
    ------
    SolveError
        Dask is not installed, no scheduler answers, or it has no workers.
    """
    if dask is None:
        yield PricingPool(threads)
        return
    with dask_client(dask, SolveError) as client:
        yield PricingPool(client=client)


def _parts(problem: Problem, count: int) -> list[list[int]]:
    """Return all sources in up to ``count`` parts of about equal size, those of a site together."""
    homes = np.array([demand.home for demand in problem.demands])
    site = homes if problem.sites is None else problem.sites.of_worker[homes]
    parts: list[list[int]] = [[] for _ in range(count)]
    names, sizes = np.unique(site, return_counts=True)
    for name in names[np.argsort(-sizes, kind="stable")].tolist():
        min(parts, key=len).extend(np.flatnonzero(site == name).tolist())
    return [part for part in parts if part]
