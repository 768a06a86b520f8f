"""Workers of one host slow each other down, in evaluation, simulation and search alike."""

from __future__ import annotations

import math

import pytest

from planner.plan.evaluate import evaluate, in_company
from planner.plan.types import Route, Stage
from planner.plan.verify import verify
from planner.profiling.types import ColocationCosts, Profile
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from planner.simulation.simulator import simulate
from planner.solvers.solve import solve
from planner.trace.records import SampleRecord
from tests.instances import make_instance, make_profile

ALONE, BESIDE, BLOCK_S = 1.25, 2.0, 0.01


def slowed(alone: float = ALONE, beside: float = BESIDE, others: int = 1, blocks: int = 4) -> Profile:
    costs = ColocationCosts(others=others, alone=(alone,) * blocks, beside=(beside,) * blocks)
    return make_profile(block_s=(BLOCK_S,) * blocks).model_copy(update={"colocation": costs})


def pair(
    rates: tuple[float, float], hosts: tuple[str | None, str | None] = ("box", "box"), profile: Profile | None = None,
    **keys: object,
) -> Instance:  # fmt: skip
    """Two workers, each with a source of its own."""
    spec = profile or slowed()
    return make_instance(
        profiles=[spec],
        workers={
            name: {"device_class": spec.device_class, "host": host} for name, host in zip("ab", hosts, strict=True)
        },
        sources={f"of-{name}": {"worker": name, "rate_per_s": rate} for name, rate in zip("ab", rates, strict=True)},
        **keys,  # type: ignore[arg-type]
    )


def at_home(instance: Instance) -> dict[str, tuple[Route, ...]]:
    last = instance.length("m") - 1
    return {
        source: (Route(model="m", stages=(Stage(worker=instance.home(source), first_block=0, last_block=last),)),)
        for source in instance.sources
    }


def utilisations(instance: Instance) -> dict[str, float]:
    return {name: use.utilisation for name, use in evaluate(instance, at_home(instance)).workers.items()}


@pytest.mark.parametrize("goal", ["delay", "throughput"])
@pytest.mark.parametrize("rates", [(4.0, 9.0), (0.5, 12.0), (1e-9, 8.0)])
def test_company_is_how_much_the_others_compute_and_loads_follow_from_it(rates: tuple[float, float], goal: str) -> None:
    instance = pair(rates, objective=ObjectiveSpec(goal=goal))  # type: ignore[arg-type]
    found, company = utilisations(instance), in_company(instance, at_home(instance)).company
    assert company == pytest.approx({"a": found["b"], "b": found["a"]})
    work_s = 4 * BLOCK_S
    for name, rate in zip("ab", rates, strict=True):
        assert found[name] == pytest.approx(rate * work_s * (ALONE + (BESIDE - ALONE) * company[name]))


@pytest.mark.parametrize("hosts", [(None, None), ("box", None), ("box", "crate")])
def test_workers_on_hosts_of_their_own_take_the_times_of_an_agent_alone(hosts: tuple[str | None, str | None]) -> None:
    instance = pair((4.0, 9.0), hosts)
    assert utilisations(instance) == pytest.approx({"a": 4 * 0.04 * ALONE, "b": 9 * 0.04 * ALONE})


def test_profiles_that_say_nothing_change_nothing() -> None:
    plain = make_profile(block_s=(BLOCK_S,) * 4)
    together, apart = pair((4.0, 9.0), profile=plain), pair((4.0, 9.0), (None, None), profile=plain)
    assert evaluate(together, at_home(together)) == evaluate(apart, at_home(apart))
    assert simulate(together, policy="local") == simulate(apart, policy="local")


def test_the_slowdown_is_linear_in_the_number_of_those_that_compute() -> None:
    profile = slowed(others=4)
    assert [profile.slowdown(count)[0] for count in (0, 1, 4, 6)] == pytest.approx([1.25, 1.4375, 2.0, 2.375])


