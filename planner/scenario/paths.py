"""The path from each worker to each other: a direct link, else the fewest hops, then the least time.

Among equally good ones, names decide, so that the order of workers and networks in a file has no influence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Final

from planner.scenario.instance import Hop, NetworkPath
from planner.scenario.types import NetworkSpec, ScenarioSpec

REFERENCE_BYTES: Final = 2**20
"""Size of the transfer by whose time paths of equally many hops are compared."""


def find_paths(scenario: ScenarioSpec) -> dict[str, dict[str, NetworkPath]]:
    """Find the path between each two workers that networks join.

    Returns
    -------
    dict
        Maps sender, then receiver, to the path. Every worker is a sender; receivers that cannot be reached are absent.
    """
    nearby: dict[str, dict[str, tuple[float, Hop]]] = {worker: {} for worker in scenario.workers}
    for hop in _hops(scenario):
        time_s = NetworkPath(hops=(hop,)).transfer_s(REFERENCE_BYTES)
        known = nearby[hop.sender].get(hop.receiver)
        if known is None or time_s < known[0]:
            nearby[hop.sender][hop.receiver] = time_s, hop
    return {sender: _paths_from(sender, nearby) for sender in scenario.workers}


def _paths_from(sender: str, nearby: Mapping[str, Mapping[str, tuple[float, Hop]]]) -> dict[str, NetworkPath]:
    """Return the path from ``sender`` to each other worker, found one hop further at a time.

    Parameters
    ----------
    nearby
        By sender, then receiver, the time and the hop of the fastest direct transfer.
    """
    hops: dict[str, tuple[Hop, ...]] = {sender: ()}
    reached = [(0.0, sender)]
    while reached:
        further: dict[str, tuple[float, str]] = {}
        for so_far_s, relay in sorted(reached):
            for receiver in sorted(nearby[relay].keys() - hops.keys()):
                time_s = so_far_s + nearby[relay][receiver][0]
                if receiver not in further or time_s < further[receiver][0]:
                    further[receiver] = time_s, relay
        for receiver, (_, relay) in further.items():
            hops[receiver] = (*hops[relay], nearby[relay][receiver][1])
        reached = [(time_s, receiver) for receiver, (time_s, _) in further.items()]
    return {receiver: NetworkPath(hops=path) for receiver, path in hops.items() if receiver != sender}


def _hops(scenario: ScenarioSpec) -> Iterator[Hop]:
    """Yield all single hops, in the order of names, each direction separately."""
    for name, network in sorted(scenario.networks.items()):
        if network.kind == "shared":
            for sender, receiver in permutations(sorted(network.members), 2):
                yield _hop(network, sender, receiver, name)
        for pair in sorted((min(link), max(link)) for link in network.links):
            for sender, receiver in (pair, pair[::-1]):
                yield _hop(network, sender, receiver, f"{name}:{sender}>{receiver}")


def _hop(network: NetworkSpec, sender: str, receiver: str, resource: str) -> Hop:
    crossings = 2 if network.relay == "access-point" else 1
    return Hop(
        sender=sender,
        receiver=receiver,
        resource=resource,
        bytes_per_s=network.bandwidth_bytes_per_s / crossings,
        latency_s=network.latency_s,
    )
