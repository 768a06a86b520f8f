"""The policies that send samples round the ring: where they cut, and what they learn to cut by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.types import Route
from planner.policy.ar_mdi import SMOOTHING, ArMdi, Mdi, cuts_by_parameters, ring_route
from planner.policy.costs import CostTable
from planner.policy.ms_mdi import MsMdi
from planner.policy.types import SampleKey, Status, Task, Waiting, WorkerState
from tests.instances import make_instance, make_profile

weights_bytes = st.lists(st.integers(0, 10**7).map(lambda count: 4 * count), min_size=1, max_size=12).filter(any)
shares = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=6)


def costs_of(weight_bytes: list[int]) -> CostTable:
    return CostTable(
        make_instance(profiles=[make_profile(block_s=[0.01] * len(weight_bytes), weight_bytes=weight_bytes)])
    )


@given(weights_bytes, shares)
def test_segments_hold_all_blocks_and_parameters_once(weight_bytes: list[int], weights: list[float]) -> None:
    costs = costs_of(weight_bytes)
    ring = [f"w{index}" for index in range(len(weights))]
    route = ring_route(costs, "m", ring, weights)
    blocks = [block for stage in route.stages for block in range(stage.first_block, stage.last_block + 1)]
    assert blocks == list(range(len(weight_bytes)))
    workers = [stage.worker for stage in route.stages]
    assert workers == [worker for worker in ring if worker in workers]
    parameters = [costs.parameters("m", stage.first_block, stage.last_block) for stage in route.stages]
    assert sum(parameters) == sum(weight_bytes) // 4


@given(weights_bytes, shares)
def test_each_cut_is_where_the_parameters_come_closest_to_the_share(
    weight_bytes: list[int], weights: list[float]
) -> None:
    """Equation (1): shares W (1/γ_n) / Σ (1/γ) sum to W, so the last cut is the end."""
    costs = costs_of(weight_bytes)
    total = sum(weight_bytes) // 4
    cuts = cuts_by_parameters(costs, "m", weights)
    assert cuts[0] == 0
    assert cuts[-1] == len(weight_bytes)
    assert len(cuts) == len(weights) + 1
    share = 0.0
    for cut, weight in zip(cuts[1:-1], weights, strict=False):
        share += weight / sum(weights)
        missed = [abs(sum(weight_bytes[:at]) / 4 - share * total) for at in range(len(weight_bytes) + 1)]
        assert missed[cut] == pytest.approx(min(missed), abs=1e-6 * total)


def state_of(workers: int = 3, blocks: int = 6) -> WorkerState:
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01] * blocks)],
        workers={f"w{index}": 1.0 for index in range(workers)},
        sources={"camera": {"worker": "w0", "rate_per_s": 1.0}},
    )
    return WorkerState("w0", instance, CostTable(instance), priorities={"camera": 1.0})


def lengths(route: Route | None) -> dict[str, int]:
    assert route is not None
    return {stage.worker: stage.last_block - stage.first_block + 1 for stage in route.stages}


def done(blocks: int, service_s: float) -> Waiting:
    key = SampleKey("camera", 0, 0)
    task = Task(key, "m", 0, 1.0, 0.0, 0, ())
    return Waiting(task, blocks, blocks - 1, 0.0, (0.0, 0), service_s)


def test_mdi_cuts_evenly_among_those_that_are_there() -> None:
    state = state_of()
    assert lengths(Mdi().route(state.view, "camera")) == {"w0": 2, "w1": 2, "w2": 2}
    state.absent |= {"w1"}
    assert lengths(Mdi().route(state.view, "camera")) == {"w0": 3, "w2": 3}


def test_ar_mdi_gives_a_worker_that_is_slower_less() -> None:
    state, policy = state_of(workers=2), ArMdi()
    assert lengths(policy.route(state.view, "camera")) == {"w0": 3, "w1": 3}
    expected = policy.per_parameter_s(state.view, "camera", "w0")
    state.hear("w1", Status(per_parameter_s=(("camera", 5 * expected),)))
    assert lengths(policy.route(state.view, "camera")) == {"w0": 5, "w1": 1}


def test_ar_mdi_learns_its_own_pace_as_a_moving_average_and_tells_it() -> None:
    state, policy = state_of(), ArMdi()
    parameters = state.costs.parameters("m", 0, 1)
    policy.ran(state.view, done(2, 1.0))
    policy.ran(state.view, done(2, 2.0))
    expected = (1.0 + SMOOTHING * (2.0 - 1.0)) / parameters
    assert policy.per_parameter_s(state.view, "camera", "w0") == pytest.approx(expected, rel=1e-2)
    assert dict(policy.status(state.view).per_parameter_s)["camera"] == pytest.approx(expected, rel=1e-2)


def test_ms_mdi_fills_the_shorter_queue_until_both_are_full() -> None:
    state, policy = state_of(), MsMdi(reservoir_limit=2, literal=False)
    assert lengths(policy.route(state.view, "camera")) == {"w0": 6}
    state.queued["local", "camera"] = 1
    assert lengths(policy.route(state.view, "camera")) == {"w0": 2, "w1": 2, "w2": 2}
    state.queued["ring", "camera"] = 2
    assert lengths(policy.route(state.view, "camera")) == {"w0": 6}
    state.queued["local", "camera"] = 2
    assert policy.route(state.view, "camera") is None


def test_a_model_without_parameters_is_cut_by_blocks() -> None:
    costs = costs_of([0, 0, 0, 0])
    assert cuts_by_parameters(costs, "m", [1.0, 1.0]) == [0, 2, 4]
    assert costs.parameters("m", 0, 3) == 4
