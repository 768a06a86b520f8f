"""A worker runs blocks that the plan has joined as one, and looks for other work after their session only."""

from __future__ import annotations

from math import inf

import pytest

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import make_policy
from planner.policy.types import SampleKey
from planner.scenario.instance import Instance
from planner.worker.event_checks import ProtocolError
from planner.worker.events import Arrived, BlockEnded, BlockFailed, Complete, Fail, RunBlock
from planner.worker.patience import Patience
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile

OTHER, URGENT = SampleKey("other", 0, 0), SampleKey("urgent", 0, 0)


def instance() -> Instance:
    profile = make_profile(block_s=[0.01] * 4).model_copy(update={"fusion_saving_s": (0.004, 0.004, 0.004)})
    keys = {"worker": "a", "models": ["m"]}
    return make_instance(
        profiles=[profile],
        workers={"a": 1.0},
        sources={"urgent": {**keys, "priority": 8.0}, "other": {**keys, "priority": 1.0}},
    )


def worker(*sessions: int) -> Worker:
    stage = Stage(worker="a", first_block=0, last_block=3, sessions=sessions)
    source = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=(stage,)),))
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": source, "other": source}, workers={}, networks={},
    )  # fmt: skip
    return Worker("a", instance(), make_policy("planned", instance(), plan), Patience(first_s=inf))


def test_urgent_work_waits_for_the_session_and_no_longer() -> None:
    own = worker(1, 3)
    begun = RunBlock(OTHER, "m", 0, begins_stage=True, last_block=3, sessions=(1, 3))
    assert own.step(0.0, Arrived("other", 0)) == [begun]
    assert begun.spans == ((0, 1), (2, 3))
    view = own._view
    assert view.running_until_s == pytest.approx(0.016)
    assert view.backlog_s == {1.0: pytest.approx(0.016)}
    assert own.step(0.001, Arrived("urgent", 0)) == []
    urgent = RunBlock(URGENT, "m", 0, begins_stage=True, last_block=3, sessions=(1, 3))
    assert own.step(0.016, BlockEnded(OTHER, 1, 0.016)) == [urgent]
    with pytest.raises(ProtocolError, match="times of 0 sessions"):
        own.step(0.048, BlockEnded(URGENT, 3, 0.016))
    ended, following = own.step(0.048, BlockEnded(URGENT, 3, 0.016, before_s=(0.016,)))
    assert isinstance(ended, Complete)
    assert following == RunBlock(OTHER, "m", 2, begins_stage=False, last_block=3, sessions=(3,))
    assert view.backlog_s == {}


def test_a_session_that_fails_names_the_block_and_ends_no_earlier_than_at_its_end() -> None:
    own = worker(3)
    own.step(0.0, Arrived("other", 0))
    for wrong in (BlockEnded(OTHER, 0, 0.01), BlockEnded(OTHER, 2, 0.01), BlockFailed(OTHER, 4, "no such block")):
        with pytest.raises(ProtocolError, match="is not running block"):
            own.step(0.01, wrong)
    (failed,) = (e for e in own.step(0.02, BlockFailed(OTHER, 2, "out of memory")) if isinstance(e, Fail))
    assert failed.reason == "a, block 2: out of memory"
