"""Records that are copied with something changed answer as if they had been made that way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.base import FrozenModel
from planner.plan.types import Route, Stage
from planner.scenario.instance import Instance
from tests.instances import random_instance

PROPERTIES = [
    name
    for name, found in vars(Instance).items()
    if isinstance(found, cached_property | property) and not name.startswith("_")
]

CHANGES: dict[str, Callable[[Instance], Instance]] = {
    "a copy": copy.copy,
    "a deep copy": copy.deepcopy,
    "nothing": lambda found: found.model_copy(),
    "without workers": lambda found: found.without_workers({"w2"}),
    "slowed": lambda found: found.slowed({"w0": 8.0, "w1": 3.0}),
    "only sources": lambda found: found.only_sources({"s1"}),
    "without latency": lambda found: found.without_latency(),
    "with samples": lambda found: found.with_samples({"s0": 3}),
    "with sources": lambda found: found.with_sources({"s1": {"in_flight": 4, "priority": 3.0}}),
    "with workers": lambda found: found.with_workers({"w1": {"memory_bytes": 5e8}}),
    "with an objective": lambda found: found.with_objective(accuracy_worth_s=0.5),
    "with other networks": lambda found: found.with_scenario(networks={}),
    "estimated": lambda found: found.model_copy(
        update={
            "profiles": {
                model: {name: one.model_copy(update={"provenance": "estimated"}) for name, one in by_class.items()}
                for model, by_class in found.profiles.items()
            }
        }
    ),
}


def answers(instance: Instance) -> dict[str, Any]:
    """Give what an instance says of itself."""
    said: dict[str, Any] = {name: getattr(instance, name) for name in PROPERTIES}
    for name in instance.workers:
        said[f"worker {name}"] = instance.worker(name)
    for name in instance.sources:
        said[f"source {name}"] = instance.home(name), instance.samples(name)
    for model, worker in product(instance.profiles, instance.workers):
        said[f"{model} on {worker}"] = instance.block_s(model, worker).tolist()
    for one, other in product(instance.workers, repeat=2):
        said[f"{one} to {other}"] = instance.path(one, other)
    return said


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.booleans(), st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=3))
def test_a_changed_instance_answers_like_one_that_is_made_anew(seed: int, links: bool, changes: list[str]) -> None:  # noqa: FBT001 # drawn
    found = random_instance(seed, links=links)
    # A source must stay where its home leaves, or there is no scenario.
    found = found.with_sources(dict.fromkeys(found.sources, {"worker": "w0"}))  # noqa: RUF024 # is not changed
    for change in changes:
        answers(found)  # so that all is in the cache
        if change not in {"with samples", "with sources"} or {"s0", "s1"} <= set(found.sources):
            found = CHANGES[change](found)
        assert answers(found) == answers(Instance.model_validate_json(found.model_dump_json()))


def test_properties_are_among_what_is_asked() -> None:
    assert {"workers", "sources", "resources", "accuracies", "provenance"} <= set(PROPERTIES)


def test_what_was_copied_keeps_its_answers() -> None:
    found = random_instance(0)
    assert found.workers == ("w0", "w1", "w2")
    left = found.without_workers({"w2"})
    assert (left.workers, found.workers) == (("w0", "w1"), ("w0", "w1", "w2"))
    assert all("w2" not in path for path in left.paths.values())
    assert np.allclose(found.slowed({"w0": 4.0}).block_s("m0", "w0"), 4 * found.block_s("m0", "w0"))


def test_a_copy_of_a_route_knows_its_workers() -> None:
    route = Route(model="m", stages=(Stage(worker="a", first_block=0, last_block=1),))
    assert route.workers == {"a"}
    moved = route.model_copy(update={"stages": (Stage(worker="b", first_block=0, last_block=1),)})
    assert moved.workers == {"b"}
    assert copy.deepcopy(route) == route


def test_a_copy_of_any_record_works_its_properties_out_anew() -> None:
    class Made(FrozenModel):
        number: int

        @cached_property
        def twice(self) -> int:
            return 2 * self.number

    made = Made(number=2)
    assert made.twice == 4
    assert made.model_copy(update={"number": 3}).twice == 6
    assert made.model_copy(update={"number": 3}, deep=True).twice == 6


def test_a_change_of_what_is_not_there_is_refused() -> None:
    found = random_instance(0)
    with pytest.raises(TypeError, match="Instance has no field scenarios"):
        found.model_copy(update={"scenarios": found.scenario})
    with pytest.raises(TypeError, match="SourceSpec has no field rate"):
        found.with_sources({"s0": {"rate": 3.0}})
    with pytest.raises(KeyError, match="the scenario has no s9"):
        found.with_samples({"s9": 3})
