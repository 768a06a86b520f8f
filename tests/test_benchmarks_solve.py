"""The kept results of solvers: rules of other projects, and the check that nothing got worse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.solve.instances import CLASSES, SMALL, bottleneck, memory
from benchmarks.solve.measure import Measurement, measure
from benchmarks.solve.results import Results, got_worse, rendered
from benchmarks.solve.rules import RULES, Chain, subsets
from planner.plan.evaluate import evaluate
from planner.solvers import solve


@pytest.mark.parametrize(("layers", "devices", "seed"), [(6, 3, 0), (9, 4, 1), (12, 5, 2)])
def test_the_rule_of_subsets_is_exact(layers: int, devices: int, seed: int) -> None:
    instance = bottleneck(layers, devices, seed)
    chain = Chain(instance)
    found = evaluate(instance, {"s": [chain.route(subsets(chain))]}).objective
    best = solve(instance, method="dp", max_visits=1).plan
    assert best is not None
    assert found == pytest.approx(best.objective, rel=1e-6)


def test_rules_give_a_device_to_every_block() -> None:
    chain = Chain(memory(20, 4, 0))
    for rule in RULES.values():
        devices = rule(chain)
        assert len(devices) == 20
        assert set(devices) <= set(range(4))


@pytest.mark.parametrize("name", SMALL)
def test_a_measurement_has_value_time_and_memory(name: str) -> None:
    found = measure(name, "ar-mdi", 5.0, 0)
    assert (found.value is None) == (found.status != "feasible")
    assert found.seconds > 0
    assert found.peak_mib > 10


def test_only_a_class_that_got_worse_fails_the_check() -> None:
    auto = Measurement("bottleneck 12 x 4", "auto", "feasible", 1.0, 0.9, 1.0, 1.0, 100.0)
    before = Results("1.0.0", 10.0, 0, (auto, replace(auto, method="rule greedy", value=0.5)))
    for value, worse in ((1.019, 0), (0.5, 0), (1.03, 2), (None, 2)):
        after = replace(before, measurements=(replace(auto, value=value), before.measurements[1]))
        assert sum(map(len, got_worse(before, after).values())) == worse
    other = replace(before, measurements=(replace(auto, value=1.03), replace(auto, method="search", value=1.0)))
    assert sum(map(len, got_worse(before, other).values())) == 1  # `auto` is worse, the best method is not
    assert not got_worse(before, other.bettered([auto]))
    assert got_worse(before, other.bettered([replace(auto, value=None), replace(auto, value=2.0)]))
    assert before.merged(other).value("bottleneck 12 x 4", "auto") == 1.03
    assert "bottleneck 12 x 4" in rendered(before)


def test_classes_are_those_that_their_names_say() -> None:
    for name in ("bottleneck 48 x 14", "memory 200 x 32", "classes 80 x 24", "throughput 2 x 16 x 20"):
        instance = CLASSES[name](0)
        assert len(instance.workers) in {14, 16, 24 + 1, 32}
