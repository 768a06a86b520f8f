"""Every method looks at its deadline, in all phases; a library that does not is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pytest

from planner.solvers import solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.deadline import Deadline, Expired, call_until
from planner.solvers.core.highs import Program
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.search_state import Options, Search
from planner.solvers.methods import bottleneck_dp, convex
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.known_plans import known_plans
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.mip import elastic, model
from planner.solvers.methods.mip import method as milp
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.routes.greedy import greedy_rounds
from tests.instances import make_instance, random_instance

METHODS = {"milp": milp.solve, "convex": convex.solve, "colgen": colgen.solve, "search": search.solve}


@dataclass
class Clock:
    """A clock that goes one second further each time someone looks at it."""

    looks: int = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("goal", ["delay", "throughput"])
def test_a_method_ends_at_its_deadline_with_what_it_has(method: str, goal: str) -> None:
    problem = build_problem(random_instance(3, sources=3, workers=4, blocks=6, goal=goal))
    known = greedy_rounds(problem, 1)[0]
    for limit in (5, 50, 500):
        clock = Clock()
        outcome = METHODS[method](
            problem, Options(time_limit_s=limit, gap=0.0, start=(known,), deadline=Deadline(now_s=clock))
        )
        value = min(problem.objective(choices) for choices in outcome.incumbents)
        assert value <= problem.objective(known)
        assert outcome.bound <= value
        if outcome.status != "optimal":
            assert clock.looks < limit + 200  # the way out looks at the clock as well, but works no further


def test_a_partition_ends_at_its_deadline() -> None:
    problem = build_problem(random_instance(0, sources=1, workers=6, blocks=8, goal="throughput"), max_visits=1)
    clock = Clock()
    outcome = bottleneck_dp.solve(problem, Options(time_limit_s=4, deadline=Deadline(now_s=clock)))
    assert outcome.status != "optimal"
    assert clock.looks < 15


@pytest.mark.parametrize("limit_s", [0, 1, 5, 20])
def test_plans_of_rules_end_at_the_deadline_with_those_before(limit_s: float) -> None:
    problem = build_problem(random_instance(0, sources=4, workers=4, blocks=5))
    clock = Clock()
    found = known_plans(problem, Deadline.after(limit_s, clock))
    assert clock.looks <= limit_s + 2
    assert set(found) < set(known_plans(problem, Deadline()))


def test_greedy_routes_end_at_the_deadline_after_a_whole_round() -> None:
    problem = build_problem(random_instance(0, sources=4, workers=3, blocks=4))
    with pytest.raises(Expired):
        greedy_rounds(problem, 3, deadline=Deadline.after(2, Clock()))
    assert len(greedy_rounds(problem, 3, deadline=Deadline.after(6, Clock()))) == 1


@pytest.mark.parametrize("limit_s", [1, 10, 100])
def test_the_construction_of_a_program_ends_at_the_deadline(limit_s: float) -> None:
    problem = build_problem(random_instance(0, sources=2, workers=3, blocks=4))
    with pytest.raises(Expired):
        model.build_model(problem, deadline=Deadline.after(limit_s, Clock()))
    with pytest.raises(Expired):
        ModelProgram(model.build_model(problem), deadline=Deadline.after(limit_s, Clock()))
    assert elastic.relaxations(problem, Options(deadline=Deadline.after(limit_s, Clock()))) is None


def test_options_never_extend_a_deadline() -> None:
    clock = Clock()
    options = Options(time_limit_s=100, deadline=Deadline(now_s=clock))
    later = Options(time_limit_s=1000, deadline=options.deadline)
    sooner = Options(time_limit_s=10, deadline=options.deadline)
    assert sooner.deadline.end_s < options.deadline.end_s == later.deadline.end_s
    options.stop.set()
    assert sooner.deadline.passed
    assert Search(build_problem(make_instance()), later).out_of_time


def test_a_library_that_does_not_stop_is_left_behind() -> None:
    released, abandoned = threading.Event(), threading.Event()
    deadline = Deadline()
    deadline.stop.set()
    with pytest.raises(Expired):
        call_until(deadline, lambda: released.wait(60), abandoned.set)
    assert abandoned.is_set()
    released.set()


def test_a_run_of_highs_left_behind_gives_the_best_solution_that_it_reported() -> None:
    """HiGHS is kept from ending by a callback that waits; a knapsack has a solution before that."""
    released, found = threading.Event(), threading.Event()
    deadline = Deadline()
    program = Program(deadline=deadline, settings={"presolve": "off", "mip_rel_gap": 0.0})
    size = np.array([31.0, 37.0, 41.0, 43.0, 47.0, 53.0, 59.0, 61.0])
    program.add_columns(np.zeros(8), np.ones(8), integer=np.arange(8))
    program.add_rows(np.array([-np.inf]), np.array([150.0]), np.array([0]), np.arange(8), size)
    program.set_costs(-size)

    def wait(_: Any) -> None:
        found.set()
        deadline.stop.set()
        released.wait(60)

    program._highs.cbMipImprovingSolution.subscribe(wait)
    result = program.run()
    assert found.is_set()
    assert result.end == "stopped"
    assert result.values is not None
    assert size @ result.values <= 150 + 1e-6
    assert program.run().values is None  # the program is still in use
    released.set()


def test_no_absolute_gap_ends_a_search_early() -> None:
    """The default of HiGHS, 1e-6, is a large gap where rates are low."""
    assert Program()._highs.getOptionValue("mip_abs_gap")[1] == 0.0


def test_one_thread_repeats_bit_for_bit() -> None:
    instance = random_instance(1, sources=3, workers=4, blocks=6)
    one, two = (solve(instance, method="milp", threads=1).plan for _ in range(2))
    assert one is not None
    assert two is not None
    times = {"solve_s", "search"}
    assert one.model_dump(exclude=times) == two.model_dump(exclude=times)
    several = solve(instance, method="milp", threads=2).plan
    assert several is not None
    assert (one.threads, several.threads) == (1, 2)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_best_plan() -> None:
    """The signal comes from the progress callback, so that the search has certainly begun."""
    code = f"""
import os, signal
from planner.solvers import solve
from tests.instances import random_instance
sent = []
stop = lambda *_: sent or sent.append(os.kill(os.getpid(), signal.{signal.SIGINT.name}))
found = solve(random_instance(0, sources=6, workers=8, blocks=10), method="search", gap=0.0, progress=stop)
print(found.status, found.plan.status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "interrupted interrupted\n", done.stderr


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_a_series_of_searches() -> None:
    series, one = threading.Event(), threading.Event()
    with on_interrupt(series):
        with on_interrupt(one):
            signal.raise_signal(signal.SIGINT)
        assert one.is_set()
        assert series.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_highs_has_the_callbacks_that_are_used() -> None:
    for name in ("cbMipInterrupt", "cbMipImprovingSolution", "cbSimplexInterrupt", "cbIpmInterrupt"):
        assert hasattr(highspy.Highs, name)
