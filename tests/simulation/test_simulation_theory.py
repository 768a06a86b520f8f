"""The simulator against queueing formulas, with tolerances from the spread over replications."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from benchmarks.bench_simulate import tandem, tandem_in_simpy, tandem_plan
from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec
from planner.simulation.replications import RunSpec, simulate_case
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Record, SampleRecord
from tests.instances import make_instance, make_profile

REPLICATIONS = 8


def one_stage_plan(instance: Instance, worker: str = "slow") -> PlanSpec:
    sources = {}
    for source in instance.sources:
        model = instance.scenario.sources[source].models[0]
        last = instance.length(model) - 1
        route = Route(model=model, stages=(Stage(worker=worker, first_block=0, last_block=last),))
        sources[source] = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources=sources, workers={}, networks={},
    )  # fmt: skip


def mean_delays(instance: Instance, policy: str, plan: PlanSpec | None = None) -> dict[str, tuple[float, float]]:
    """Mean delay of each source over independent replications, and the standard error of that mean."""
    means: dict[str, list[float]] = defaultdict(list)
    for seed in range(REPLICATIONS):
        run = simulate_case(instance, plan or one_stage_plan(instance), RunSpec(policy, seed))
        for source, own in run.metrics.sources.items():
            assert own.mean_delay_s is not None
            means[source].append(own.mean_delay_s)
    return {
        source: (float(np.mean(found)), float(np.std(found, ddof=1) / REPLICATIONS**0.5))
        for source, found in means.items()
    }


def assert_agrees(measured: tuple[float, float], formula: float) -> None:
    mean, error = measured
    assert abs(mean - formula) <= 4 * error, f"{mean} +- {error} against {formula}"
    assert error < 0.1 * formula, "too few samples to tell"


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 1.5], ids=["M/D/1", "M/G/1, cv 0.5", "M/M/1", "M/G/1, cv 1.5"])
def test_local_is_an_m_g_1_queue(cv: float) -> None:
    """Pollaczek-Khinchine; block times are gamma, so that a spread equal to the mean is exponential."""
    service_s, rho = 0.02, 0.7
    instance = make_instance(
        profiles=[make_profile(block_s=[service_s], std_s=cv * service_s)],
        sources={"camera": {"rate_per_s": rho / service_s, "samples": 4000}},
    )
    waiting_s = rho * service_s * (1 + cv**2) / (2 * (1 - rho))
    assert_agrees(mean_delays(instance, "local")["camera"], waiting_s + service_s)


def test_the_blocks_of_a_task_under_local_are_one_service() -> None:
    """No look at the queue between blocks: the sum of two exponential times has a squared spread of half its mean's."""
    block_s, rho = 0.01, 0.7
    instance = make_instance(
        profiles=[make_profile(block_s=[block_s] * 2, std_s=block_s)],
        sources={"camera": {"rate_per_s": rho / (2 * block_s), "samples": 4000}},
    )
    waiting_s = rho * 2 * block_s * (1 + 0.5) / (2 * (1 - rho))
    assert_agrees(mean_delays(instance, "local")["camera"], waiting_s + 2 * block_s)


@pytest.mark.parametrize(
    ("classes", "cv"),
    [
        ({"urgent": (0.01, 25.0, 5.0), "other": (0.03, 15.0, 1.0)}, 0.0),
        ({"urgent": (0.005, 30.0, 9.0), "usual": (0.02, 15.0, 3.0), "idle": (0.03, 8.0, 1.0)}, 1.0),
    ],
    ids=["two classes", "three classes"],
)
def test_planned_is_a_non_preemptive_priority_queue(classes: dict[str, tuple[float, float, float]], cv: float) -> None:
    """Cobham's formula, with tasks of one block, so that looking between blocks makes no difference."""
    instance = make_instance(
        profiles=[make_profile(name, block_s=[time_s], std_s=cv * time_s) for name, (time_s, _, _) in classes.items()],
        sources={
            name: {"models": [name], "rate_per_s": rate, "priority": priority, "samples": int(100 * rate)}
            for name, (_, rate, priority) in classes.items()
        },
    )
    residual_s = sum(rate * time_s**2 * (1 + cv**2) for time_s, rate, _ in classes.values()) / 2
    found = mean_delays(instance, "planned")
    before = 0.0
    for name, (time_s, rate, _) in classes.items():
        load = before + rate * time_s
        assert_agrees(found[name], residual_s / ((1 - before) * (1 - load)) + time_s)
        before = load


def test_exponential_stages_in_tandem_are_independent_queues() -> None:
    """Jackson: each worker is an M/M/1 queue by itself; the network is so fast that it adds nothing."""
    times_s, rate_per_s = (0.02, 0.014), 35.0
    instance = make_instance(
        profiles=[
            make_profile("first", block_s=[times_s[0], times_s[0]], std_s=times_s[0]),
        ],
        workers={"slow": 1.0, "fast": times_s[0] / times_s[1]},
        networks={
            "lan": NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=1e13, latency_s=0.0)
        },
        sources={"camera": {"rate_per_s": rate_per_s, "samples": 3000}},
    )
    stages = (Stage(worker="slow", first_block=0, last_block=0), Stage(worker="fast", first_block=1, last_block=1))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="first", stages=stages),))
    plan = one_stage_plan(instance).model_copy(update={"sources": {"camera": own}})
    formula = sum(1 / (1 / time_s - rate_per_s) for time_s in times_s)
    assert_agrees(mean_delays(instance, "planned", plan)["camera"], formula)


@pytest.mark.parametrize("blocks", [1, 10])
def test_the_evaluation_of_a_plan_agrees_with_its_simulation(blocks: int) -> None:
    """A rare long class among short ones, most urgent first or last, with looks at the queue between blocks."""
    short_s, long_s = 0.01, 0.1
    for urgent in ("short", "long"):
        instance = make_instance(
            profiles=[
                make_profile("short", block_s=[short_s]),
                make_profile("long", block_s=[long_s / blocks] * blocks),
            ],
            sources={
                name: {
                    "models": [name],
                    "rate_per_s": rate,
                    "priority": 5.0 if name == urgent else 1.0,
                    "samples": int(100 * rate),
                }
                for name, rate in (("short", 30.0), ("long", 2.5))
            },
        )
        plan = one_stage_plan(instance)
        expected = evaluate(instance, {source: own.routes for source, own in plan.sources.items()}).sources
        found = mean_delays(instance, "planned", plan)
        for source in ("short", "long"):
            assert_agrees(found[source], expected[source].delay_s)


def test_a_tandem_with_priorities_agrees_with_simpy() -> None:
    """Sample by sample the same arrivals and block times: two simulators that know nothing of each other."""
    instance = tandem()
    run = simulate_case(instance, tandem_plan(instance), RunSpec("planned", 0))
    other = tandem_in_simpy(instance)
    for source, own in run.metrics.sources.items():
        theirs = other.sources[source]
        assert own.completed == theirs.completed
        assert own.mean_delay_s == pytest.approx(theirs.mean_delay_s, rel=1e-9)
        assert own.p99_delay_s == pytest.approx(theirs.p99_delay_s, rel=1e-9)
    assert run.metrics.utilisation == pytest.approx(other.utilisation, rel=1e-9)


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