@pytest.mark.parametrize("load", [0.2, 0.5])
def test_simulated_delays_are_those_evaluated(load: float) -> None:
    rate = load / (4 * BLOCK_S * BESIDE)
    instance = pair((rate, rate)).with_samples({"of-a": 4000, "of-b": 4000})
    expected = evaluate(instance, at_home(instance)).sources
    records, _ = simulate(instance, policy="local", seed=3)
    for source in instance.sources:
        delays = [
            record.finished_s - record.created_s
            for record in records
            if isinstance(record, SampleRecord) and record.source == source
        ]
        assert sum(delays) / len(delays) == pytest.approx(expected[source].delay_s, rel=0.1)


def test_a_worker_beside_one_that_always_computes_is_as_slow_as_measured() -> None:
    instance = pair((2.0, 1.0)).with_sources({"of-b": {"arrivals": "batch", "rate_per_s": None, "samples": 2000}})
    records, _ = simulate(instance.with_samples({"of-a": 50}), policy="local")
    first = [
        record.finished_s - record.created_s
        for record in records
        if isinstance(record, SampleRecord) and record.source == "of-a"
    ]
    assert min(first) == pytest.approx(4 * BLOCK_S * BESIDE)


@pytest.mark.parametrize(("method", "limit_s"), [("local", 2.0), ("search", 2.0), ("convex", 60.0)])
def test_a_plan_states_its_figures_in_its_own_company(method: str, limit_s: float) -> None:
    instance = pair((8.0, 2.0))
    plan = solve(instance, method=method, time_limit_s=limit_s).plan
    assert plan is not None
    verify(instance, plan)
    routes = {name: source.routes for name, source in plan.sources.items()}
    assert plan.objective == pytest.approx(evaluate(instance, routes).objective)
    assert plan.options["time_limit_s"] == limit_s
    free = solve(pair((8.0, 2.0), (None, None)), method=method, time_limit_s=limit_s).plan
    assert free is not None
    assert plan.bound <= free.objective * (1 + 1e-9)
    assert plan.objective >= free.bound * (1 - 1e-9)


def test_no_plan_that_company_would_overload() -> None:
    rate = 0.9 / (4 * BLOCK_S * ALONE)
    assert solve(pair((rate, rate), (None, None)), method="local").plan is not None
    solution = solve(pair((rate, rate)), method="local")
    assert solution.plan is None
    assert solution.status == "no_solution"
    assert any("busier" in reason for reason in solution.reasons)


def test_a_plan_avoids_the_company_where_another_host_is_free() -> None:
    profile = slowed(alone=1.0, beside=3.0)
    rate = 0.45 / (4 * BLOCK_S)
    instance = make_instance(
        profiles=[profile],
        workers={
            "a": {"device_class": profile.device_class, "host": "box"},
            "b": {"device_class": profile.device_class, "host": "box"},
            "c": {"device_class": profile.device_class, "host": "crate"},
        },
        sources={"one": {"worker": "a", "rate_per_s": rate}, "two": {"worker": "b", "rate_per_s": rate}},
    )
    plan = solve(instance, time_limit_s=3.0).plan
    assert plan is not None
    verify(instance, plan)
    assert plan.sources["one"].delay_s + plan.sources["two"].delay_s < sum(
        source.delay_s for source in evaluate(instance, at_home(instance)).sources.values()
    )


def test_a_profile_in_which_company_makes_faster_is_refused() -> None:
    with pytest.raises(ValueError, match="less than"):
        ColocationCosts(others=1, alone=(1.2,), beside=(1.1,))
    contents = slowed().model_dump(by_alias=True)
    contents["colocation"]["alone"] = contents["colocation"]["beside"] = (1.0,)
    with pytest.raises(ValueError, match="colocation has 1"):
        Profile.model_validate(contents)


def test_an_overloaded_host_is_one_of_infinite_delay_not_of_endless_search() -> None:
    rate = 0.9 / (4 * BLOCK_S * ALONE)
    instance = pair((rate, rate))
    found = evaluate(instance, at_home(instance))
    assert all(math.isinf(source.delay_s) for source in found.sources.values())
