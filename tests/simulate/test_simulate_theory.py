"""The simulator against queueing formulas, with tolerances from the spread over replications."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from planner.plan.types import Plan, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.simulate.run import simulate
from planner.trace.records import BlockRecord, Record, SampleRecord
from tests.instances import make_instance, make_profile

REPLICATIONS = 8


def one_stage_plan(instance: Instance, worker: str = "slow") -> Plan:
    sources = {}
    for source in instance.sources:
        model = instance.scenario.sources[source].models[0]
        last = instance.length(model) - 1
        route = Route(model=model, stages=(Stage(worker=worker, first_block=0, last_block=last),))
        sources[source] = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return Plan(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources=sources, workers={}, networks={},
    )  # fmt: skip


def mean_delays(instance: Instance, policy: str) -> dict[str, tuple[float, float]]:
    """Mean delay of each source over independent replications, and the standard error of that mean."""
    means = defaultdict(list)
    for seed in range(REPLICATIONS):
        records, _ = simulate(instance, policy=policy, plan=one_stage_plan(instance), seed=seed)
        for source in instance.sources:
            ended = [r.delay_s for r in records if isinstance(r, SampleRecord) and r.source == source]
            means[source].append(np.mean(ended))
    return {
        source: (float(np.mean(found)), float(np.std(found, ddof=1) / REPLICATIONS**0.5))
        for source, found in means.items()
    }


def assert_agrees(measured: tuple[float, float], formula: float) -> None:
    mean, error = measured
    assert abs(mean - formula) <= 4 * error, f"{mean} +- {error} against {formula}"
    assert error < 0.1 * formula, "too few samples to tell"


def test_local_is_an_m_d_1_queue() -> None:
    service_s, rho = 0.02, 0.7
    instance = make_instance(
        profiles=[make_profile(block_s=[service_s / 2] * 2)],
        sources={"camera": {"rate_per_s": rho / service_s, "samples": 4000}},
    )
    waiting_s = rho * service_s / (2 * (1 - rho))  # Pollaczek-Khinchine with constant service times
    assert_agrees(mean_delays(instance, "local")["camera"], waiting_s + service_s)


def test_planned_is_a_non_preemptive_priority_queue() -> None:
    """Cobham's formula, with tasks of one block, so that looking between blocks makes no difference."""
    short_s, long_s = 0.01, 0.03
    rates = {"urgent": 25.0, "other": 15.0}
    instance = make_instance(
        profiles=[make_profile("short", block_s=[short_s]), make_profile("long", block_s=[long_s])],
        sources={
            "urgent": {"models": ["short"], "rate_per_s": rates["urgent"], "priority": 5.0, "samples": 5000},
            "other": {"models": ["long"], "rate_per_s": rates["other"], "priority": 1.0, "samples": 3000},
        },
    )
    residual_s = (rates["urgent"] * short_s**2 + rates["other"] * long_s**2) / 2
    load = rates["urgent"] * short_s
    total = load + rates["other"] * long_s
    found = mean_delays(instance, "planned")
    assert_agrees(found["urgent"], residual_s / (1 - load) + short_s)
    assert_agrees(found["other"], residual_s / ((1 - load) * (1 - total)) + long_s)


def test_a_saturated_pipeline_runs_at_its_bottleneck() -> None:
    """A batch through two stages: the fill of the pipeline, then one sample every bottleneck time."""
    blocks, samples = [0.02, 0.05], 200
    instance = make_instance(
        profiles=[make_profile(block_s=blocks, cut_bytes=[1000, 500, 100])],
        workers={"slow": 1.0, "fast": 1.0},
        sources={"camera": {"arrivals": "batch", "samples": samples}},
    )
    stages = (Stage(worker="slow", first_block=0, last_block=0), Stage(worker="fast", first_block=1, last_block=1))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=stages),))
    plan = one_stage_plan(instance).model_copy(update={"sources": {"camera": own}})
    records, outcome = simulate(instance, policy="planned", plan=plan)
    path = instance.path("slow", "fast")
    assert path is not None
    expected_s = blocks[0] + path.transfer_s(500) + samples * blocks[1] + path.transfer_s(100)
    assert outcome.end_s == pytest.approx(expected_s, rel=1e-9)
    assert sum(isinstance(record, BlockRecord) for record in records) == 2 * samples


def test_littles_law_holds_in_a_run() -> None:
    instance = make_instance(sources={"camera": {"rate_per_s": 30.0, "samples": 500}})
    records, _ = simulate(instance, policy="local", seed=5)
    samples = [record for record in records if isinstance(record, SampleRecord)]
    end_s = max(record.finished_s for record in samples)
    grid = np.linspace(0.0, end_s, 200_001)
    created = np.sort([record.created_s for record in samples])
    finished = np.sort([record.finished_s for record in samples])
    inside = np.searchsorted(created, grid, side="right") - np.searchsorted(finished, grid, side="right")
    mean_delay_s = np.mean([record.delay_s for record in samples])
    assert inside.mean() == pytest.approx(len(samples) / end_s * mean_delay_s, rel=1e-3)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    instance = make_instance(sources={"camera": {"rate_per_s": 20.0, "samples": 200}})

    def run(seed: int) -> list[Record]:
        return simulate(instance, policy="planned", plan=one_stage_plan(instance, "fast"), seed=seed)[0]

    assert run(1) == run(1)
    assert run(1) != run(2)
