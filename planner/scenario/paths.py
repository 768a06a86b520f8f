"""The path from each worker to each other: a direct link, else the fewest hops, then the least time.

Among equally good ones, names decide, so that the order of workers and networks in a file has no influence.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations
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
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(sorted(scenario.workers))
    for hop in _hops(scenario):
        time_s = NetworkPath(hops=(hop,)).transfer_s(REFERENCE_BYTES)
        known = graph.get_edge_data(hop.sender, hop.receiver)
        if known is None or time_s < known["time_s"]:
            graph.add_edge(hop.sender, hop.receiver, hop=hop, time_s=time_s)
    paths: dict[str, dict[str, NetworkPath]] = {}
    for sender in scenario.workers:
        distance = networkx.single_source_shortest_path_length(graph, sender)
        # Only edges that lead one hop further away are on a path of fewest hops.
        onward: networkx.DiGraph[str] = networkx.DiGraph()
        onward.add_node(sender)
        onward.add_edges_from(
            (a, b, edge) for a in distance for b, edge in graph[a].items() if distance[b] == distance[a] + 1
        )
        routes = networkx.single_source_dijkstra_path(onward, sender, weight="time_s")
        paths[sender] = {
            receiver: NetworkPath(hops=tuple(graph.edges[pair]["hop"] for pair in pairwise(route)))
            for receiver, route in routes.items()
            if receiver != sender
        }
    return paths


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
