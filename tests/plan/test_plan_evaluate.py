from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest

from planner.errors import PlanError
from planner.plan.evaluate import alone_at_home, evaluate, legs
from planner.plan.journey import FRAGMENT_BYTES, journey
from planner.plan.memory import memory_bytes
from planner.plan.types import Route, Stage
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from tests.instances import MIB, make_instance, make_profile, random_instance


def route(*stages: tuple[str, int, int], model: str = "m", point: int = 0, share: float = 1.0) -> Route:
    return Route(
        share=share,
        model=model,
        operating_point=point,
        stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
    )


def simulate_priority(
    kinds: list[tuple[float, int, list[float]]], *, samples: int, seed: int, spread: bool = False
) -> list[float]:
    """Mean delay of each kind (rate, level, pieces) at one server that looks at its queue between pieces.

    Started visits keep their place before later ones of their class. ``spread``: pieces are exponential.
    """
    random = np.random.default_rng(seed)
    end_s = samples / sum(rate for rate, _, _ in kinds)
    arrivals = sorted(
        (float(time_s), kind)
        for kind, (rate, _, _) in enumerate(kinds)
        for time_s in np.cumsum(random.exponential(1 / rate, size=int(end_s * rate)))
    )
    order = itertools.count()
    queue: list[tuple[int, int, int, float, list[float]]] = []
    delays: list[list[float]] = [[] for _ in kinds]
    now_s, index = 0.0, 0
    while index < len(arrivals) or queue:
        while index < len(arrivals) and (arrivals[index][0] <= now_s or not queue):
            time_s, kind = arrivals[index]
            pieces = [random.exponential(piece) if spread else piece for piece in kinds[kind][2]]
            now_s = max(now_s, time_s)
            heapq.heappush(queue, (kinds[kind][1], next(order), kind, time_s, pieces))
            index += 1
        level, ticket, kind, since_s, left = heapq.heappop(queue)
        now_s += left[0]
        if left[1:]:
            heapq.heappush(queue, (level, ticket, kind, since_s, left[1:]))
        else:
            delays[kind].append(now_s - since_s)
    return [float(np.mean(own)) for own in delays]


def test_a_rare_long_class_among_short_ones() -> None:
    """An urgent rare visit of ten long blocks, and frequent short unimportant ones."""
    profiles = [make_profile("long", block_s=[0.02] * 10), make_profile("short", block_s=[0.005, 0.005])]
    instance = make_instance(
        profiles=profiles,
        workers={"one": 1.0},
        networks={},
        sources={
            "urgent": {"models": ["short"], "rate_per_s": 20.0, "priority": 8.0},
            "rare": {"models": ["long"], "rate_per_s": 1.5, "priority": 2.0},
            "bulk": {"models": ["short"], "rate_per_s": 10.0, "priority": 1.0},
        },
    )
    found = evaluate(
        instance,
        {
            "urgent": [route(("one", 0, 1), model="short")],
            "rare": [route(("one", 0, 9), model="long")],
            "bulk": [route(("one", 0, 1), model="short")],
        },
    )
    simulated = simulate_priority(
        [(20.0, 0, [0.005, 0.005]), (1.5, 1, [0.02] * 10), (10.0, 2, [0.005, 0.005])], samples=300_000, seed=3
    )
    delays = [found.sources[name].delay_s for name in ("urgent", "rare", "bulk")]
    assert delays == pytest.approx(simulated, rel=0.06)


def test_spread_of_block_times_counts() -> None:
    instance = make_instance(
        profiles=[make_profile(block_s=[0.05], std_s=0.05)],
        workers={"one": 1.0},
        networks={},
        sources={"camera": {"rate_per_s": 10.0}},
    )
    found = evaluate(instance, {"camera": [route(("one", 0, 0))]})
    assert found.sources["camera"].delay_s == pytest.approx(0.05 / (1 - 0.5))  # M/M/1
    assert found.sources["camera"].surrogate_delay_s == pytest.approx(0.05 / (1 - 0.5))


def test_a_sample_pays_transfers_latency_overhead_and_exits() -> None:
    """By hand: out with the input, two blocks of which 30 % of samples skip the second, home with results."""
    points = [OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.7))]
    exits = [ExitPoint(name="e", cut=1, result_bytes=1000)]
    profile = make_profile(
        block_s=[0.04, 0.08],
        cut_bytes=[200_000, 100_000, 4000],
        stage_overhead_s=0.002,
        exits=exits,
        operating_points=points,
    )
    instance = make_instance(profiles=[profile], sources={"camera": {"rate_per_s": 1.0}})
    trip = journey(instance, "camera", route(("fast", 0, 1)))
    work_s = (0.002 + 0.04 + 0.7 * 0.08) / 4
    sent_s = 200_000 / 1e7 + 0.3 * 1000 / 1e7 + 0.7 * 4000 / 1e7
    assert trip.latency_s == pytest.approx(0.001 * (1 + 0.3 + 0.7))
    assert trip.unloaded_s == pytest.approx(work_s + sent_s + trip.latency_s)
    found = evaluate(instance, {"camera": [route(("fast", 0, 1))]})
    assert found.workers["fast"].utilisation == pytest.approx(work_s)
    assert found.networks["wifi"].utilisation == pytest.approx(sent_s)
    assert found.sources["camera"].accuracy == pytest.approx(0.9)


def test_transfers_go_in_fragments() -> None:
    instance = make_instance()
    trip = journey(instance, "camera", route(("fast", 0, 1)))
    wires = [visit for visit in trip.visits if visit.resource == "wifi"]
    assert [len(visit.piece_s) for visit in wires] == [2, 1]
    assert wires[0].piece_s[0] == pytest.approx(FRAGMENT_BYTES / 1e7)


