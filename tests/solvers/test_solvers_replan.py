from __future__ import annotations

import pytest

from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.problem import Choice
from planner.solvers.core.scale import Scale
from planner.solvers.core.search_state import Options
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.column_generation.newton_master import NewtonMaster
from planner.solvers.routes.greedy import completed
from tests.instances import random_instance


def without(instance: Instance, worker: str) -> Instance:
    """Return the instance after a worker without a source has left."""
    scenario = instance.scenario
    workers = {name: spec for name, spec in scenario.workers.items() if name != worker}
    networks = {
        name: spec
        for name, spec in scenario.networks.items()
        if not any(worker in link for link in spec.links) and worker not in spec.members
    }
    paths = {
        sender: {receiver: path for receiver, path in by_receiver.items() if receiver != worker}
        for sender, by_receiver in instance.paths.items()
        if sender != worker
    }
    left = scenario.model_copy(update={"workers": workers, "networks": networks})
    return Instance(scenario=left, profiles=instance.profiles, paths=paths)


def a_used_worker(instance: Instance, homes: set[str], utilisation: dict[str, float]) -> str:
    return max((name for name in instance.workers if name not in homes), key=lambda name: utilisation[name])


@pytest.mark.parametrize("method", ["colgen", "milp", "search"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2))])
def test_a_plan_is_repaired_after_a_worker_left(seed: int, method: str) -> None:
    instance = random_instance(seed, sources=3, workers=5, blocks=4, load=0.25)
    before = solve(instance, method=method, time_limit_s=0.7).plan
    assert before is not None
    homes = {instance.home(source) for source in instance.sources}
    gone = a_used_worker(instance, homes, {name: use.utilisation for name, use in before.workers.items()})
    left = without(instance, gone)
    after = solve(left, method=method, start=before, time_limit_s=0.7).plan
    assert after is not None
    verify(left, after)
    assert gone not in after.workers


def test_routes_that_still_exist_are_kept() -> None:
    instance = random_instance(3, sources=3, workers=4, blocks=4, load=0.2)
    before = solve(instance, method="colgen").plan
    assert before is not None
    homes = {instance.home(source) for source in instance.sources}
    gone = a_used_worker(instance, homes, {name: use.utilisation for name, use in before.workers.items()})
    left = without(instance, gone)
    problem = build_problem(left)
    routes = {name: source.routes for name, source in before.sources.items()}
    kept = read_routes(problem, routes)
    for source, choices in zip(left.sources, kept, strict=True):
        lasting = [route for route in routes[source] if all(stage.worker != gone for stage in route.stages)]
        assert len(choices) == len(lasting)
        assert not choices or sum(choice.share for choice in choices) == pytest.approx(1)
    assert any(len(choices) < len(routes[name]) for name, choices in zip(left.sources, kept, strict=True))
    whole = completed(problem, kept)
    assert all(whole)
    assert all(choices == filled for choices, filled in zip(kept, whole, strict=True) if choices)
    again = colgen.solve(problem, Options(start=(whole,)))
    cold = colgen.solve(problem, Options())
    assert again.status == cold.status == "optimal"
    assert again.bound == pytest.approx(cold.bound, rel=1e-3)


def test_a_master_starts_from_the_shares_of_a_plan() -> None:
    problem = build_problem(random_instance(0, sources=1, workers=3, blocks=2))
    (demand,) = problem.demands
    (variant,) = demand.variants
    routes = [Choice(variant, (worker, worker), share) for worker, share in enumerate((0.5, 0.3, 0.2))]
    master = NewtonMaster(problem, Scale())
    master.add([(0, choice) for choice in routes])
    assert master.share.tolist() == pytest.approx([0.5, 0.3, 0.2])
    master.add([(0, routes[0]), (0, Choice(variant, (0, 1)))])
    assert len(master.columns) == 4  # a route is known whatever its share
    assert master.share[-1] < 0.2
