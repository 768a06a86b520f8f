"""``adaptive`` with exits: more samples leave early when queues grow, and accuracy stays above its least."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.candidate_routes import extended_candidate_routes
from planner.profiling.store import load_profile
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.simulation.simulator import simulate
from planner.trace.records import Record, SampleRecord
from tests.instances import make_instance

PROFILE = load_profile(Path(__file__).parents[2] / "profiles" / "x86-64" / "resnet56-exits-fashion.json")
NAME = PROFILE.model.name
POINTS = PROFILE.operating_points
WHOLE_S = sum(block.mean_s for block in PROFILE.blocks)


def case(
    load: float, *, worth_s: float = 0.0, min_accuracy: float | None = None, samples: int = 300, helper: float = 2.0
) -> tuple[Instance, PlanSpec]:
    """A camera at a worker, which gets ``load`` whole models a second for each that it can compute; and a helper."""
    camera = {"rate_per_s": load / WHOLE_S, "samples": samples, "min_accuracy": min_accuracy}
    lan = NetworkSpec(kind="shared", members=("box", "helper"), bandwidth_bytes_per_s=1e7, latency_s=1e-3)
    instance = make_instance(
        profiles=[PROFILE],
        workers={"box": 1.0, "helper": helper},
        sources={"camera": camera},
        networks={"lan": lan},
        objective=ObjectiveSpec(accuracy_worth_s=worth_s),
    )
    route = Route(model=NAME, stages=(Stage(worker="box", first_block=0, last_block=7),))
    own = SourcePlan(accuracy=0.9, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"camera": own}, workers={}, networks={},
    )  # fmt: skip
    return instance, plan


def chosen(records: list[Record]) -> list[float]:
    """The accuracy that was promised for each sample, in their order."""
    ended = sorted((record for record in records if isinstance(record, SampleRecord)), key=lambda record: record.sample)
    return [POINTS[record.origin.operating_point].accuracy for record in ended if record.origin is not None]


def test_there_is_a_candidate_for_every_operating_point_of_every_sequence_of_stages() -> None:
    instance, plan = case(0.1)
    candidates = extended_candidate_routes(instance, plan)["camera"]
    sequences = {route.stages for route in candidates}
    assert len(sequences) == 1 + 8
    pairs = {(route.stages, route.operating_point) for route in candidates}
    assert pairs == {(stages, point) for stages in sequences for point in range(9)}
    assert len(candidates) == 9 * 9


def test_more_leave_early_when_queues_grow() -> None:
    means = []
    for load in (0.1, 4.0, 6.0):
        instance, plan = case(load, worth_s=5e-4)
        means.append(float(np.mean(chosen(simulate(instance, policy="adaptive", plan=plan, seed=1)[0]))))
    assert means[0] > means[1] > means[2]
    assert means[0] > 0.905


def test_what_no_whole_models_could_bear_is_borne_by_leaving_early() -> None:
    instance, plan = case(4.0, worth_s=5e-4, helper=0.5)
    ended = [r for r in simulate(instance, policy="adaptive", plan=plan)[0] if isinstance(r, SampleRecord)]
    stuck = [r for r in simulate(instance, policy="planned", plan=plan)[0] if isinstance(r, SampleRecord)]
    assert np.mean([r.delay_s for r in ended]) < 0.25 * np.mean([r.delay_s for r in stuck])


@settings(max_examples=25)
@given(
    load=st.floats(0.1, 6.0),
    worth_s=st.sampled_from([0.0, 2e-4, 1e-3]),
    least=st.sampled_from([0.842, 0.86, 0.9, 0.9111]),
)
def test_the_mean_accuracy_promised_never_falls_below_the_least(load: float, worth_s: float, least: float) -> None:
    instance, plan = case(load, worth_s=worth_s, min_accuracy=least, samples=80)
    promised = chosen(simulate(instance, policy="adaptive", plan=plan)[0])
    assert len(promised) == 80
    means = np.cumsum(promised) / np.arange(1, 81)
    assert (means >= least - 1e-9).all()


def test_when_accuracy_is_worth_nothing_all_leave_at_once() -> None:
    instance, plan = case(0.5)
    assert chosen(simulate(instance, policy="adaptive", plan=plan)[0]) == pytest.approx([POINTS[-1].accuracy] * 300)


def test_when_accuracy_is_worth_much_all_take_the_best() -> None:
    instance, plan = case(0.5, worth_s=1.0)
    assert chosen(simulate(instance, policy="adaptive", plan=plan)[0]) == pytest.approx([POINTS[0].accuracy] * 300)
