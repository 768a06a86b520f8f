"""Plans for sources of sequences: every method counts their runs, their state and the bounds on their tokens."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import PlanError
from planner.plan.evaluate import evaluate
from planner.plan.memory import memory_bytes
from planner.plan.verify import verify
from planner.profiling.sequences import RunCurve
from planner.profiling.types import Profile
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.problem import Choice
from planner.solvers.solve import solve
from tests.instances import MIB, make_instance, make_profile, with_sequences

METHODS = ("milp", "search", "colgen", "convex")


def instance(
    goal: Literal["delay", "throughput", "makespan"] = "delay", memory_mib: float = 4096, blocks: int = 3, **decode: Any
) -> Instance:
    """Two sources of unlike priority at two of three workers, of which one produces sequences."""
    profile = with_sequences(make_profile(block_s=[0.003] * blocks, stage_overhead_s=0.0005), state_bytes=1e5)
    spec = DecodeSpec(**{"prompt": 60, "max_new": 20, "chunk": 25, **decode})
    workers = {
        name: {"speed": speed, "memory_bytes": memory_mib * MIB, "base_memory_bytes": 0.0}
        for name, speed in (("phone", 0.5), ("hub", 1.0), ("desk", 2.0))
    }
    sources: dict[str, Any] = {
        "assistant": {"worker": "phone", "rate_per_s": 1.0, "priority": 5.0, "decode": spec},
        "camera": {"worker": "hub", "rate_per_s": 8.0},
    }
    return make_instance(profiles=[profile], workers=workers, sources=sources, objective=ObjectiveSpec(goal=goal))


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
@given(
    prompt=st.integers(1, 200),
    max_new=st.integers(1, 50),
    chunk=st.none() | st.integers(1, 250),
    workers=st.lists(st.integers(0, 2), min_size=3, max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_solvers_and_evaluation_count_the_same(
    goal: Literal["delay", "throughput", "makespan"], prompt: int, max_new: int, chunk: int | None, workers: list[int]
) -> None:
    known = instance(goal, prompt=prompt, max_new=max_new, chunk=chunk, loop="home")
    problem = build_problem(known)
    choices = tuple((Choice(demand.variants[0], tuple(workers)),) for demand in problem.demands)
    routes = problem.routes(choices)
    found = evaluate(known, routes)
    load = problem.load(choices).sum(axis=0)
    busy = [use.utilisation for use in found.workers.values()] + [use.utilisation for use in found.networks.values()]
    assert load == pytest.approx(busy)
    assert problem.objective(choices) == pytest.approx(found.objective) or max(busy) > 0.9
    assert read_routes(problem, routes) == choices


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
@given(
    prompt=st.integers(1, 200),
    max_new=st.integers(1, 50),
    chunk=st.none() | st.integers(1, 250),
    workers=st.lists(st.integers(0, 2), min_size=3, max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_solvers_count_no_more_than_any_place_of_the_loop_takes(
    goal: Literal["delay", "throughput", "makespan"], prompt: int, max_new: int, chunk: int | None, workers: list[int]
) -> None:
    """So their bounds hold; and no less where the first and the last block are on one worker."""
    known = instance(goal, prompt=prompt, max_new=max_new, chunk=chunk)
    problem = build_problem(known)
    choices = tuple((Choice(demand.variants[0], tuple(workers)),) for demand in problem.demands)
    routes = problem.routes(choices)
    route = routes["assistant"][0]
    fed_back = {**routes, "assistant": (route.model_copy(update={"loop": "last"}),)}
    load = problem.load(choices).sum(axis=0)
    for own in (routes, fed_back):
        found = evaluate(known, own)
        busy = [it.utilisation for it in found.workers.values()] + [it.utilisation for it in found.networks.values()]
        assert (load <= np.array(busy) * (1 + 1e-6)).all()
        assert problem.objective(choices) <= found.objective * (1 + 1e-6) or max(busy) > 0.9
    if workers[0] == workers[-1]:
        assert load == pytest.approx(busy, rel=1e-4)
        assert problem.objective(choices) == pytest.approx(found.objective, rel=1e-4) or max(busy) > 0.9


def test_a_plan_says_where_tokens_are_fed_back() -> None:
    """It is faster away from home, where the blocks are; a place that the scenario says is kept, and verified."""
    plans = {
        loop: solve(instance(loop=loop).only_sources(["assistant"]), method="exhaustive").plan
        for loop in ("auto", "home", "last")
    }
    for loop, plan in plans.items():
        assert plan is not None
        own = plan.sources["assistant"]
        assert {stage.worker for stage in own.routes[0].stages} == {"desk"}
        assert own.routes[0].loop == ("home" if loop == "home" else "last")
        verify(instance(loop=loop).only_sources(["assistant"]), plan)
    auto, home = plans["auto"], plans["home"]
    assert auto is not None
    assert home is not None
    times = auto.sources["assistant"], home.sources["assistant"]
    assert times[0].ttft_s == pytest.approx(times[1].ttft_s, rel=0.05)
    tokens_s = [own.tpot_s or 0.0 for own in times]
    assert tokens_s[1] - tokens_s[0] == pytest.approx(2 * 0.001 + (16 + 508 + 8 * 70 + 8) / 1e7, rel=0.05)
    assert auto.gap < 1e-4
    with pytest.raises(PlanError, match="another loop"):
        verify(instance(loop="home").only_sources(["assistant"]), auto)
    with pytest.raises(PlanError, match="a loop of no sequence"):
        verify(
            instance().only_sources(["camera"]),
            auto.model_copy(update={"sources": {"camera": own}, "workers": {}, "networks": {}}),
        )


@pytest.mark.parametrize("chooses", ["argmax", "sample"])
def test_the_work_of_a_sequence_is_that_of_its_runs(chooses: str) -> None:
    known = instance(prompt=60, max_new=20, chunk=25, next=chooses, loop="home")
    problem = build_problem(known)
    cost = problem.cost(0, Choice(problem.demands[0].variants[0], (2, 2, 2)))
    costs = known.any_profile("m").sequences
    assert costs is not None
    # by hand: chunks of 25, 25 and 10 tokens, then 19 steps after 60 to 78 tokens; each starts one stage
    runs = [(25, 0), (25, 25), (10, 50), *((1, past) for past in range(60, 79))]
    seconds = 0.0
    for new, past in runs:
        context = new + past
        step = 2e-3 + 1e-6 * context
        prompt = 1e-3 + 2e-4 * new + 1e-7 * new * context
        seconds += (3 * (prompt if new > 1 else step) + 0.0005) / 2.0
    assert cost.seconds[0] == pytest.approx(seconds)
    there = sum(16 + 500 * new + 8 * (new + past) for new, past in runs)
    back = 8 * len(runs)  # the token that the worker of the last block has chosen or drawn
    assert cost.seconds[1] == pytest.approx((there + back) / 1e7)
    assert cost.latency_s == pytest.approx(2 * len(runs) * 0.001)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("goal", ["delay", "throughput"])
def test_methods_agree_with_trying_all_routes(goal: Literal["delay", "throughput"], method: str) -> None:
    known = instance(goal)
    best = solve(known, method="exhaustive", rank="surrogate").plan
    found = solve(known, method=method, rank="surrogate", time_limit_s=10, gap=1e-6).plan
    assert best is not None
    assert found is not None
    verify(known, found)
    assert found.bound <= best.objective * (1 + 1e-6)
    if method in {"milp", "search"}:
        assert found.objective == pytest.approx(best.objective, rel=1e-3)


@pytest.mark.parametrize("method", ["milp", "search", "colgen", "convex", "exhaustive", "local", "equal", "auto"])
def test_no_method_overfills_a_worker_with_state(method: str) -> None:
    known = instance(concurrent=4, memory_mib=90).only_sources(["assistant"])  # a block takes 1 MB + 4 x 8 MB of state
    solution = solve(known, method=method, time_limit_s=5)
    if method == "local":
        assert solution.plan is None  # its three blocks with their state do not fit on one worker
        return
    assert solution.plan is not None
    verify(known, solution.plan)
    used = memory_bytes(known, {name: plan.routes for name, plan in solution.plan.sources.items()})
    assert max(used.values()) <= 90 * MIB
    assert len({stage.worker for stage in solution.plan.sources["assistant"].routes[0].stages}) > 1


def test_state_that_fits_nowhere_is_blamed() -> None:
    solution = solve(instance(concurrent=64, memory_mib=90), time_limit_s=60)
    assert solution.status == "infeasible"
    assert "lacks" in solution.reasons[0]


def test_state_counts_concurrent_sequences_and_their_context() -> None:
    def held(**decode: Any) -> int:
        return instance(**decode).held_bytes("m", "desk")[0]

    assert held(concurrent=3) - held(concurrent=2) == 80 * 100_000
    assert held(max_new=21, concurrent=1) - held(max_new=20, concurrent=1) == 100_000


def test_bounds_on_tokens_are_kept_or_refused() -> None:
    free = solve(instance(), method="exhaustive").plan
    assert free is not None
    own = free.sources["assistant"]
    assert own.ttft_s is not None
    assert own.tpot_s is not None
    steps = 19
    assert own.delay_s == pytest.approx(own.ttft_s + steps * own.tpot_s)
    kept = solve(instance(max_ttft_s=own.ttft_s * 1.2, max_tpot_s=own.tpot_s * 1.2), time_limit_s=5).plan
    assert kept is not None
    verify(instance(max_ttft_s=own.ttft_s * 1.2, max_tpot_s=own.tpot_s * 1.2), kept)
    bounds: list[tuple[dict[str, Any], str]] = [
        ({"max_ttft_s": 0.001}, "time to the first token"),
        ({"max_tpot_s": 0.001}, "time per token"),
    ]
    for bound, what in bounds:
        refused = solve(instance(**bound), time_limit_s=5)
        assert refused.status == "infeasible"
        assert what in refused.reasons[0]


def test_a_plan_that_breaks_a_bound_is_found_out() -> None:
    plan = solve(instance(), time_limit_s=5).plan
    assert plan is not None
    assert plan.sources["assistant"].tpot_s is not None
    with pytest.raises(PlanError, match="above the largest time per token"):
        verify(instance(max_tpot_s=plan.sources["assistant"].tpot_s / 2), plan)


def test_a_longer_context_takes_longer_steps() -> None:
    times = []
    for prompt in (50, 400):
        found = solve(instance(prompt=prompt), time_limit_s=5).plan
        assert found is not None
        times.append(found.sources["assistant"].tpot_s or 0.0)
    assert times[0] < times[1]


def test_prompts_and_steps_have_their_own_curves() -> None:
    slow = with_sequences(make_profile(), step=RunCurve(fixed_s=0.5))
    fast = with_sequences(make_profile(), step=RunCurve(fixed_s=0.001))
    spec = DecodeSpec(prompt=60, max_new=20)
    found = []
    for profile in (slow, fast):
        known = make_instance(
            profiles=[profile], workers={"one": 1.0}, networks={}, sources={"a": {"rate_per_s": 1e-6, "decode": spec}}
        )
        plan = solve(known, time_limit_s=5).plan
        assert plan is not None
        found.append(plan.sources["a"])
    assert found[0].ttft_s == pytest.approx(found[1].ttft_s, rel=0.01)
    assert (found[0].tpot_s or 0.0) > 50 * (found[1].tpot_s or np.inf)


def test_the_partition_of_one_source_is_optimal_for_sequences() -> None:
    links = NetworkSpec(
        kind="point-to-point",
        links=(("phone", "hub"), ("hub", "desk"), ("phone", "desk")),
        bandwidth_bytes_per_s=1e7,
        latency_s=0.001,
    )
    profile = with_sequences(make_profile(block_s=[0.003] * 4), state_bytes=1e5)
    known = make_instance(
        profiles=[profile],
        workers={"phone": 0.5, "hub": 1.0, "desk": 2.0},
        networks={"wire": links},
        sources={"a": {"rate_per_s": 1.0, "decode": DecodeSpec(prompt=60, max_new=20)}},
        objective=ObjectiveSpec(goal="throughput"),
    )
    best, found = (solve(known, method=method, max_visits=1).plan for method in ("exhaustive", "dp"))
    assert best is not None
    assert found is not None
    assert found.objective == pytest.approx(best.objective)


def _slower_at(what: str, device_class: str) -> Profile:
    """Return a profile whose prompts or steps take four times as long."""
    profile = with_sequences(make_profile(block_s=[0.003], device_class=device_class))
    assert profile.sequences is not None
    (block,) = profile.sequences.blocks
    slower = RunCurve(**{name: 4 * value for name, value in getattr(block, what).model_dump().items()})
    costs = profile.sequences.model_copy(update={"blocks": (block.model_copy(update={what: slower}),)})
    return profile.model_copy(update={"sequences": costs})


@pytest.mark.parametrize(("weights", "chosen"), [({}, "steps"), ({"ttft_weight": 30.0}, "prompts")])
def test_weights_choose_between_quick_prompts_and_quick_steps(weights: dict[str, Any], chosen: str) -> None:
    decode = DecodeSpec(prompt=60, max_new=20, concurrent=1, **weights)
    known = make_instance(
        profiles=[_slower_at("step", "prompts"), _slower_at("prompt", "steps")],
        workers={
            "home": {"device_class": "prompts", "speed": 0.01},
            "prompts": {"device_class": "prompts"},
            "steps": {"device_class": "steps"},
        },
        sources={"a": {"worker": "home", "rate_per_s": 0.1, "decode": decode}},
    )
    solution = solve(known, time_limit_s=5)
    assert solution.plan is not None
    own = solution.plan.sources["a"]
    assert [stage.worker for stage in own.routes[0].stages] == [chosen]
    assert own.ttft_s is not None
    parts_s = weights.get("ttft_weight", 1.0) * own.ttft_s + own.delay_s - own.ttft_s
    assert evaluate(known, {"a": own.routes}).weighted_delay_s == pytest.approx(0.1 * parts_s)
