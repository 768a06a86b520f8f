"""What a plan says about its proof and its devices."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from planner.plan.evaluate import weighted_means
from planner.plan.summary import describe_worth
from planner.plan.types import PlanSpec, PlanWorth
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import solve
from planner.solvers.proof import poor_proof
from planner.solvers.worth import worth
from tests.instances import make_instance, make_profile, random_instance

GOALS = get_args(ObjectiveSpec.model_fields["goal"].annotation)


def solved(instance: Instance, **options: Any) -> PlanSpec:
    plan = solve(instance, **options).plan
    assert plan is not None
    return plan


@pytest.mark.parametrize("goal", ["delay", "throughput", "makespan"])
@pytest.mark.parametrize("routes", ["single", "shared"])
def test_worth_compares_with_plans_that_can_be_solved(goal: str, routes: Any) -> None:
    instance = random_instance(4, sources=2, workers=4, blocks=3, load=0.3, goal=goal)
    plan = solved(instance, routes=routes)
    found = worth(instance, plan, 5.0)

    def value(spec: PlanSpec) -> float:
        return weighted_means(instance, spec.sources)[0] if goal == "delay" else spec.objective

    home = solve(instance, method="local").plan
    assert (found.times_home is None) == (home is None)
    if home is not None:
        assert found.times_home == pytest.approx(value(home) / value(plan))
    used = {worker for source in plan.sources.values() for route in source.routes for worker in route.workers}
    removable = used - {instance.home(source) for source in instance.sources}
    assert (found.spare is None) == (not removable)
    if found.spare is not None and found.spare_cost is not None:
        assert found.spare in removable
        least = min(value(solved(instance.without_workers([name]), routes=routes)) for name in removable)
        # Plans are searched by the surrogate, and evaluated here: one of like surrogate may be a little better.
        assert found.spare_cost >= least / value(plan) - 1 - 1e-2
        assert found.spare_cost <= max(0.0, least / value(plan) - 1) + 0.05


def test_devices_that_are_slower_together_than_one_are_told() -> None:
    slow = NetworkSpec(kind="shared", members=("slow", "fast"), bandwidth_bytes_per_s=1e5, latency_s=0.1)
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01] * 4)],
        networks={"wifi": slow},
        sources={"camera": {"rate_per_s": 0.1}},
        objective=ObjectiveSpec(goal="delay"),
    )
    plan = solved(instance, method="equal")
    found = worth(instance, plan, 1.0)
    assert found.times_home is not None
    assert found.times_home < 1
    assert describe_worth(plan, found).startswith("the devices together are worse than one")
    best = solved(instance)
    assert describe_worth(best, worth(instance, best, 1.0)) == "no better than the whole model at home"


@pytest.mark.parametrize(
    ("times", "cost", "line"),
    [
        (2.4, 0.03, "2.4x faster than the whole model at home; dropping orin-2 would cost at most 3 %"),
        (120.0, 2.03, "120x faster than the whole model at home; dropping orin-2 would cost at most 203 %"),
        (None, 0.0, "the whole model at home would break a limit; dropping orin-2 would cost nothing"),
    ],
)
def test_one_line_by_which_a_user_decides(times: float | None, cost: float, line: str) -> None:
    plan = solved(make_instance())
    assert describe_worth(plan, PlanWorth(times_home=times, spare="orin-2", spare_cost=cost)) == line


@pytest.mark.parametrize("goal", GOALS)
def test_a_gain_is_told_in_the_words_of_the_goal(goal: str) -> None:
    plan = solved(make_instance()).model_copy(update={"goal": goal})
    better, worse = (
        describe_worth(plan, PlanWorth(times_home=times, spare=None, spare_cost=None)) for times in (125.0, 0.5)
    )
    word = {"throughput": "throughput", "misses": "misses", "energy": "power"}.get(goal, "faster")
    assert better.startswith("125x ")
    assert " 2x " in worse
    assert word in better
    assert word in worse


def test_advice_depends_on_facts() -> None:
    plan = solved(random_instance(2, goal="throughput"))
    assert poor_proof(plan, fits_milp=True) is None

    def advice(*, fits_milp: bool = True, **changes: Any) -> str:
        changed = {"gap": 0.5, "bound": 1.0, "status": "feasible", "solve_s": 1.0, **changes}
        return poor_proof(plan.model_copy(update=changed), fits_milp=fits_milp) or ""

    limit_s = plan.options["time_limit_s"]
    assert "more time" in advice(solve_s=limit_s)
    assert "more time" not in advice(solve_s=limit_s / 2)
    assert "--method milp" in advice(method="search")
    assert "--method milp" not in advice(method="search", fits_milp=False)
    assert "--method search" in advice(method="milp", fits_milp=False)
    assert "--routes shared" in advice(method="milp")
    assert "--routes shared" not in advice(method="colgen")
    assert "--method auto" in advice(method="local", bound=0.0, gap=1.0)
    assert "interrupt" in advice(status="interrupted")
