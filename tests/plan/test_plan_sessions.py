"""Blocks of a plan's stages that are joined to one session."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import PlanError, SolveError
from planner.plan.evaluate import evaluate
from planner.plan.sessions import choices_of_wait, join_blocks, longest_wait_s
from planner.plan.types import Route, Stage
from planner.plan.verify import verify
from planner.policy.candidate_routes import extended_candidate_routes
from planner.profiling.types import ExitPoint
from planner.scenario.instance import Instance
from planner.simulation.simulator import simulate
from planner.solvers import solve
from planner.trace.records import BlockRecord, SampleRecord
from tests.instances import make_instance, make_profile, random_instance, with_savings, with_sequences

BLOCKS = 6


def route(*stages: tuple[str, int, int], model: str = "m", share: float = 1.0) -> Route:
    built = tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages)
    return Route(model=model, share=share, stages=built)


def two_classes(*savings_s: float, exits: tuple[int, ...] = (), other: str = "m", rate_per_s: float = 5.0) -> Instance:
    """Return an instance of an urgent source and another one, of model ``other``, with blocks of 10 ms."""
    points = [ExitPoint(name=f"exit{cut}", cut=cut, result_bytes=4) for cut in exits]
    profiles = [
        make_profile(name, block_s=[0.01] * BLOCKS, exits=points if name == "m" else ()).model_copy(
            update={"fusion_saving_s": savings_s}
        )
        for name in dict.fromkeys(("m", other))
    ]
    return make_instance(
        profiles=profiles,
        workers={"a": 1.0, "b": 1.0},
        sources={
            "urgent": {"rate_per_s": rate_per_s, "priority": 100.0, "samples": 300, "models": ["m"]},
            "other": {"rate_per_s": rate_per_s, "priority": 1.0, "samples": 300, "models": [other]},
        },
    )


SAVINGS = (0.002, 0.003, 0.0, 0.002, 0.001)
WHOLE = {"urgent": [route(("a", 0, 5))], "other": [route(("a", 0, 5))]}


def sessions(routes: dict[str, tuple[Route, ...]]) -> dict[str, list[tuple[int, ...]]]:
    return {name: [stage.sessions for each in own for stage in each.stages] for name, own in routes.items()}


def test_blocks_are_joined_where_that_saves_time_but_not_across_an_exit() -> None:
    assert sessions(join_blocks(two_classes(*SAVINGS), WHOLE)) == {name: [(2, 5)] for name in WHOLE}
    assert sessions(join_blocks(two_classes(*SAVINGS, exits=(2,)), WHOLE)) == {name: [(1, 2, 5)] for name in WHOLE}
    assert join_blocks(two_classes(), WHOLE) == {name: tuple(routes) for name, routes in WHOLE.items()}
    profile = with_sequences(make_profile(block_s=[0.01] * BLOCKS).model_copy(update={"fusion_saving_s": SAVINGS}))
    assert not make_instance(profiles=[profile]).joins


def test_sessions_end_where_a_stage_of_any_source_does() -> None:
    routes = {"urgent": [route(("a", 0, 3), ("b", 4, 5))], "other": [route(("a", 0, 5), share=0.5), route(("b", 0, 5))]}
    assert sessions(join_blocks(two_classes(*[0.002] * 5), routes)) == {
        "urgent": [(3,), (5,)],
        "other": [(3, 5), (3, 5)],
    }


@pytest.mark.parametrize(("max_wait_s", "ends"), [(inf, (5,)), (0.035, (3, 5)), (0.0181, (1, 3, 5)), (0.0, ())])
def test_more_urgent_work_waits_no_longer_than_asked(max_wait_s: float, ends: tuple[int, ...]) -> None:
    instance = two_classes(*[0.002] * 5, other="n")
    routes = {"urgent": [route(("a", 0, 5))], "other": [route(("a", 0, 5), model="n")]}
    joined = join_blocks(instance, routes, max_wait_s)
    assert sessions(joined) == {"urgent": [(5,)], "other": [ends]}
    assert longest_wait_s(instance, joined) <= min(max_wait_s, 0.05) + 1e-12
    assert choices_of_wait(instance, routes)[0] == inf
    assert choices_of_wait(instance, {**routes, "other": [route(("b", 0, 5), model="n")]}) == [inf]


@given(
    savings=st.lists(st.floats(-0.005, 0.02), min_size=5, max_size=5),
    cuts=st.lists(st.integers(1, 5), max_size=3, unique=True),
    max_wait_s=st.floats(0.0, 0.07),
)
def test_sessions_cover_stages_and_never_cost_time(savings: list[float], cuts: list[int], max_wait_s: float) -> None:
    instance = two_classes(*savings)
    borders = [0, *sorted(cuts), BLOCKS]
    stages = [("ab"[index % 2], first, end - 1) for index, (first, end) in enumerate(pairwise(borders))]
    routes = {"urgent": [route(*stages)], "other": [route(("b", 0, 5))]}
    joined = join_blocks(instance, routes, max_wait_s)
    for name, (own,) in joined.items():
        assert [(s.worker, s.first_block, s.last_block) for s in own.stages] == [
            (s.worker, s.first_block, s.last_block) for s in routes[name][0].stages
        ]
        for stage in own.stages:
            assert [block for first, last in stage.spans for block in range(first, last + 1)] == list(
                range(stage.first_block, stage.last_block + 1)
            )
    together = {(stage.worker, span) for (own,) in joined.values() for stage in own.stages for span in stage.spans}
    at_b = sorted(span for worker, span in together if worker == "b")
    assert all(before[1] < after[0] for before, after in pairwise(at_b))
    assert evaluate(instance, joined).workers["b"].utilisation <= evaluate(instance, routes).workers["b"].utilisation


@pytest.mark.parametrize("max_wait_s", [inf, 0.03, 0.0])
def test_the_simulation_runs_the_sessions_that_the_evaluation_prices(max_wait_s: float) -> None:
    instance = two_classes(*[0.003] * 5, other="n", rate_per_s=4.0)
    routes = {"urgent": [route(("a", 0, 5))], "other": [route(("a", 0, 2), ("b", 3, 5), model="n")]}
    joined = join_blocks(instance, routes, max_wait_s)
    found = evaluate(instance, joined)
    plan = solve(instance, method="local").plan
    assert plan is not None
    plan = plan.model_copy(update={"sources": found.sources})
    records, _ = simulate(instance, policy="planned", plan=plan)
    ran = {
        source: {(r.worker, r.block, r.last) for r in records if isinstance(r, BlockRecord) and r.source == source}
        for source in routes
    }
    assert ran == {
        source: {(stage.worker, *span) for stage in own[0].stages for span in stage.spans}
        for source, own in joined.items()
    }
    for source, entry in found.sources.items():
        delays = [r.delay_s for r in records if isinstance(r, SampleRecord) and r.source == source]
        assert sum(delays) / len(delays) == pytest.approx(entry.delay_s, rel=0.25)
    busy_s = sum(r.end_s - r.start_s for r in records if isinstance(r, BlockRecord) and r.source == "urgent")
    assert busy_s / 300 == pytest.approx(0.06 - 5 * 0.003)


def test_policies_that_cut_anywhere_run_block_by_block() -> None:
    instance = two_classes(*[0.003] * 5)
    plan = solve(instance, method="local").plan
    assert plan is not None
    assert any(stage.sessions for entry in plan.sources.values() for r in entry.routes for stage in r.stages)
    candidates = extended_candidate_routes(instance, plan)
    assert not any(stage.sessions for own in candidates.values() for r in own for stage in r.stages)
    for policy in ("adaptive", "pa-mdi", "ar-mdi", "local"):
        few = instance.with_samples({"urgent": 5, "other": 5})
        records, _ = simulate(few, policy=policy, plan=plan)
        assert {r.last_block for r in records if isinstance(r, BlockRecord)} == {None}


def test_a_plan_weighs_the_time_saved_against_the_urgent_delay() -> None:
    instance = two_classes(*[1e-4] * 5, other="n", rate_per_s=6.0)
    plan = solve(instance.with_workers({"b": {"speed": 1e-3}}), method="local").plan
    assert plan is not None
    assert [stage.sessions for stage in plan.sources["urgent"].routes[0].stages] == [(5,)]
    assert [stage.sessions for stage in plan.sources["other"].routes[0].stages] == [()]
    assert plan.max_wait_s is None
    saving = two_classes(*[8e-3] * 5, other="n", rate_per_s=6.0)
    plan = solve(saving.with_workers({"b": {"speed": 1e-3}}), method="local").plan
    assert plan is not None
    assert [stage.sessions for stage in plan.sources["other"].routes[0].stages] == [(5,)]
    assert plan.max_wait_s == pytest.approx(0.02)
    for max_wait_s, ends in ((0.0, ()), (0.013, (1, 3, 5)), (1.0, (5,))):
        limited = solve(saving.with_workers({"b": {"speed": 1e-3}}), method="local", max_wait_s=max_wait_s).plan
        assert limited is not None
        assert [stage.sessions for stage in limited.sources["other"].routes[0].stages] == [ends]
        assert [stage.sessions for stage in limited.sources["urgent"].routes[0].stages] == [(5,)]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(SolveError, match="max_wait_s: not a time"):
            solve(saving, max_wait_s=wrong)


def test_random_instances_have_the_same_cost_in_problem_and_evaluation() -> None:
    for seed in range(3):
        instance = with_savings(random_instance(seed, sources=1, load=0.3), 0.3)
        plan = solve(instance, method="exhaustive", rank="surrogate").plan
        assert plan is not None
        verify(instance, plan)
        assert plan.gap == pytest.approx(0.0, abs=1e-9)
        other = solve(instance, method="search", rank="surrogate", time_limit_s=5).plan
        assert other is not None
        assert other.objective == pytest.approx(plan.objective)


def test_a_plan_with_sessions_that_cannot_be_is_refused() -> None:
    instance = two_classes(*SAVINGS, exits=(3,))
    plan = solve(instance, method="local").plan
    assert plan is not None
    verify(instance, plan)
    joined = Route(model="m", stages=(Stage(worker="a", first_block=0, last_block=5, sessions=(5,)),))
    entry = plan.sources["other"].model_copy(update={"routes": (joined,)})
    with pytest.raises(PlanError, match=r"an exit ends a session; found 'blocks 0-5'; expected a session ends at 2"):
        verify(instance, plan.model_copy(update={"sources": {**plan.sources, "other": entry}}))
    for sessions_of in ((4,), (5, 3), (2, 2, 5), (6,)):
        with pytest.raises(ValidationError, match="sessions end with blocks"):
            Stage(worker="a", first_block=3, last_block=5, sessions=sessions_of)
