"""Solver speed on random instances: column generation against the arc program, re-planning, partition, gaps.

Instances have worker speeds 1, 2, 4 and 10, priorities 1, 2, 5 and 10, a link of 5-60 MB/s per pair of workers, and
rates at 60 % of the summed speed; links are congested like workers. Figures are medians over seeds, on one thread (set
OPENBLAS_NUM_THREADS=1 for comparable figures).
"""

from __future__ import annotations

import dataclasses
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np

from planner.cli.output import print_table
from planner.plan.replan import Situation
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.solvers.core.demand import Demand, Variant
from planner.solvers.core.highs import SilentHighs
from planner.solvers.core.problem import Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.methods.column_generation import method as colgen
from planner.solvers.methods.local_search import method as search
from planner.solvers.methods.mip import method as milp
from planner.solvers.methods.mip import model as milp_model
from planner.solvers.replan.replanner import solve_again
from planner.solvers.solve import solve
from tests.fleets import make_fleet
from tests.instances import random_instance

SEEDS: Final = range(5)
GAP: Final = 1e-3


def run() -> None:
    """Print the figures next to their goals."""
    rows = [*_shared(), *_large(), *_fleets(), *_replan(), *_bottleneck(), *_single()]
    print_table("Solvers", ("what", ">size", ">measured", ">goal"), rows)


def make_problem(sources: int, workers: int, blocks: int, seed: int, *, load: float = 0.6) -> Problem:
    """Return a random problem with the given numbers of sources, workers and blocks."""
    random = np.random.default_rng(seed)
    speed = random.choice([1, 2, 4, 10], size=workers)
    bandwidth, latency_s = (
        (values + values.T) / 2
        for values in (
            random.uniform(5e6, 60e6, size=(workers, workers)),
            random.uniform(0.5e-3, 3e-3, size=(workers, workers)),
        )
    )
    home = random.integers(0, workers, size=sources)
    priority = random.choice([1.0, 2.0, 5.0, 10.0], size=sources)
    base_s = random.uniform(0.5, 1.5, size=(sources, blocks)) * 4e-3
    cut = random.uniform(0.2, 1.0, size=(sources, blocks + 1)) * 800e3 * np.linspace(1.0, 0.1, blocks + 1)
    cut[:, 0], cut[:, blocks] = 600e3, 4e3
    rate = load * speed.sum() / base_s.sum()
    np.fill_diagonal(latency_s, 0.0)
    links = np.arange(workers * workers).reshape(workers, workers) + workers
    names = [f"w{worker}" for worker in range(workers)]
    return Problem(
        goal="delay",
        kappa=1.0,
        loss_s=0.0,
        workers=tuple(names),
        resources=(*names, *(f"{a}>{b}" for a in names for b in names)),
        models=tuple(f"m{source}" for source in range(sources)),
        demands=tuple(
            Demand(f"s{s}", int(home[s]), float(rate), float(priority[s]), np.inf, 0.0, (s,)) for s in range(sources)
        ),
        variants=tuple(
            Variant(
                model=source,
                operating_point=0,
                accuracy=1.0,
                reach=np.ones(blocks + 1),
                block_s=base_s[source][:, None] / speed,
                overhead_s=np.zeros(workers),
                cut_bytes=cut[source],
                exit_bytes=np.zeros(blocks),
                exit_share=np.zeros(blocks),
            )
            for source in range(sources)
        ),
        hop_resource=links[:, :, None],
        hop_s_per_byte=np.where(np.eye(workers, dtype=bool), 0.0, 1 / bandwidth)[:, :, None],
        latency_s=latency_s,
        memory_bytes=np.full(workers, 1e15),
        weight_bytes=tuple(np.ones((blocks, workers)) for _ in range(sources)),
        activation_bytes=tuple(np.ones((blocks, workers)) for _ in range(sources)),
        parameters=tuple(np.ones(blocks) for _ in range(sources)),
    )


def _timed(solve: Callable[[Problem, Options], Outcome], problem: Problem, options: Options) -> tuple[float, Outcome]:
    start_s = perf_counter()
    outcome = solve(problem, options)
    return perf_counter() - start_s, outcome


def _gap(problem: Problem, outcome: Outcome) -> float:
    best = min((problem.objective(choices) for choices in outcome.incumbents), default=np.inf)
    return (best - outcome.bound) / best if best < np.inf else np.inf


def _shared() -> list[tuple[str, str, str, str]]:
    ratios, seconds = [], []
    for seed in SEEDS:
        problem = make_problem(8, 16, 20, seed)
        colgen_s, _ = _timed(colgen.solve, problem, Options(gap=GAP))
        seconds.append(colgen_s)
        ratios.append(_arc_program_s(problem) / colgen_s)
    size = "8 × 16 × 20"
    return [
        ("shared routes: column generation", size, f"{statistics.median(seconds):.2f} s", ""),
        ("  times faster than the arc LP by HiGHS", size, f"{statistics.median(ratios):.1f}", ">= 15"),
    ]


def _arc_program_s(problem: Problem) -> float:
    """Return the time in seconds of the faster of simplex and interior point on the arc program with fixed tangents."""
    import pyomo.environ as pyo

    model: Any = milp_model.build_model(problem)
    pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arcs.lp"
        model.write(str(path))
        for algorithm in ("simplex", "ipm"):
            highs: Any = SilentHighs()
            highs.readModel(str(path))
            highs.setOptionValue("solver", algorithm)
            highs.setOptionValue("threads", 1)
            highs.setOptionValue("time_limit", min([60.0, *times]))
            start_s = perf_counter()
            highs.run()
            times.append(perf_counter() - start_s)
    return min(times)


