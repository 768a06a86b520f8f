"""Sites: groups of workers whose paths to all others lead through one of them, their gateway.

Between two sites a path is that from its sender to the gateway, that between the gateways, and that from the other
gateway to its receiver. Prices of D² paths are then sums of few, which :mod:`planner.solvers.routes.site_pricing` uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.intp]

MIN_WORKERS = 48
"""With fewer workers the search for sites is not worth it."""
LEAST_SAVING = 4
"""Least factor by which sites reduce the number of moves that are looked at."""


@dataclass(frozen=True)
class Sites:
    """S sites of up to n workers, which have a slot each.

    Parameters
    ----------
    members
        Workers of each site, the gateway first, padded with the gateway; shape [S, n].
    holds
        Whether a slot holds a worker; shape [S, n].
    of_worker, slot_of_worker
        Site and slot of each worker; shape [D] each.
    """

    members: Integers
    holds: NDArray[np.bool_]
    of_worker: Integers
    slot_of_worker: Integers
    of_hop: Integers
    """Resources of paths within sites, and their sites; shape [2, h]."""

    @classmethod
    def of(cls, hop_resource: Integers, hop_s_per_byte: Array, latency_s: Array) -> Sites | None:
        """Return the sites of workers with these paths, or None if they form none that make pricing faster.

        Parameters
        ----------
        hop_resource, hop_s_per_byte, latency_s
            As in a :class:`~planner.solvers.core.problem.Problem`.
        """
        count = len(latency_s)
        if count < MIN_WORKERS:
            return None
        gateway = _gateways(hop_resource, hop_s_per_byte, latency_s)
        roots, of_worker, sizes = np.unique(gateway, return_inverse=True, return_counts=True)
        largest = int(sizes.max())
        if LEAST_SAVING * (len(roots) * largest**2 + len(roots) ** 2) > count**2:
            return None
        members = np.repeat(roots[:, None], largest, axis=1)
        holds = np.zeros(members.shape, dtype=bool)
        slot_of_worker = np.zeros(count, dtype=np.intp)
        for site, root in enumerate(roots.tolist()):
            workers = [root, *(worker for worker in np.flatnonzero(gateway == root).tolist() if worker != root)]
            members[site, : len(workers)] = workers
            holds[site, : len(workers)] = True
            slot_of_worker[workers] = np.arange(len(workers))
        senders, receivers = members[:, :, None], members[:, None, :]
        used = hop_s_per_byte[senders, receivers] > 0
        of_hop = np.stack([hop_resource[senders, receivers][used], np.nonzero(used)[0]])
        return cls(members, holds, of_worker, slot_of_worker, np.unique(of_hop, axis=1))

    def of_resource(self, count: int) -> Integers:
        """Return the site of each of ``count`` resources, or S for those between sites."""
        site = np.full(count, len(self.members))
        site[: len(self.of_worker)] = self.of_worker
        site[self.of_hop[0]] = self.of_hop[1]
        return site


def _gateways(hop_resource: Integers, hop_s_per_byte: Array, latency_s: Array) -> Integers:
    """Return the gateway of each worker; shape [D]. A worker that has none is its own.

    Two paths occupy the same resources for the same times if they cost the same at random prices of the resources.
    """
    everyone = np.arange(len(latency_s))
    price = np.random.default_rng(0).uniform(1.0, 2.0, int(hop_resource.max()) + 1)
    per_byte = (hop_s_per_byte * price[hop_resource]).sum(axis=2)
    length = np.where(np.isfinite(latency_s), per_byte, np.inf)
    hops = (hop_s_per_byte > 0).sum(axis=2)
    gateway = everyone.copy()
    for worker in np.flatnonzero((hops > 1).any(axis=1)).tolist():
        far, near = np.flatnonzero(hops[worker] > 1), np.flatnonzero(hops[worker] == 1)
        relays = _same(length[worker, near][:, None] + length[np.ix_(near, far)], length[worker, far]).all(axis=1)
        if relays.any():
            gateway[worker] = near[relays.argmax()]
    gateway[gateway[gateway != everyone]] = gateway[gateway != everyone]
    apart = gateway[:, None] != gateway
    for cost in (length, latency_s):
        through = cost[everyone, gateway][:, None] + cost[np.ix_(gateway, gateway)] + cost[gateway, everyone]
        if (apart & ~_same(through, cost)).any():
            return everyone
    return gateway


def _same(one: Array, other: Array) -> NDArray[np.bool_]:
    return np.isclose(one, other, rtol=1e-9, atol=0.0)
