from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.scenario.instance import NetworkPath
from planner.scenario.paths import REFERENCE_BYTES, find_paths
from planner.scenario.types import ModelSpec, NetworkSpec, ScenarioSpec, SourceSpec, WorkerSpec

MBIT = 125_000.0


def scenario(workers: str, **networks: NetworkSpec) -> ScenarioSpec:
    """A scenario whose workers are the letters of ``workers``."""
    return ScenarioSpec(
        models={"m": ModelSpec(profile="m")},
        workers={name: WorkerSpec(device_class="x", memory_bytes=2.0**30) for name in workers},
        networks=networks,
        sources={"s": SourceSpec(worker=workers[0], models=("m",), rate_per_s=1.0)},
    )


def shared(members: str, mbit_per_s: float = 10.0, latency_s: float = 0.0) -> NetworkSpec:
    return NetworkSpec(
        kind="shared", members=tuple(members), bandwidth_bytes_per_s=mbit_per_s * MBIT, latency_s=latency_s
    )


def links(*pairs: str, mbit_per_s: float = 10.0, latency_s: float = 0.0) -> NetworkSpec:
    return NetworkSpec(
        kind="point-to-point",
        links=tuple((pair[0], pair[1]) for pair in pairs),
        bandwidth_bytes_per_s=mbit_per_s * MBIT,
        latency_s=latency_s,
    )


def route(path: NetworkPath) -> list[str]:
    return [path.hops[0].sender, *(hop.receiver for hop in path.hops)]


def test_members_of_a_shared_network_reach_each_other_directly() -> None:
    paths = find_paths(scenario("abc", wifi=shared("abc", latency_s=0.003)))
    assert {sender: set(reached) for sender, reached in paths.items()} == {"a": {*"bc"}, "b": {*"ac"}, "c": {*"ab"}}
    (hop,) = paths["a"]["c"].hops
    assert (hop.resource, hop.bytes_per_s, hop.latency_s) == ("wifi", 10 * MBIT, 0.003)


def test_a_link_has_a_resource_for_each_direction() -> None:
    paths = find_paths(scenario("ab", wire=links("ab")))
    assert paths["a"]["b"].hops[0].resource == "wire:a>b"
    assert paths["b"]["a"].hops[0].resource == "wire:b>a"


def test_an_access_point_halves_the_bandwidth() -> None:
    network = shared("ab").model_copy(update={"relay": "access-point"})
    path = find_paths(scenario("ab", wifi=network))["a"]["b"]
    assert path.hops[0].bytes_per_s == 5 * MBIT
    assert path.transfer_s(5 * MBIT) == pytest.approx(1.0)


def test_the_faster_of_two_direct_ways_is_taken() -> None:
    paths = find_paths(scenario("ab", slow=shared("ab", 10.0), fast=links("ab", mbit_per_s=20.0)))
    assert paths["a"]["b"].hops[0].resource == "fast:a>b"
    # A latency of ten seconds outweighs the bandwidth at the reference size.
    paths = find_paths(scenario("ab", slow=shared("ab", 10.0), fast=links("ab", mbit_per_s=20.0, latency_s=10.0)))
    assert paths["a"]["b"].hops[0].resource == "slow"


def test_a_slow_direct_link_is_preferred_to_a_fast_detour() -> None:
    paths = find_paths(scenario("abc", direct=links("ac", mbit_per_s=0.1), detour=links("ab", "bc", mbit_per_s=1000)))
    assert route(paths["a"]["c"]) == ["a", "c"]


def test_the_fastest_of_the_shortest_ways_is_taken() -> None:
    paths = find_paths(
        scenario("abcd", slow=links("ab", "bd"), fast=links("ac", mbit_per_s=20), last=links("cd", mbit_per_s=10))
    )
    assert route(paths["a"]["d"]) == ["a", "c", "d"]
    assert route(paths["d"]["a"]) == ["d", "c", "a"]


def test_what_cannot_be_reached_is_absent() -> None:
    paths = find_paths(scenario("abc", wifi=shared("ab")))
    assert paths == {"a": {"b": paths["a"]["b"]}, "b": {"a": paths["b"]["a"]}, "c": {}}
    assert find_paths(scenario("a")) == {"a": {}}


NAMES = "abcdef"
PAIRS = ["".join(pair) for pair in itertools.combinations(NAMES, 2)]


@given(
    st.lists(st.tuples(st.sampled_from(PAIRS), st.floats(0.1, 1000.0), st.floats(0.0, 1.0)), max_size=12),
)
def test_paths_are_the_best_of_all(wires: list[tuple[str, float, float]]) -> None:
    networks = {
        f"n{index}": links(pair, mbit_per_s=mbit_per_s, latency_s=latency_s)
        for index, (pair, mbit_per_s, latency_s) in enumerate(wires)
    }
    paths = find_paths(scenario(NAMES, **networks))
    costs = best_costs(wires)
    for sender, receiver in itertools.permutations(NAMES, 2):
        path = paths[sender].get(receiver)
        if path is None:
            assert (sender, receiver) not in costs
            continue
        assert (route(path)[0], route(path)[-1]) == (sender, receiver)
        hops, time_s = costs[sender, receiver]
        assert len(path.hops) == hops
        assert path.transfer_s(REFERENCE_BYTES) == pytest.approx(time_s)


def best_costs(wires: list[tuple[str, float, float]]) -> dict[tuple[str, str], tuple[int, float]]:
    """Fewest hops, then least time, by relaxing until nothing changes (Bellman and Ford)."""
    edges: dict[tuple[str, str], float] = {}
    for pair, mbit_per_s, latency_s in wires:
        time_s = REFERENCE_BYTES / (mbit_per_s * MBIT) + latency_s
        for way in (tuple(pair), tuple(reversed(pair))):
            edges[way[0], way[1]] = min(time_s, edges.get((way[0], way[1]), float("inf")))
    best = {(name, name): (0, 0.0) for name in NAMES}
    for _ in NAMES:
        for (a, b), time_s in edges.items():
            for start in NAMES:
                if (start, a) in best:
                    hops, so_far_s = best[start, a]
                    best[start, b] = min(best.get((start, b), (99, 0.0)), (hops + 1, so_far_s + time_s))
    return {pair: cost for pair, cost in best.items() if pair[0] != pair[1]}
