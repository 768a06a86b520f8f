"""HiGHS as the solvers use it."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest

from planner.errors import SolveError
from planner.solvers.core.build import build_problem
from planner.solvers.core.highs import INFINITY, Program, ProgramResult
from planner.solvers.core.infeasibility import explain_infeasibility
from planner.solvers.core.search_state import Options
from planner.solvers.methods.convex import cp
from planner.solvers.methods.mip import method as milp
from planner.solvers.methods.mip.elastic import relaxations
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.solve import solve
from tests.instances import make_instance, random_instance

TASKS = Path("/proc/self/task")


def knapsack(seed: int, *, size: int = 25, rows: int = 8, **options: Any) -> Program:
    """Return a knapsack problem that takes HiGHS several nodes."""
    random = np.random.default_rng(seed)
    program = Program(**options)
    program.add_columns(np.zeros(size), np.ones(size), integer=np.arange(size))
    bounds = np.full(rows, -INFINITY), np.full(rows, size / 3)
    entries = 2 * random.random(rows * size)
    program.add_rows(*bounds, np.arange(rows) * size, np.tile(np.arange(size), rows), entries)
    program.set_costs(-random.random(size) - 0.5)
    return program


def test_the_time_limit_of_a_linear_program_is_for_one_run() -> None:
    random = np.random.default_rng(0)
    size = 150
    program = Program()
    program.add_columns(np.zeros(size), np.full(size, INFINITY))
    bounds = np.full(size, -INFINITY), np.ones(size)
    entries = random.random(size * size)
    program.add_rows(*bounds, np.arange(size) * size, np.tile(np.arange(size), size), entries)
    while program._highs.getRunTime() < 1.0:
        program.set_costs(-random.random(size))
        assert program.run().end == "optimal"
    program.set_costs(-random.random(size))
    assert program.run(1.0).end == "optimal"


def test_models_with_different_thread_counts_follow_each_other() -> None:
    problem = build_problem(random_instance(0))
    outcomes = [milp.solve(problem, Options(threads=threads)) for threads in (1, 2, 1, 3)]
    assert [outcome.status for outcome in outcomes] == ["optimal"] * 4
    assert [outcome.bound for outcome in outcomes] == pytest.approx([outcomes[0].bound] * 4, rel=1e-4)


def test_models_with_different_thread_counts_run_at_once() -> None:
    counts = [1, 2, 3, 4] * 2
    with ThreadPoolExecutor(len(counts)) as pool:
        answers = list(pool.map(lambda place: knapsack(place % 4, threads=counts[place]).run(), range(len(counts))))
    assert {answer.end for answer in answers} == {"optimal"}
    alone = [knapsack(seed).run().objective for seed in range(4)] * 2
    assert [answer.objective for answer in answers] == pytest.approx(alone, rel=1e-3)


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
def test_no_thread_outlives_a_run() -> None:
    before = set(TASKS.iterdir())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: knapsack(0, threads=4).run()).result().end == "optimal"
    assert knapsack(0, threads=4).run().end == "optimal"
    patience = iter(range(200))
    while not set(TASKS.iterdir()) <= before:  # the system takes a thread away a little after its end
        assert next(patience, None) is not None, set(TASKS.iterdir()) - before
        time.sleep(0.05)


def test_hitting_a_limit_that_was_not_set_is_an_error() -> None:
    with pytest.raises(SolveError, match=r"HiGHS .*has not solved the program.*Solution limit"):
        knapsack(1, size=60, rows=30, settings={"mip_max_improving_sols": 1}).run()
    program = Program(settings={"simplex_iteration_limit": 0, "presolve": "off"})
    program.add_row(1.0, INFINITY, {program.add_column(): 1.0})
    with pytest.raises(SolveError, match=r"HiGHS .*has not solved the program.*Iteration limit"):
        program.run()


def test_a_limit_on_nodes_that_was_set_ends_a_run() -> None:
    assert knapsack(1, size=60, rows=30, settings={"mip_max_nodes": 0}).run().end == "stopped"


def test_a_program_without_a_bound_is_an_error() -> None:
    program = Program()
    program.set_cost(program.add_column(), -1.0)
    with pytest.raises(SolveError, match="Unbounded"):
        program.run()


def test_input_that_highs_rejects_is_an_error() -> None:
    with pytest.raises(SolveError, match="rejects option threads"):
        Program(threads=-1)
    with pytest.raises(SolveError, match="rejects a row"):
        Program().add_row(0.0, 1.0, {3: 1.0})


def test_infeasibility_is_a_result() -> None:
    program = Program()
    program.add_row(2.0, INFINITY, {program.add_column(upper=1.0): 1.0})
    assert program.run() == ProgramResult("infeasible")


def test_a_program_can_be_extended_and_run_again() -> None:
    program = Program()
    first, second = program.add_column(), program.add_column(upper=2.0)
    program.set_cost(first, 1.0)
    row = program.add_row(3.0, INFINITY, {first: 1.0, second: 1.0})
    answer = program.run()
    assert answer.values is not None
    assert answer.duals is not None
    assert (answer.objective, answer.bound, answer.values.tolist(), answer.duals[row]) == (1.0, 1.0, [1.0, 2.0], 1.0)
    program.add_row(2.0, INFINITY, {first: 1.0})
    program.set_cost(second, 1.0)
    assert program.run().objective == 3.0


def test_objectives_of_a_model_are_minimised_in_order() -> None:
    model: Any = pyo.ConcreteModel()
    model.x = pyo.Var(range(3), bounds=(0, 4), domain=pyo.NonNegativeIntegers)
    model.enough = pyo.Constraint(expr=model.x[0] + model.x[1] >= 3.5)
    model.between = pyo.Constraint(expr=(1, model.x[0] + 2 * model.x[2], 3))
    model.first = pyo.Objective(expr=model.x[0] + model.x[1] + 1)
    model.second = pyo.Objective(expr=model.x[1] - 3 * model.x[2])
    program = ModelProgram(model)
    assert program.run(10.0).objective == pytest.approx(5.0)
    program.limit(0, 5.0)
    program.minimise(1)
    assert program.run(10.0).objective == pytest.approx(0.0)
    assert [model.x[place].value for place in range(3)] == pytest.approx([1.0, 3.0, 1.0])
    program.add_at_least([(model.x[0], 1.0), (model.x[2], -1.0)], 1.5)
    assert program.run(10.0).objective == pytest.approx(1.0)


@pytest.mark.parametrize(
    "modules", ["mip.elastic_lp, column_generation.lp_master", "mip.method, mip.elastic", "convex"]
)
def test_highs_prints_nothing(modules: str) -> None:
    code = (
        "".join(f"import planner.solvers.methods.{module.strip()}; " for module in modules.split(","))
        + "from planner.solvers.core.highs import Program; Program().add_column()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_file_descriptors_are_unchanged_during_a_solve() -> None:
    """Other threads write to the descriptors during a solve."""
    code = (
        "import os, threading\n"
        "from planner.solvers import solve\n"
        "from tests.instances import random_instance\n"
        "end = threading.Event()\n"
        "def write():\n"
        "    while not end.is_set():\n"
        "        os.write(1, b'x'); os.write(2, b'y'); written.append(None); end.wait(0.001)\n"
        "written = []\n"
        "thread = threading.Thread(target=write)\n"
        "thread.start()\n"
        "for method in ('milp', 'colgen', 'convex'):\n"
        "    assert solve(random_instance(0, goal='throughput'), method=method).plan\n"
        "end.set()\n"
        "thread.join()\n"
        "os.write(1, b' %d' % len(written))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    marks, count = done.stdout.split()
    assert marks == "x" * int(count)
    assert done.stderr == "y" * int(count)


@pytest.mark.parametrize("status", ["unbounded", "solver_error", "something_new"])
def test_a_status_of_clarabel_without_a_result_is_an_error(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cp.Problem, "status", property(lambda _: status))
    with pytest.raises(SolveError, match=f"Clarabel has not solved the program.*{status}"):
        solve(make_instance(), method="convex")


def test_a_failure_of_clarabel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise cp.SolverError("no progress")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    with pytest.raises(SolveError, match="Clarabel has failed: no progress"):
        solve(make_instance(), method="convex")


def test_relaxations_not_found_in_time_are_not_named() -> None:
    problem = build_problem(make_instance(sources={"camera": {"rate_per_s": 1.0, "max_mean_delay_s": 0.001}}))
    options = Options()
    options.stop.set()
    assert relaxations(problem, options) is None
    assert explain_infeasibility(problem, None) != explain_infeasibility(problem, {})
    assert "were not found" in explain_infeasibility(problem, relaxations(problem, options))[0]