def test_a_block_resides_once_whoever_uses_it() -> None:
    sources = {"a": {"rate_per_s": 1.0}, "b": {"rate_per_s": 1.0}}
    profile = make_profile(weight_bytes=[10, 20], activation_bytes=[5, 3])
    instance = make_instance(profiles=[profile], sources=sources)
    used = memory_bytes(instance, {"a": [route(("slow", 0, 1))], "b": [route(("slow", 0, 0), ("fast", 1, 1))]})
    assert used == {"slow": 200 * MIB + 30 + 5, "fast": 200 * MIB + 20 + 3}


def test_overload_waits_for_ever_and_throughput_counts_what_can_be_sustained() -> None:
    routes = {"camera": [route(("slow", 0, 1))]}
    rate = {"camera": {"rate_per_s": 100.0}}
    assert np.isinf(evaluate(make_instance(sources=rate), routes).sources["camera"].delay_s)
    throughput = evaluate(make_instance(sources=rate, objective=ObjectiveSpec(goal="throughput")), routes)
    assert throughput.objective == pytest.approx(2.0)
    assert np.isfinite(throughput.sources["camera"].delay_s)


def test_makespan_is_the_busiest_resource_and_the_longest_route() -> None:
    instance = make_instance(
        sources={"camera": {"arrivals": "batch", "samples": 10}}, objective=ObjectiveSpec(goal="makespan")
    )
    assert evaluate(instance, {"camera": [route(("slow", 0, 1))]}).objective == pytest.approx(10 * 0.02 + 0.02)


def test_a_trace_gives_the_rate_and_a_missing_rate_is_an_error() -> None:
    batch = make_instance(sources={"camera": {"arrivals": "batch"}})
    with pytest.raises(PlanError, match=r"sources\.camera\.rate"):
        evaluate(batch, {"camera": [route(("slow", 0, 1))]})
    traced = batch.model_copy(update={"traces": {"camera": (0.0, 0.5, 1.0)}})
    assert evaluate(traced, {"camera": [route(("slow", 0, 1))]}).workers["slow"].utilisation == pytest.approx(0.04)


def test_a_relay_takes_the_medium_twice() -> None:
    wired = {
        "wifi": NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=1e7, relay="access-point")
    }
    found = evaluate(make_instance(networks=wired), {"camera": [route(("fast", 0, 1))]})
    assert found.networks["wifi"].utilisation == pytest.approx(5 * (100_000 + 4000) * 2 / 1e7)


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
@pytest.mark.parametrize("links", [True, False])
def test_legs_add_up_to_the_delay(goal: str, *, links: bool) -> None:
    for seed in range(5):
        instance = random_instance(seed, goal=goal, links=links)
        workers = instance.workers
        routes = {
            source: [
                route((workers[index % 3], 0, 1), (workers[seed % 3], 2, 3), model=f"m{index}", share=0.75),
                route((workers[(seed + 1) % 3], 0, 3), model=f"m{index}", share=0.25),
            ]
            for index, source in enumerate(instance.sources)
        }
        found = legs(instance, routes)
        for source, own in evaluate(instance, routes).sources.items():
            means_s = [sum(leg.wait_s + leg.work_s for leg in one) for one in found[source]]
            assert 0.75 * means_s[0] + 0.25 * means_s[1] == pytest.approx(own.delay_s)
        waits_s = [leg.wait_s for own in found.values() for one in own for leg in one]
        assert any(waits_s) == (goal != "makespan")


def test_legs_are_in_the_order_of_the_way_and_count_who_comes_to_them() -> None:
    points = [OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.7))]
    exits = [ExitPoint(name="e", cut=1, result_bytes=1000)]
    profile = make_profile(
        block_s=[0.04, 0.08], cut_bytes=[200_000, 100_000, 4000], exits=exits, operating_points=points
    )
    instance = make_instance(profiles=[profile], sources={"camera": {"rate_per_s": 100.0}})
    (found,) = legs(instance, {"camera": [route(("slow", 0, 0), ("fast", 1, 1))]})["camera"]
    assert [(str(leg.site), leg.probability) for leg in found] == [
        ("slow: block 0", 1.0),
        ("wifi: cut 1", 0.7),
        ("fast: block 1", 0.7),
        ("wifi: cut 2", 0.7),
    ]
    assert found[2].work_s == pytest.approx(0.7 * 0.02)
    assert found[3].work_s == pytest.approx(0.7 * (4000 / 1e7 + 0.001))
    assert np.isinf(found[0].wait_s)  # four times what it can do
    assert found[0].work_s == pytest.approx(0.04)


def test_alone_at_home_there_is_nobody_else() -> None:
    sources = {"a": {"rate_per_s": 1.0}, "b": {"rate_per_s": 45.0, "priority": 8.0}}
    instance = make_instance(sources=sources)
    routes = {"a": [route(("fast", 0, 1))], "b": [route(("slow", 0, 1))]}
    assert evaluate(instance, routes).workers["slow"].utilisation == pytest.approx(0.9)
    found = alone_at_home(instance, "a", routes["a"][0])
    assert found.workers["slow"].utilisation == pytest.approx(0.02)
    assert found.workers["slow"].memory_bytes == 200 * MIB + 2_500_000
    assert (
        found.sources["a"].delay_s
        == evaluate(make_instance(sources={"a": sources["a"]}), {"a": [route(("slow", 0, 1))]}).sources["a"].delay_s
    )
