"""The page of the worker says what workers do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.types import PlanSpec
from planner.policy.registry import POLICIES
from planner.scenario.instance import Instance
from planner.trace.records import Record
from planner.worker.events import Effect, Event
from tests.docs.worker_page import EVENTS, EVERY, effects_of, handlers
from tests.docs.worker_states import transitions
from tests.simulation.churn import cases
from tests.simulation.observed import ObservedSimulator


def test_every_event_has_a_handler() -> None:
    assert set(handlers()) == set(EVENTS)


def test_a_result_cannot_follow_an_arrival() -> None:
    assert "Complete" in effects_of("BlockEnded")
    assert "Complete" not in effects_of("Arrived")
    assert not effects_of("Joined")
    assert "RunBlock" in effects_of(EVERY)


@settings(max_examples=10)
@given(case=cases(), policy=st.sampled_from(POLICIES), seed=st.integers(0, 99))
def test_workers_do_nothing_that_the_page_does_not_say(case: tuple[Instance, PlanSpec], policy: str, seed: int) -> None:
    def observe(_name: str, _now_s: float, event: Event, effects: list[Effect]) -> None:
        allowed = effects_of(type(event).__name__) | effects_of(EVERY)
        assert {type(effect).__name__ for effect in effects} <= allowed

    records: list[Record] = []
    instance, plan = case
    ObservedSimulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append, observe=observe).run()
    assert records


def test_other_runs_have_no_other_states() -> None:
    shown, others = transitions(), transitions(range(10_000, 10_060))
    for known, found in zip(shown, others, strict=True):
        assert set(found) <= set(known)


def test_every_sample_and_task_ends_where_the_picture_says() -> None:
    samples, tasks = transitions()
    assert {end for _, end in samples} - {start for start, _ in samples} == {"completed", "failed", "dropped"}
    assert ("runs", "queued") in tasks  # between blocks, under policies that look there
    assert ("completed", "in flight") not in samples
