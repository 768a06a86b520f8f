"""One measurement of a method or a rule on an instance, in a process of its own for its time and its memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter, process_time
from typing import Final

from benchmarks.solve.instances import CLASSES
from benchmarks.solve.rules import RULES, Chain
from planner.plan.evaluate import evaluate
from planner.plan.verify import verify
from planner.scenario.instance import Instance
from planner.solvers import solve
from planner.solvers.core.build import build_problem, read_routes

PATIENCE: Final = 3.0
"""A process is given up after this multiple of its time limit, and a minute."""


@dataclass(frozen=True)
class Measurement:
    """Result of one method on one instance.

    Parameters
    ----------
    value
        Objective of the scenario's goal by an evaluation that shares no code with the solvers; None without a plan.
    bound
        Proven lower bound of the value; None where nothing is proven.
    seconds
        From the call to the plan, with the imports of solver libraries.
    cpu_s
        Processor time of the same, which other work on the machine hardly changes.
    peak_mib
        Largest memory of the process, with Python and all libraries.
    """

    instance: str
    method: str
    status: str
    value: float | None
    bound: float | None
    seconds: float
    cpu_s: float
    peak_mib: float

    @property
    def gap(self) -> float | None:
        """Relative gap between value and bound."""
        if self.value is None or self.bound is None:
            return None
        return max(0.0, 1 - self.bound / self.value)


def measured(instance: str, method: str, *, limit_s: float, seed: int) -> Measurement:
    """Return a measurement made in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.solve.measure", instance, method, str(limit_s), str(seed)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE * limit_s + 60)
    except subprocess.TimeoutExpired as error:
        return Measurement(instance, method, "does not end", None, None, float(error.timeout), 0.0, 0.0)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Measurement(instance, method, f"fails: {reason[:60]}", None, None, 0.0, 0.0, 0.0)
    return Measurement(**json.loads(done.stdout))


def measure(name: str, method: str, limit_s: float, seed: int) -> Measurement:
    """Measure in this process."""
    instance = CLASSES[name](seed)
    start_s, cpu_s = perf_counter(), process_time()
    found = _by_rule(instance, method) if method in RULES else _by_solver(instance, method, limit_s)
    status, value, bound = found
    took_s = perf_counter() - start_s, process_time() - cpu_s
    return Measurement(name, method, status, value, bound, *took_s, _peak_mib())


def _by_solver(instance: Instance, method: str, limit_s: float) -> tuple[str, float | None, float | None]:
    name, _, routes = method.partition(" ")
    solution = solve(instance, method=name, routes=routes or None, time_limit_s=limit_s)  # type: ignore[arg-type]
    plan = solution.plan
    if plan is None:
        return solution.status, None, None
    verify(instance, plan)
    value = evaluate(instance, {source: spec.routes for source, spec in plan.sources.items()}).objective
    return plan.status, value, plan.bound if plan.bound > 0 else None


def _by_rule(instance: Instance, method: str) -> tuple[str, float | None, float | None]:
    chain = Chain(instance)
    routes = {source: [chain.route(RULES[method](chain))] for source in instance.sources}
    problem = build_problem(instance)
    if not problem.feasible(read_routes(problem, routes)):
        return "breaks a limit", None, None
    return "feasible", evaluate(instance, routes).objective, None


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    json.dump(asdict(measure(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))), sys.stdout)
