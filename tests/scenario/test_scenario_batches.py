"""What sources may ask of batches."""

from __future__ import annotations

from typing import Any

import pytest

from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.check_batches import check_batches
from tests.instances import linear_batches, make_instance, make_profile

KNOWN = make_profile(batches=linear_batches(2, 0.8))


def messages(*sources: dict[str, Any], profile: Any = KNOWN) -> list[str]:
    keys = {"worker": "a", "models": ["m"], "rate_per_s": 1.0}
    of = make_instance(
        profiles=[profile],
        workers={"a": 1.0},
        sources={f"s{index}": {**keys, **spec} for index, spec in enumerate(sources)},
    )
    return [
        str(finding.fault(".".join(map(str, finding.location)))) for finding in check_batches(of.scenario, of.profiles)
    ]


def test_what_can_be() -> None:
    assert messages({}) == []
    assert messages({}, profile=make_profile()) == []
    assert messages({"max_batch": 8, "max_batch_wait_s": 0.01}, {"max_batch": 8}) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"max_batch": 9},
            "sources.s0.max_batch: the profile of m on reference knows batches of up to 8 only; found 9",
        ),
        ({"max_batch_wait_s": 0.01}, "sources.s0.max_batch_wait: no batch is waited for; expected a max_batch above 1"),
        ({"max_batch": 2, "decode": {"prompt": 4, "max_new": 4}}, "sequences run no batches"),
    ],
)
def test_what_cannot_be(source: dict[str, Any], words: str) -> None:
    assert words in "\n".join(messages(source))


def test_sources_that_share_a_model_agree() -> None:
    (found,) = messages({"max_batch": 4}, {"max_batch": 2})
    assert "source s0 shares model m and has another max_batch; found 2; expected 4, or another model" in found


def test_models_without_batches_are_refused_with_the_command() -> None:
    (found,) = messages({"max_batch": 2}, profile=make_profile())
    assert "knows no batches" in found
    assert "planner profile measure --batches 1,…,2" in found
    exits = [ExitPoint(name="e", cut=1, result_bytes=8)]
    points = [OperatingPoint(name="p", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.5))]
    leaving = make_profile(exits=exits, operating_points=points)
    assert "m has early exits, and runs no batches" in messages({"max_batch": 2}, profile=leaving)[0]


@pytest.mark.parametrize(("key", "value"), [("max_batch", 2), ("max_batch_wait_s", 0.0)])
def test_a_worker_limits_only_what_some_source_asks_for(key: str, value: float) -> None:
    def found(**spec: Any) -> list[str]:
        sources = {"s": {"worker": "a", "models": ["m"], "rate_per_s": 1.0, **spec}}
        of = make_instance(profiles=[KNOWN], workers={"a": 1.0}, sources=sources)
        of = of.with_scenario(workers={"a": of.scenario.workers["a"].model_copy(update={key: value})})
        return [str(each.fault(".".join(map(str, each.location)))) for each in check_batches(of.scenario, of.profiles)]

    assert found(max_batch=4, deadline_s=1.0, percentiles_s={"p95": 1.0}, queue_timeout_s=1.0) == []
    name = key.removesuffix("_s")
    assert found() == [f"workers.a.{name}: no source runs batches; expected a source with a max_batch above 1"]
