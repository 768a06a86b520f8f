from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner.errors import SolveError
from planner.plan.evaluate import evaluate
from planner.plan.verify import verify
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import METHODS, solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Choice
from planner.solvers.core.search_state import Options
from planner.solvers.methods import exhaustive
from planner.solvers.methods.mip import method as milp
from tests.examples import examples
from tests.instances import MIB, make_instance, make_profile, random_instance

EXACT = Options(gap=1e-7)


@st.composite
def tiny_instances(draw: st.DrawFn) -> Instance:
    return random_instance(
        draw(st.integers(0, 10_000)),
        sources=draw(st.integers(1, 2)),
        workers=draw(st.integers(2, 3)),
        blocks=draw(st.integers(1, 3)),
        load=draw(st.sampled_from([0.2, 0.4, 0.6])),
        tight_memory=draw(st.booleans()),
        links=draw(st.booleans()),
        goal=draw(st.sampled_from(["delay", "throughput", "makespan"])),
    )


def with_exits(seed: int, min_accuracy: float) -> Instance:
    """Return an instance of a source that may use two models, one with an exit, and of another source."""
    points = [
        OperatingPoint(name="hasty", accuracy=0.7, thresholds=(0.5,), reach=(1.0, 0.4, 0.4)),
        OperatingPoint(name="full", accuracy=0.9, thresholds=(1.0,), reach=(1.0, 1.0, 1.0)),
    ]
    exits = [ExitPoint(name="e", cut=1, result_bytes=500)]
    deep = make_profile("deep", block_s=[0.02, 0.03, 0.03], exits=exits, operating_points=points, stage_overhead_s=1e-3)
    flat = make_profile(
        "flat", block_s=[0.01, 0.02], operating_points=[OperatingPoint(name="only", accuracy=0.8, reach=(1.0, 1.0))]
    )
    return make_instance(
        profiles=[deep, flat],
        workers={"a": 1.0, "b": 2.0 + seed, "c": 1.5},
        sources={
            "one": {"models": ["deep", "flat"], "rate_per_s": 6.0, "priority": 5.0, "min_accuracy": min_accuracy},
            "two": {"models": ["flat"], "rate_per_s": 4.0, "worker": "c"},
        },
        objective=ObjectiveSpec.model_validate({"accuracy_worth": 0.001 * seed}),
    )


@settings(max_examples=25, deadline=None)
@example(random_instance(238, sources=1, blocks=3, load=0.2, tight_memory=True, links=False))  # needs close tangents
@given(tiny_instances())
def test_milp_equals_exhaustive_search(instance: Instance) -> None:
    problem = build_problem(instance)
    outcome, oracle = milp.solve(problem, EXACT), exhaustive.solve(problem, EXACT)
    assert outcome.status == oracle.status
    if oracle.status == "optimal":
        best = min(problem.objective(choices) for choices in outcome.incumbents)
        assert best == pytest.approx(oracle.bound, rel=1e-6)
        assert outcome.bound <= best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("min_accuracy", [0.0, 0.75, 0.85])
def test_operating_points_are_chosen_with_the_routes(seed: int, min_accuracy: float) -> None:
    problem = build_problem(with_exits(seed, min_accuracy))
    oracle = exhaustive.solve(problem, EXACT)
    assert milp.solve(problem, EXACT).bound == pytest.approx(oracle.bound, rel=1e-6)


def test_max_visits_holds() -> None:
    """The best route leaves and returns; the limit forbids it."""
    profile = make_profile(block_s=[0.03] * 3, cut_bytes=[10**6, 10, 10, 10**6])
    instance = make_instance(profiles=[profile], workers={"home": 1.0, "fast": 20.0})
    back = milp.solve(build_problem(instance), EXACT)
    once = milp.solve(build_problem(instance, max_visits=1), EXACT)
    assert [choices[0][0].workers for choices in back.incumbents] == [(0, 1, 0)]
    assert once.bound > back.bound
    assert once.bound == pytest.approx(exhaustive.solve(build_problem(instance, max_visits=1), EXACT).bound, rel=1e-6)


@examples(6, nightly=60)
@given(tiny_instances(), st.sampled_from(["evaluated", "surrogate"]))
def test_every_plan_passes_verification(instance: Instance, rank: str) -> None:
    solution = solve(instance, rank=rank, time_limit_s=5.0)  # type: ignore[arg-type]  # drawn from its two values
    assert (solution.plan is None) == (solution.status == "infeasible")
    assert (solution.plan is None) == bool(solution.reasons)
    if solution.plan is not None:
        verify(instance, solution.plan)


@given(seed=st.integers(0, 100), links=st.booleans(), data=st.data())
def test_arrays_and_evaluation_agree_on_any_route(seed: int, *, links: bool, data: st.DataObject) -> None:
    """Solvers and evaluation compute loads and objective with different code."""
    instance = random_instance(
        seed, links=links, load=0.1, goal=data.draw(st.sampled_from(["delay", "throughput", "makespan"]))
    )
    problem = build_problem(instance)
    workers = st.tuples(*[st.integers(0, 2)] * 4)
    choices = tuple((Choice(number, data.draw(workers)),) for number in range(2))
    evaluation = evaluate(instance, problem.routes(choices))
    if problem.objective(choices) < float("inf"):
        assert evaluation.objective == pytest.approx(problem.objective(choices), rel=1e-9)
    utilisation = problem.load(choices).sum(axis=0)
    uses = [*evaluation.workers.values(), *evaluation.networks.values()]
    assert [use.utilisation for use in uses] == pytest.approx(utilisation.tolist())  # type: ignore[attr-defined]  # both have it
    assert [use.memory_bytes for use in evaluation.workers.values()] == pytest.approx(
        problem.memory_used(choices).tolist()
    )


