"""Where simulated samples leave: as often as calibrated, or as recorded, and the same under all policies."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.types import SampleKey
from planner.profiling.recorded_predictions import RecordedPredictions, load_predictions
from planner.profiling.store import load_profile
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec
from planner.simulation.exits import Exits
from planner.simulation.simulator import Simulator, simulate
from planner.trace.metrics import summarise
from planner.trace.records import BlockRecord, Record, SampleRecord, TransferRecord
from planner.worker.events import RunBlock
from planner.worker.patience import Patience
from tests.instances import make_instance, make_profile
from tests.simulation.churn import cases

ROOT = Path(__file__).parents[2]
PROFILE = load_profile(ROOT / "profiles" / "x86-64" / "resnet56-exits-fashion.json")
ANSWERS = load_predictions(ROOT / "models" / "resnet56-exits-fashion.npz", exits=2)
NAMES = ("exit1", "exit2", None)


def trained(samples: int = 1000, rate_per_s: float = 100.0, bytes_per_s: float = 1e7) -> Instance:
    """The trained model's profile on two workers."""
    wifi = NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=bytes_per_s, latency_s=0.001)
    keys = {"models": [PROFILE.model.name], "rate_per_s": rate_per_s, "samples": samples}
    return make_instance(profiles=[PROFILE], sources={"camera": keys}, networks={"wifi": wifi})


def plan_of(instance: Instance, *routes: Route) -> PlanSpec:
    own = SourcePlan(accuracy=0.9, delay_s=0.1, surrogate_delay_s=0.1, routes=routes)
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip


def route(point: int, *stages: tuple[str, int, int], share: float = 1.0) -> Route:
    return Route(
        share=share,
        model=PROFILE.model.name,
        operating_point=point,
        stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
    )


def left(records: list[Record]) -> dict[int, str | None]:
    """Where each sample of a run of one source left."""
    samples = (record for record in records if isinstance(record, SampleRecord))
    return {record.sample: record.origin.exit for record in samples if record.origin is not None}


@pytest.mark.parametrize("point", range(len(PROFILE.operating_points)))
def test_samples_leave_as_often_as_calibrated(point: int) -> None:
    """Within four standard deviations of the binomial distribution."""
    instance = trained(samples=2000)
    records, _ = simulate(instance, policy="planned", plan=plan_of(instance, route(point, ("slow", 0, 7))), seed=1)
    found = Counter(left(records).values())
    reach = PROFILE.operating_points[point].reach
    shares = np.array([1 - reach[2], reach[2] - reach[5], reach[5]])
    seen = np.array([found[name] for name in NAMES]) / 2000
    assert (abs(seen - shares) <= 4 * np.sqrt(shares * (1 - shares) / 2000) + 1e-9).all()


def test_what_leaves_under_a_strict_threshold_leaves_under_a_loose_one() -> None:
    instance = trained(samples=300)
    ends = []
    for point in range(len(PROFILE.operating_points)):  # the strictest first
        plan = plan_of(instance, route(point, ("slow", 0, 7)))
        ends.append(
            {k: NAMES.index(exit_) for k, exit_ in left(simulate(instance, policy="planned", plan=plan)[0]).items()}
        )
    for strict, loose in pairwise(ends):
        assert all(loose[sample] <= strict[sample] for sample in strict)


def test_all_policies_and_routes_meet_the_same_samples() -> None:
    instance = trained(samples=200)
    split = plan_of(instance, route(0, ("slow", 0, 2), ("fast", 3, 7)))
    everywhere = [
        left(simulate(instance, policy=name, plan=split, seed=5)[0])
        for name in ("planned", "local", "ddi", "mdi", "pa-mdi")
    ]
    assert all(found == everywhere[0] for found in everywhere)
    assert left(simulate(instance, policy="local", seed=6)[0]) != everywhere[0]


@pytest.mark.parametrize("point", [0, 3, 8])
def test_recorded_answers_are_replayed_exactly(point: int) -> None:
    instance = trained(samples=1500)
    model = PROFILE.model.name
    instance = instance.model_copy(update={"predictions": {"camera": {model: ANSWERS}}})
    records, _ = simulate(
        instance, policy="planned", plan=plan_of(instance, route(point, ("slow", 0, 1), ("fast", 2, 7)))
    )
    thresholds = np.array([*PROFILE.operating_points[point].thresholds, 0.0])
    taken = (ANSWERS.confidence >= thresholds).argmax(1)
    assert left(records) == {sample: NAMES[taken[sample % 1000]] for sample in range(1500)}
    right = [bool(ANSWERS.correct[sample % 1000, taken[sample % 1000]]) for sample in range(1500)]  # type: ignore[index]
    metrics = summarise(records, {"camera": 1.0}, instance.workers, instance.accuracies).sources["camera"]
    assert (metrics.judged, metrics.correct) == (1500, sum(right))
    assert metrics.accuracy == pytest.approx(PROFILE.operating_points[point].accuracy, abs=1e-12)
    assert metrics.measured_accuracy == pytest.approx(np.mean(right))


