"""What ``adaptive`` expects of a sequence: all of its runs, which later follow the route of the first."""

from __future__ import annotations

from typing import Any

import pytest

from planner.plan.journey import journey
from planner.plan.types import Route, Stage
from planner.policy.adaptive import Adaptive
from planner.policy.types import resource_of
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.worker.events import Arrived, Tell
from planner.worker.worker import Worker
from tests.instances import make_instance, make_profile, with_sequences
from tests.simulation.test_simulation_sequences import make_plan


def over(worker: str) -> Route:
    return Route(model="m", stages=(Stage(worker=worker, first_block=0, last_block=1),))


def instance(**decode: Any) -> Instance:
    profile = with_sequences(make_profile(block_s=[0.003, 0.003], stage_overhead_s=0.0005))
    spec = DecodeSpec(**{"prompt": 40, "max_new": 20, "concurrent": 8, **decode})
    return make_instance(
        profiles=[profile],
        workers={"home": 0.1, "one": 1.0, "two": 1.0},
        sources={
            "a": {"worker": "home", "rate_per_s": 8.0, "samples": 60, "decode": spec},
            "b": {"worker": "two", "rate_per_s": 1.0},  # whose home is told
        },
    )


@pytest.mark.parametrize("decode", [{}, {"chunk": 16}, {"next": "sample", "max_new": 1}])
def test_a_sequence_is_expected_to_take_the_work_of_all_its_runs(decode: dict[str, Any]) -> None:
    known = instance(**decode)
    plan = make_plan(known, {"a": [over("one")], "b": [over("two")]})
    policy = Adaptive(known, plan)
    worker = Worker("home", known, policy)
    effects = worker.step(0.0, Arrived("a", 0, sequence=1))
    options = {
        option.route.stages[0].worker: option for option in policy._options["a"] if len(option.route.stages) == 1
    }
    assert options
    for option in options.values():
        assert option.least_s == pytest.approx(journey(known, "a", option.route).unloaded_s)
    statuses = [
        effect.message.status for effect in effects if isinstance(effect, Tell) and effect.message.kind == "status"
    ]
    booked = {resource: booking.work_s for status in statuses for resource, booking in status.booked}
    (worked,) = (name for name in known.workers if resource_of(name) in booked)
    assert booked[resource_of(worked)] == pytest.approx(_stage_s(known, worked))


def _stage_s(known: Instance, worker: str) -> float:
    trip = journey(known, "a", over(worker))
    return sum(visit.probability * visit.mean_s for visit in trip.visits if visit.site.resource == worker)