@pytest.mark.parametrize(
    ("keys", "source", "words"),
    [
        ({"a": {"memory_bytes": 200.5 * MIB}}, {"rate_per_s": 1.0}, r"worker a lacks 1\.88 MiB"),
        ({"a": 1.0}, {"rate_per_s": 100.0}, "worker a would be 200% busy, 95% is allowed"),
        (
            {"a": 1.0},
            {"rate_per_s": 1.0, "max_mean_delay_s": 0.01},
            "max_mean_delay 10 ms of camera: the best is 20 ms",
        ),
        ({"a": 1.0}, {"rate_per_s": 1.0, "min_accuracy": 0.95}, r"accuracy 95\.0%: the best is 90\.0%"),
    ],
)
def test_the_limits_to_relax_are_named(
    keys: dict[str, dict[str, float] | float], source: dict[str, float], words: str
) -> None:
    point = OperatingPoint(name="p", accuracy=0.9, reach=(1.0, 1.0))
    instance = make_instance(
        profiles=[make_profile(operating_points=[point])], workers=keys, networks={}, sources={"camera": source}
    )
    solution = solve(instance)
    assert solution.status == "infeasible"
    assert len(solution.reasons) == 1
    assert re.search(words, solution.reasons[0])


def test_a_deadline_missed_by_queueing_alone_does_not_prove_infeasibility() -> None:
    instance = make_instance(
        workers={"a": 1.0}, networks={}, sources={"camera": {"rate_per_s": 40.0, "max_mean_delay_s": 0.021}}
    )
    solution = solve(instance)
    assert solution.status == "no_solution"
    assert "its max_mean_delay is 21 ms" in solution.reasons[0]


def test_a_deadline_missed_by_queueing_leads_to_another_plan() -> None:
    instance = random_instance(0, load=0.35, blocks=5)
    free = solve(instance, rank="surrogate").plan
    assert free is not None
    spec = instance.scenario.sources["s0"].model_copy(update={"max_mean_delay_s": 0.9 * free.sources["s0"].delay_s})
    sources = {**instance.scenario.sources, "s0": spec}
    promised = instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"sources": sources})})
    solution = solve(promised)
    assert solution.plan is not None
    verify(promised, solution.plan)
    assert solution.plan.bound * (1 - 1e-9) <= free.objective < solution.plan.objective


@pytest.mark.parametrize("method", ["milp", "exhaustive", "search", "colgen", "convex", "local", "two-part"])
def test_workers_without_a_path_are_not_used(method: str) -> None:
    link = NetworkSpec(kind="point-to-point", links=(("home", "near"),), bandwidth_bytes_per_s=1e7)
    instance = make_instance(workers={"home": 1.0, "near": 2.0, "far": 100.0}, networks={"link": link})
    plan = solve(instance, method=method).plan
    assert plan is not None
    assert plan.workers["far"].utilisation == 0


@pytest.mark.parametrize("method", ["milp", "exhaustive", "search", "colgen", "convex"])
def test_blocks_that_no_sample_reaches_stay_at_home(method: str) -> None:
    """All samples leave after the first block, which is worth sending to another worker."""
    profile = make_profile(
        block_s=[0.05, 0.05, 0.05],
        exits=[ExitPoint(name="e", cut=1, result_bytes=500)],
        operating_points=[OperatingPoint(name="hasty", accuracy=0.7, thresholds=(0.0,), reach=(1.0, 0.0, 0.0))],
    )
    instance = make_instance(
        profiles=[profile],
        workers={"far": 2.0, "home": 1.0, "fast": 20.0},
        sources={"camera": {"worker": "home", "rate_per_s": 5.0}},
    )
    plan = solve(instance, method=method).plan
    assert plan is not None
    verify(instance, plan)
    stages = [(stage.worker, stage.last_block) for route in plan.sources["camera"].routes for stage in route.stages]
    assert stages == [("fast", 0), ("home", 2)]


def test_the_time_limit_keeps_the_best_plan() -> None:
    solution = solve(random_instance(0, sources=4, workers=6, blocks=10), time_limit_s=1.0, gap=0.0)
    assert solution.status in {"feasible", "no_solution"}


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SolveError, match="unknown method"):
        solve(make_instance(), method="magic")
    with pytest.raises(SolveError, match="unknown ranking"):
        solve(make_instance(), rank="beauty")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(SolveError, match="too many routes"):
        solve(random_instance(0, sources=4, workers=6, blocks=8), method="exhaustive")


def test_solver_libraries_are_imported_with_a_method() -> None:
    code = "import sys, planner.solvers; print([name for name in ('pyomo', 'highspy', 'cvxpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_pins_bind_blocks_to_workers() -> None:
    problem = dataclasses.replace(build_problem(make_instance()), pins={"camera": {1: 0}})
    assert milp.solve(problem, EXACT).incumbents[-1][0][0].workers[1] == 0


@pytest.mark.parametrize("method", ["milp", "search"])
def test_ctrl_c_keeps_the_best_plan(method: str) -> None:
    code = (
        f"import planner.solvers.methods.{METHODS[method].module}\n"
        "from planner.solvers import solve; from tests.instances import random_instance\n"
        "instance = random_instance(0, sources=6, workers=8, blocks=16, load=0.2)\n"
        "print('ready', flush=True)\n"
        f"print(solve(instance, method='{method}', gap=0.0).status, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"
