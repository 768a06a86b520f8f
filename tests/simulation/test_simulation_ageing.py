"""Ageing: who matters less waits for a bounded time, and not until everybody else is done."""

from __future__ import annotations

from collections import defaultdict

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import AdaptiveParameters
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, SampleRecord
from tests.instances import make_instance, make_profile

BLOCK_S = 0.02
LENGTH_S = 120.0
PRIORITIES = {"gate": 2.0, "yard": 1.0}
RATES_PER_S = {"gate": 51.0, "yard": 1.0}
"""The gate alone asks for 1.02 of what the worker can do."""


def crowded() -> tuple[Instance, PlanSpec]:
    sources = {
        name: {"rate_per_s": rate_per_s, "priority": PRIORITIES[name], "samples": round(rate_per_s * LENGTH_S)}
        for name, rate_per_s in RATES_PER_S.items()
    }
    spec = {name: {**keys, "arrivals": "constant", "worker": "box"} for name, keys in sources.items()}
    instance = make_instance(profiles=[make_profile(block_s=[BLOCK_S])], workers={"box": 1.0}, sources=spec)
    route = Route(model="m", stages=(Stage(worker="box", first_block=0, last_block=0),))
    own = SourcePlan(accuracy=1.0, delay_s=BLOCK_S, surrogate_delay_s=BLOCK_S, routes=(route,))
    plan = PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="estimated", sources=dict.fromkeys(PRIORITIES, own), workers={}, networks={},
    )  # fmt: skip
    return instance, plan


def waits_s(policy: str) -> dict[str, list[float]]:
    """How old each sample is when it is served, by source, in the order of service."""
    instance, plan = crowded()
    records, _ = simulate(instance, policy=policy, plan=plan, seed=0)
    created_s = {
        (record.source, record.sample): record.created_s for record in records if isinstance(record, SampleRecord)
    }
    waits: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if isinstance(record, BlockRecord):
            waits[record.source].append(record.start_s - created_s[record.source, record.sample])
    return waits


def test_low_priority_starves_by_priority_alone_and_its_wait_is_bounded_by_ageing() -> None:
    """A yard sample goes before gate samples of age w once it is (q/p − 1) A + w q/p old."""
    planned, adaptive = waits_s("planned"), waits_s("adaptive")
    ratio = PRIORITIES["gate"] / PRIORITIES["yard"]
    bound_s = (ratio - 1) * AdaptiveParameters().ageing_s + ratio * max(adaptive["gate"]) + BLOCK_S
    assert max(planned["yard"]) > LENGTH_S - 10 > 5 * bound_s
    assert max(adaptive["yard"]) <= bound_s
    assert len(adaptive["yard"]) == RATES_PER_S["yard"] * LENGTH_S


def test_the_price_is_small_for_those_that_matter() -> None:
    planned, adaptive = waits_s("planned"), waits_s("adaptive")
    extra_s = RATES_PER_S["yard"] * LENGTH_S * BLOCK_S
    assert max(adaptive["gate"]) <= max(planned["gate"]) + extra_s + 2 * BLOCK_S
    assert sum(map(sum, adaptive.values())) == pytest.approx(sum(map(sum, planned.values())), rel=0.01)