def _large() -> list[tuple[str, str, str, str]]:
    rows = []
    for size, goal in (((16, 32, 53), ""), ((32, 64, 53), ""), ((64, 128, 53), "<= 10 s, 0.1 %")):
        problem = make_problem(*size, 0)
        seconds, outcome = _timed(colgen.solve, problem, Options(gap=GAP))
        text = f"{seconds:.1f} s, gap {_gap(problem, outcome):.2%}"
        rows.append(("shared routes: column generation", " × ".join(map(str, size)), text, goal))
    return rows


def _fleets() -> list[tuple[str, str, str, str]]:
    """Time shared routes on sites that share a backbone, at some loads, from the instance to the evaluated plan."""
    rows, goal = [], "2 % in 120 s, < 2 GB"
    cases = ((8, 250, 1, 0.5, ""), (32, 1000, 1, 0.5, ""), (32, 1000, 2, 0.5, goal), (32, 1000, 2, 0.8, goal))
    for sites, sources, threads, load, wanted in cases:
        fleet = make_fleet(sites=sites, workers_per_site=16, sources=sources, blocks=20, load=load)
        start_s, cpu_s = perf_counter(), process_time()
        plan = solve(fleet, method="colgen", gap=0.015, time_limit_s=120, threads=threads).plan
        took = f"{perf_counter() - start_s:.0f} s, {process_time() - cpu_s:.0f} s of processor time"
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        text = f"{took}, gap {plan.gap if plan else np.inf:.2%}, process {peak_mb:.0f} MB"
        rows.append((f"fleet at load {load:g}, threads {threads}", f"{sources} × {16 * sites} × 20", text, wanted))
    return rows


def _replan() -> list[tuple[str, str, str, str]]:
    """Time re-planning after a source's rate rose by 20 %, and after the busiest worker without a source left.

    The latter is timed as agents see it, from the situation to the evaluated plan; the former without evaluation.
    """
    seconds: dict[str, list[float]] = {"a rate changed": [], "a worker left": []}
    for seed in SEEDS:
        problem = make_problem(8, 16, 20, seed)
        before = colgen.solve(problem, Options(gap=GAP))
        best = min(before.incumbents, key=problem.objective)
        first = dataclasses.replace(problem.demands[0], volume=1.2 * problem.demands[0].volume)
        faster = dataclasses.replace(problem, demands=(first, *problem.demands[1:]))
        start_s = perf_counter()
        colgen.solve(faster, Options(gap=GAP, start=(best,)))
        seconds["a rate changed"].append(perf_counter() - start_s)
        instance = random_instance(seed, sources=8, workers=16, blocks=20, load=0.6)
        plan = solve(instance, method="colgen", rank="surrogate", gap=GAP).plan
        if plan is None:
            continue
        left = Situation.of([_busiest(instance, plan)], {})
        start_s = perf_counter()
        solve_again(instance, plan, left, time_limit_s=5.0)
        seconds["a worker left"].append(perf_counter() - start_s)
    return [
        (f"re-plan after {what}", "8 × 16 × 20", f"{statistics.median(times):.3f} s", "<= 0.05 s")
        for what, times in seconds.items()
    ]


def _busiest(instance: Instance, plan: PlanSpec) -> str:
    """Return the busiest of the workers at which no samples arrive."""
    homes = {spec.worker for spec in instance.scenario.sources.values()}
    return max(set(instance.workers) - homes, key=lambda worker: plan.workers[worker].utilisation)


def _bottleneck() -> list[tuple[str, str, str, str]]:
    problem = make_problem(1, 16, 48, 0)
    speed = np.linspace(1.0, 10.0, 16)
    slow = problem.variants[0].block_s.max(axis=1, keepdims=True)
    variant = dataclasses.replace(problem.variants[0], block_s=slow / speed)
    problem = dataclasses.replace(problem, goal="throughput", max_visits=1, variants=(variant,))
    seconds, outcome = _timed(dp.solve, problem, Options())
    return [("bottleneck partition, distinct workers", "1 × 16 × 48", f"{seconds:.1f} s, {outcome.status}", "<= 2 s")]


def _single() -> list[tuple[str, str, str, str]]:
    rows = []
    for method, size, seeds, goal in (
        (milp.solve, (2, 3, 20), [0], ""),
        (search.solve, (2, 3, 20), [0], ""),
        (milp.solve, (8, 16, 20), [0], ""),
        (search.solve, (8, 16, 20), SEEDS, "5 % in 30 s"),
    ):
        seconds, gaps = [], []
        for seed in seeds:
            problem = make_problem(*size, seed)
            method_s, outcome = _timed(method, problem, Options(gap=GAP, time_limit_s=30))
            seconds.append(method_s)
            gaps.append(_gap(problem, outcome))
        name = method.__module__.removeprefix("planner.solvers.methods.").removesuffix(".method")
        text = f"{statistics.median(seconds):.1f} s, gap {statistics.median(gaps):.2%}"
        rows.append((f"one route per source: {name}", " × ".join(map(str, size)), text, goal))
    return rows
