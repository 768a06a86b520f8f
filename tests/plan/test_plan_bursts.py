"""Waits under bursts and recorded arrivals: the evaluation against simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.plan.bursts import Bursts
from planner.plan.evaluate import Evaluation, evaluate
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.arrivals import arrival_times, source_rng
from planner.scenario.instance import Instance
from planner.scenario.types import BurstSpec, PolicySpec, SourceSpec
from planner.simulation.simulator import simulate
from planner.trace.records import SampleRecord
from tests.instances import make_instance, make_profile

SERVICE_S = 0.01
BURSTS = BurstSpec(factor=3.0, length_s=0.2, every_s=2.0)
ROUTE = Route(model="m", stages=(Stage(worker="one", first_block=0, last_block=0),))


def instance_of(**sources: dict[str, Any]) -> Instance:
    keys = {name: {"deadline_s": 1.0, **source} for name, source in sources.items()}
    return make_instance(
        profiles=[make_profile(block_s=[SERVICE_S])],
        workers={"one": 1.0},
        networks={},
        sources=keys,
        policy=PolicySpec(order="priority"),
    )


def evaluated(instance: Instance) -> Evaluation:
    return evaluate(instance, {source: [ROUTE] for source in instance.sources})


def delays_of_queue(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Delays of one worker that serves samples of constant time in order, by Lindley's recursion."""
    begun_s = np.maximum.accumulate(times_s - SERVICE_S * np.arange(len(times_s))) + SERVICE_S * np.arange(len(times_s))
    found: NDArray[np.float64] = begun_s + SERVICE_S - times_s
    return found


def times_of(source: SourceSpec, seed: int = 1) -> NDArray[np.float64]:
    return np.fromiter(arrival_times(source, source_rng(seed, 0)), float)


@pytest.mark.parametrize(
    ("rate_per_s", "bursts"),
    [
        (50.0, BURSTS),  # more than the worker can do during a burst
        (30.0, BURSTS),  # less than that
        (60.0, BurstSpec(factor=1.5, length_s=5.0, every_s=20.0)),  # long and weak
        (40.0, BurstSpec(factor=10.0, length_s=0.05, every_s=0.5)),  # nothing between bursts
    ],
)
def test_one_source_with_bursts(rate_per_s: float, bursts: BurstSpec) -> None:
    """The formula is exact here; the simulated queue has half a million samples."""
    instance = instance_of(s={"rate_per_s": rate_per_s, "arrivals": "mmpp", "bursts": bursts, "samples": 500_000})
    delays_s = delays_of_queue(times_of(instance.scenario.sources["s"]))
    found = evaluated(instance)
    assert found.sources["s"].delay_s == pytest.approx(delays_s.mean(), rel=0.1)
    for level in (0.5, 0.9, 0.95):
        assert found.distributions["s"].percentile_s(level) == pytest.approx(np.quantile(delays_s, level), rel=0.12)


def test_bursts_of_hardly_more_than_the_mean_rate_are_poisson_arrivals() -> None:
    none = BurstSpec(factor=1.001, length_s=1.0, every_s=3.0)
    plain = instance_of(s={"rate_per_s": 70.0})
    same = instance_of(s={"rate_per_s": 70.0, "arrivals": "mmpp", "bursts": none})
    one, other = evaluated(plain), evaluated(same)
    assert other.sources["s"].delay_s == pytest.approx(one.sources["s"].delay_s, rel=1e-3)
    assert other.sources["s"].p95_delay_s == pytest.approx(one.sources["s"].p95_delay_s, rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("priority", [0.5, pytest.param(1.0, marks=pytest.mark.nightly), 2.0])
def test_another_source_beside_one_with_bursts(priority: float) -> None:
    """Exact for one queue; means of 60,000 simulated samples, which come in a thousand bursts or so."""
    shared = {"samples": 30_000, "rate_per_s": 30.0}
    instance = instance_of(
        bursty={**shared, "arrivals": "mmpp", "bursts": BURSTS}, plain={**shared, "priority": priority}
    )
    found = evaluated(instance)
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(ROUTE,))
    plan = PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip
    records, _ = simulate(instance, policy="planned", plan=plan)
    for source in instance.sources:
        delays_s = [
            record.delay_s for record in records if isinstance(record, SampleRecord) and record.source == source
        ]
        assert found.sources[source].delay_s == pytest.approx(float(np.mean(delays_s)), rel=0.15)


@pytest.mark.parametrize("limit", [{}, {"deadline_s": 1.0}])
def test_a_transfer_of_nothing_takes_as_long_as_one_of_a_byte(limit: dict[str, Any]) -> None:
    there = Route(model="m", stages=(Stage(worker="there", first_block=0, last_block=0),))
    source = {"rate_per_s": 50.0, "arrivals": "mmpp", "bursts": BURSTS, **limit}
    nothing, a_byte = (
        evaluate(
            make_instance(
                profiles=[make_profile(block_s=[SERVICE_S], cut_bytes=[size, size])],
                workers={"here": 1.0, "there": 1.0},
                sources={"s": source},
            ),
            {"s": [there]},
        ).sources["s"]
        for size in (0, 1)
    )
    assert nothing.delay_s == pytest.approx(a_byte.delay_s, rel=1e-4)
    assert (nothing.p95_delay_s or 0.0) == pytest.approx(a_byte.p95_delay_s or 0.0, rel=1e-3)


def test_a_recorded_trace_prolongs_waits_as_its_bursts_do() -> None:
    recorded = SourceSpec(worker="one", models=("m",), rate_per_s=50.0, arrivals="mmpp", bursts=BURSTS, samples=100_000)
    times_s = times_of(recorded)
    instance = instance_of(s={"arrivals": "trace", "trace": "t.txt", "samples": len(times_s)})
    instance = instance.model_copy(update={"traces": {"s": tuple(times_s.tolist())}})
    poisson = evaluated(instance_of(s={"rate_per_s": 50.0})).sources["s"].delay_s
    found = evaluated(instance).sources["s"].delay_s
    assert found > 2 * poisson
    assert found == pytest.approx(float(delays_of_queue(times_s).mean()), rel=0.35)


def test_evenly_spaced_and_poisson_traces_have_no_bursts() -> None:
    assert Bursts.of_times((np.arange(1000) / 10).tolist()) is None
    assert Bursts.of_times([0.0, 1.0]) is None
    poisson = SourceSpec(worker="a", models=("m",), rate_per_s=10.0, samples=5000)
    found = Bursts.of_times(times_of(poisson).tolist())
    assert found is None or found.busy < 1.5


def test_the_rate_of_bursts_is_the_mean_rate() -> None:
    spec = SourceSpec(worker="a", models=("m",), rate_per_s=50.0, arrivals="mmpp", bursts=BURSTS, samples=200_000)
    times_s = times_of(spec)
    assert len(times_s) / times_s[-1] == pytest.approx(50.0, rel=0.05)
    counts = np.histogram(times_s, np.arange(0, times_s[-1], 20.0))[0]
    bursts = Bursts.of_spec(BURSTS)
    change_per_s = bursts.begin_per_s + bursts.end_per_s
    share = BURSTS.share
    limit = 1 + 2 * 50 * share * (1 - share) * (bursts.busy - bursts.calm) ** 2 / change_per_s
    assert counts.var() / counts.mean() == pytest.approx(limit, rel=0.25)
