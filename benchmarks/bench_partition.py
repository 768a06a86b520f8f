"""One source over many distinct devices, goal ``throughput``: `dp` and `search` beside the rules of other projects.

The rules are implemented here: PipeEdge's dynamic program over all subsets of devices (exact for distinct devices),
a greedy one that gives each block to the device that keeps the bottleneck lowest, segments in proportion to speed, and
equal segments. Values are seconds per sample at the bottleneck, times are CPU seconds on one thread.

References
----------
Y. Hu et al., "PipeEdge: Pipeline parallelism for large-scale model inference on heterogeneous edge devices", DSD 2022.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from planner.cli.output import print_table
from planner.solvers.core.deadline import Deadline
from planner.solvers.core.demand import Demand, Variant
from planner.solvers.core.problem import Choice, Problem
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.methods import bottleneck_dp as dp
from planner.solvers.methods.baselines import by_speed_plan, equal_plan
from planner.solvers.methods.local_search import method as search

SIZES: Final = ((96, 8), (200, 8), (96, 12), (96, 16), (96, 32), (200, 16), (200, 32))
MAX_SUBSET_DEVICES: Final = 12
SEEDS: Final = (0, 1, 2)
LIMIT_S: Final = 10.0
MBIT_BYTES: Final = 1024 * 1024 / 8


def run() -> None:
    """Print the figures next to their goals."""
    rows = [row for size in SIZES for seed in SEEDS for row in _compare(*size, seed)]
    print_table("Partition over devices", ("what", ">size, seed", ">value", ">gap", ">CPU time", ">goal"), rows)


def make_problem(blocks: int, devices: int, seed: int) -> Problem:
    """Return a problem with speeds from 1 to 10 and links of 100 to 1000 Mbit/s, the slower device deciding."""
    random = np.random.default_rng(1000 * blocks + devices + 7 * seed)
    base_s = random.uniform(0.05, 0.5, blocks)
    speed = np.sort(np.exp(random.uniform(0.0, np.log(10), devices)))[::-1]
    bandwidth = random.choice([100, 200, 300, 500, 1000], devices).astype(float)
    cuts = np.concatenate([[1], 4 * random.integers(50_000, 750_000, blocks)[:-1], [1]]).astype(float)
    away = ~np.eye(devices, dtype=bool)
    names = tuple(f"d{device}" for device in range(devices))
    return Problem(
        goal="throughput",
        kappa=1.0,
        loss_s=0.0,
        workers=names,
        resources=(*names, *(f"{a}>{b}" for a in names for b in names)),
        models=("m",),
        demands=(Demand("s", 0, 1.0, 1.0, np.inf, 0.0, (0,)),),
        variants=(
            Variant(
                model=0,
                operating_point=0,
                accuracy=1.0,
                reach=np.ones(blocks + 1),
                block_s=base_s[:, None] / speed,
                overhead_s=np.zeros(devices),
                cut_bytes=cuts,
                exit_bytes=np.zeros(blocks),
                exit_share=np.zeros(blocks),
            ),
        ),
        hop_resource=devices + np.arange(devices**2).reshape(devices, devices, 1),
        hop_s_per_byte=np.where(away, 1 / (np.minimum.outer(bandwidth, bandwidth) * MBIT_BYTES), 0.0)[:, :, None],
        latency_s=np.zeros((devices, devices)),
        memory_bytes=np.full(devices, 1e15),
        weight_bytes=(np.ones((blocks, devices)),),
        activation_bytes=(np.ones((blocks, devices)),),
        parameters=(np.ones(blocks),),
    )


def subset_program(problem: Problem) -> float:
    """Return the least bottleneck over distinct devices, by dynamic programming over all subsets of devices."""
    model, count = problem.variants[0], len(problem.workers)
    length = len(model)
    done_s = np.vstack([np.zeros(count), np.cumsum(model.block_s, axis=0)])
    stage = done_s[None, :, :] - done_s[:, None, :]
    stage[np.tril_indices(length + 1)] = np.inf
    hop = model.cut_bytes[:, None, None] * problem.hop_s_per_byte[:, :, 0]
    best = np.full((2**count, count, length + 1), np.inf)
    for device in range(count):
        best[1 << device, device] = np.maximum(stage[0, :, device], hop[0, 0, device])
    for used in range(1, 2**count):
        members = [device for device in range(count) if used >> device & 1]
        for device in range(count):
            if used >> device & 1:
                continue
            begin = np.maximum(best[used, members], hop[:, members, device].T).min(axis=0)
            ends = np.maximum(begin[:, None], stage[:, :, device]).min(axis=0)
            np.minimum(best[used | 1 << device, device], ends, out=best[used | 1 << device, device])
    return float(np.maximum(best[:, :, length], hop[length, :, 0]).min())


def greedy(problem: Problem) -> float:
    """Return the bottleneck if each block in turn goes to the device that keeps the bottleneck lowest."""
    model, count = problem.variants[0], len(problem.workers)
    busy, links = np.zeros(count), np.zeros((count, count))
    last = 0
    for block in range(len(model)):
        sent = model.cut_bytes[block] * problem.hop_s_per_byte[last, :, 0]
        more = np.maximum(busy + model.block_s[block], np.where(sent > 0, links[last] + sent, 0.0))
        device = int(more.argmin())
        busy[device] += model.block_s[block, device]
        links[last, device] += sent[device]
        last = device
    links[last, 0] += model.cut_bytes[-1] * problem.hop_s_per_byte[last, 0, 0]
    return float(max(busy.max(), links.max()))


def _timed(what: Callable[[], float]) -> tuple[float, float]:
    start_s = time.process_time()
    value = what()
    return value, time.process_time() - start_s


def _best(problem: Problem, outcome: Outcome) -> float:
    return min(map(problem.objective, outcome.incumbents))


def _compare(blocks: int, devices: int, seed: int) -> list[tuple[str, ...]]:
    problem = make_problem(blocks, devices, seed)
    distinct = dataclasses.replace(problem, max_visits=1)
    size = f"{blocks} × {devices}, {seed}"
    bounds: dict[str, float] = {}

    def solved(name: str, method: Callable[[Problem, Options], Outcome], of: Problem) -> Callable[[], float]:
        def run_method() -> float:
            outcome = method(of, Options(gap=1e-3, deadline=Deadline.after(LIMIT_S, time.process_time)))
            bounds[name] = outcome.bound
            return _best(of, outcome)

        return run_method

    rules: dict[str, tuple[Callable[[], float], str]] = {
        "dp, distinct devices": (solved("dp, distinct devices", dp.solve, distinct), "optimum, < subset program"),
        "search, visits free": (solved("search, visits free", search.solve, problem), "<= 3 % in 10 s"),
        "greedy": (lambda: greedy(problem), ""),
        "by speed": (lambda: _objective(problem, by_speed_plan(problem)), ""),
        "equal": (lambda: _objective(problem, equal_plan(problem)), ""),
    }
    if devices <= MAX_SUBSET_DEVICES:
        rules["subset program (PipeEdge's rule)"] = (lambda: subset_program(problem), "")
    rows: list[tuple[str, ...]] = []
    for name, (rule, goal) in rules.items():
        value, seconds = _timed(rule)
        gap = f"{1 - bounds[name] / value:.2%}" if name in bounds else ""
        rows.append((name, size, f"{value:.4f}", gap, f"{seconds:.2f} s", goal))
    return rows


def _objective(problem: Problem, choices: tuple[tuple[Choice, ...], ...] | None) -> float:
    return problem.objective(choices) if choices else float("inf")
