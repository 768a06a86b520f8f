"""Blocks that a driver runs without asking lead to the same decisions as when it asks after each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.types import PlanSpec
from planner.policy.registry import POLICIES, make_policy
from planner.scenario.instance import Instance
from planner.worker.events import BlockEnded, Effect, RunBlock, Step
from planner.worker.worker import Worker
from tests.simulation.churn import cases
from tests.worker.test_worker_event_checks import PATIENCE, logs


def run_of(effects: Sequence[Effect]) -> RunBlock | None:
    return next((effect for effect in effects if isinstance(effect, RunBlock)), None)


def together(steps: Sequence[Step], data: st.DataObject) -> Iterator[Step]:
    """Yield steps; of ends of blocks that follow one another as they may unasked, some are put into one."""
    may_go_to, before_s = -1, tuple[float, ...]()
    for index, step in enumerate(steps):
        event, after = step.event, steps[index + 1].event if index + 1 < len(steps) else None
        run = run_of(step.effects)
        if isinstance(event, BlockEnded):
            goes_on = isinstance(after, BlockEnded) and after.key == event.key and after.block == event.block + 1
            if goes_on and event.block < may_go_to and data.draw(st.booleans()):
                before_s += (event.service_s,)
                continue
            event = replace(event, before_s=before_s)
        before_s = ()
        if run is not None:
            may_go_to = run.block if run.last_block is None else run.last_block
        yield replace(step, event=event)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=8)
@given(case=cases(), seed=st.integers(0, 5), data=st.data())
def test_asking_after_each_block_changes_no_decision(
    policy: str, case: tuple[Instance, PlanSpec], seed: int, data: st.DataObject
) -> None:
    instance, plan = case
    for name, steps in logs(case, policy, seed):
        worker = Worker(name, instance, make_policy(policy, instance, plan), PATIENCE)
        for step in together(steps, data):
            assert worker.step(step.now_s, step.event) == step.effects