def test_an_instance_with_answers_travels() -> None:
    instance = trained().model_copy(update={"predictions": {"camera": {PROFILE.model.name: ANSWERS}}})
    again = Instance.model_validate_json(instance.model_dump_json(by_alias=False))
    found = again.predictions["camera"][PROFILE.model.name]
    np.testing.assert_array_equal(found.confidence, ANSWERS.confidence)
    np.testing.assert_array_equal(found.correct, ANSWERS.correct)
    unlabelled = trained().model_copy(
        update={"predictions": {"camera": {PROFILE.model.name: RecordedPredictions(ANSWERS.confidence)}}}
    )
    again = Instance.model_validate_json(unlabelled.model_dump_json(by_alias=False))
    assert again.predictions["camera"][PROFILE.model.name].correct is None


def test_a_result_that_leaves_early_is_small_and_spares_what_is_behind() -> None:
    instance = trained(samples=400)
    records, _ = simulate(instance, policy="planned", plan=plan_of(instance, route(3, ("fast", 0, 7))))
    exits = left(records)
    blocks = {sample: set[int]() for sample in exits}
    for record in records:
        if isinstance(record, BlockRecord):
            blocks[record.sample].add(record.block)
        elif isinstance(record, TransferRecord) and record.cut:
            assert record.size_bytes == 40
    last = {"exit1": 2, "exit2": 5, None: 8}
    assert blocks == {sample: set(range(last[name])) for sample, name in exits.items()}


@pytest.mark.slow
@pytest.mark.parametrize("load", [0.02, 0.6], ids=["unloaded", "loaded"])
@pytest.mark.parametrize("stages", [[("slow", 0, 7)], [("slow", 0, 3), ("fast", 4, 7)]], ids=["one", "two"])
def test_delays_are_those_that_evaluation_expects(stages: list[tuple[str, int, int]], load: float) -> None:
    """Evaluation weighs loads by reach and sends results home from where samples leave; mixed operating points."""
    routes = (route(0, *stages, share=0.4), route(4, *stages, share=0.6))
    _, first, last = stages[0]
    blocks = slice(first, last + 1)
    block_s = trained().block_s(PROFILE.model.name, "slow")[blocks]
    reach = [PROFILE.operating_points[own.operating_point].reach[blocks] for own in routes]
    work_s = sum(own.share * float(block_s @ reached) for own, reached in zip(routes, reach, strict=True))
    instance = trained(samples=1500, rate_per_s=load / work_s, bytes_per_s=1e9)
    expected = evaluate(instance, {"camera": routes}).sources["camera"].delay_s
    plan, means = plan_of(instance, *routes), []
    for seed in range(5):
        records, _ = simulate(instance, policy="planned", plan=plan, seed=seed)
        means.append(np.mean([record.delay_s for record in records if isinstance(record, SampleRecord)]))
    error = float(np.std(means, ddof=1)) / 5**0.5
    # The formulas are exact for one stage; behind it arrivals are not Poisson any more.
    assert abs(float(np.mean(means)) - expected) <= 4 * error + 0.02 * expected
    assert error < 0.05 * expected, "too few samples to tell"


@pytest.mark.parametrize("policy", ["planned", "adaptive", "ddi", "pa-mdi"])
@settings(max_examples=15)
@given(case=cases(network_loss=False), seed=st.integers(0, 5), patience_s=st.sampled_from([0.01, 0.05, 0.3]))
def test_impatient_sources_get_one_result_a_sample(
    policy: str, case: tuple[Instance, PlanSpec], seed: int, patience_s: float
) -> None:
    """Attempts overlap, leave at exits, and meet workers that come and go."""
    instance, plan = case
    records: list[Record] = []
    patience = Patience(first_s=patience_s, max_attempts=8)
    Simulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append, patience=patience).run()
    ended = Counter((record.source, record.sample) for record in records if isinstance(record, SampleRecord))
    assert set(ended) == {(source, k) for source in instance.sources for k in range(instance.samples(source))}
    assert set(ended.values()) == {1}


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), sample=st.integers(0, 10**6), reach=st.floats(0, 1))
def test_a_drawn_confidence_is_of_the_sample_alone(seed: int, sample: int, reach: float) -> None:
    point = OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, reach))
    profile = make_profile(exits=[ExitPoint(name="e", cut=1, result_bytes=4)], operating_points=[point])
    exits = Exits(make_instance(profiles=[profile]), seed)
    tried = [
        exits.confidence(RunBlock(SampleKey("camera", sample, attempt), "m", 0, begins_stage=True))
        for attempt in (0, 1, 7)
    ]
    assert len(set(tried)) == 1
    assert tried[0] in {(0.0,), (1.0,)}
    assert exits.confidence(RunBlock(SampleKey("camera", sample, 0), "m", 1, begins_stage=False)) == ()
    if reach in {0.0, 1.0}:
        assert tried[0] == (1.0 - reach,)
