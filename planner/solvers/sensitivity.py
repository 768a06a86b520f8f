"""Sensitivity of a plan: what one more MiB, one more Mbit/s, or a 10 % faster worker would be worth.

With shared routes the problem is convex and its duals are shadow prices. Speed θ divides a resource's seconds, so by
the envelope theorem dV / d log θ is the cost of its present load at these prices. With one route per source, and always
for memory, the changed problem is solved again, warm-started from the plan's routes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from planner.plan.types import NetworkPrice, PlanPrices, PlanSpec, WorkerPrice
from planner.scenario.instance import Instance
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.deadline import Deadline, Expired
from planner.solvers.core.interrupt import on_interrupt
from planner.solvers.core.problem import Array, Choices, Integers, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.solve import load_method

SPEED_FACTOR = 1.1
"""Factor by which a worker gets faster."""
MBIT_BYTES = 1e6 / 8
MIB = 2**20


def sensitivity(
    instance: Instance,
    plan: PlanSpec,
    *,
    time_limit_s: float = 10.0,
    progress: Callable[[str], None] | None = None,
) -> PlanPrices:
    """Return the value of resources of ``instance`` under a plan that :func:`planner.solvers.solve` made for it.

    Parameters
    ----------
    time_limit_s
        Time limit of each problem that is solved resolver.
    progress
        Called with the name of each change before it is solved.

    Raises
    ------
    Expired
        Ctrl-C ended it.
    """
    options = Options(time_limit_s=time_limit_s, gap=float(plan.options.get("gap", 1e-4)))
    with on_interrupt(options.stop):
        return _prices(instance, plan, options, progress or (lambda _: None))


def _prices(instance: Instance, plan: PlanSpec, options: Options, progress: Callable[[str], None]) -> PlanPrices:
    pins = {
        source: {int(block): worker for block, worker in workers.items()} for source, workers in _pins(plan).items()
    }
    ordered = instance.in_order_of_names()
    problem = build_problem(ordered, max_visits=plan.options.get("max_visits"), pins=pins)
    known = read_routes(problem, {name: source.routes for name, source in plan.sources.items()})
    method = load_method(plan.method)
    resolver = _Resolver(problem, method, options, progress)
    outcome = resolver.solve(problem, (known,))
    resolver.best = min(outcome.incumbents, key=problem.objective)
    networks = {name: _resources(ordered, name) for name in instance.scenario.networks}
    bandwidth = {name: spec.bandwidth_bytes_per_s / MBIT_BYTES for name, spec in instance.scenario.networks.items()}
    if outcome.prices is not None:
        worth = elasticity(problem, resolver.best, outcome.prices)
        faster = (SPEED_FACTOR - 1) * worth[: len(problem.workers)]
        wider = {name: float(worth[members].sum()) / bandwidth[name] for name, members in networks.items()}
    else:
        faster = np.array([resolver.gain(name, speed_up(problem, index)) for index, name in enumerate(problem.workers)])
        wider = {
            name: resolver.gain(name, widen(problem, members, 1 + 1 / bandwidth[name]))
            for name, members in networks.items()
        }
    steps = memory_steps(problem, resolver.best)
    return PlanPrices(
        by="re-solve" if outcome.prices is None else "duals",
        workers={
            name: WorkerPrice(
                faster=float(faster[index]),
                more_memory_bytes=steps.get(index),
                more_memory=resolver.gain(f"memory of {name}", enlarge(problem, index, steps[index]))
                if index in steps
                else None,
            )
            for name, index in ((name, problem.workers.index(name)) for name in instance.workers)
        },
        networks={name: NetworkPrice(mbit_per_s=price) for name, price in wider.items()},
    )


@dataclasses.dataclass
class _Resolver:
    """Solves changed problems, warm-started from the best routes of the unchanged one."""

    problem: Problem
    method: Callable[[Problem, Options], Outcome]
    options: Options
    progress: Callable[[str], None]
    best: Choices = ()

    def solve(self, problem: Problem, start: tuple[Choices, ...]) -> Outcome:
        deadline = Deadline(stop=self.options.stop)  # the time limit is for each problem
        outcome = self.method(problem, dataclasses.replace(self.options, start=start, deadline=deadline))
        if self.options.stop.is_set():
            raise Expired
        return outcome

    def gain(self, what: str, changed: Problem) -> float:
        """Return the decrease of the objective; never negative, because the best routes remain feasible."""
        self.progress(what)
        incumbents = self.solve(changed, (self.best,)).incumbents
        best = min([self.best, *incumbents], key=changed.objective)
        return max(0.0, self.problem.objective(self.best) - changed.objective(best))


def elasticity(problem: Problem, choices: Choices, prices: Prices) -> Array:
    """Return −dV / d log θ for the speed θ of each resource at the optimal ``choices``; shape [R]."""
    worth = np.zeros(len(problem.resources))
    for source, routes in enumerate(choices):
        level, volume = problem.classes.of_source[source], problem.demands[source].volume
        for choice in routes:
            cost = problem.cost(source, choice)
            price = volume * prices.of_class[level][cost.resources] + prices.second[source]
            worth[cost.resources] += choice.share * price * cost.seconds
    return worth


def speed_up(problem: Problem, worker: int, factor: float = SPEED_FACTOR) -> Problem:
    """Return the problem with one worker faster by ``factor``."""
    scale = np.ones(len(problem.workers))
    scale[worker] = factor
    variants = tuple(
        dataclasses.replace(
            variant,
            block_s=variant.block_s / scale,
            overhead_s=variant.overhead_s / scale,
            saving_s=variant.saving_s / scale,
        )
        for variant in problem.variants
    )
    return dataclasses.replace(problem, variants=variants)


def widen(problem: Problem, members: Integers, factor: float) -> Problem:
    """Return the problem with ``factor`` times the bandwidth of the network resources ``members``."""
    wider = np.isin(problem.hop_resource, members)
    return dataclasses.replace(
        problem, hop_s_per_byte=np.where(wider, problem.hop_s_per_byte / factor, problem.hop_s_per_byte)
    )


def enlarge(problem: Problem, worker: int, more_bytes: float) -> Problem:
    """Return the problem with more memory on one worker."""
    memory_bytes = problem.memory_bytes.copy()
    memory_bytes[worker] += more_bytes
    return dataclasses.replace(problem, memory_bytes=memory_bytes)


def memory_steps(problem: Problem, choices: Choices) -> dict[int, float]:
    """Return by worker the least additional memory in bytes with which one more block fits, rounded up to whole MiB.

    Workers on which every other block fits already are left out.
    """
    resident = {
        (problem.variants[choice.variant].model, block, worker)
        for routes in choices
        for choice in routes
        for block, worker in enumerate(choice.workers)
    }
    used = problem.memory_used(choices)
    steps = {}
    for worker, free in enumerate((problem.memory_bytes - used).tolist()):
        here = [(model, block) for model, block, holder in resident if holder == worker]
        largest = max((float(problem.activation_bytes[model][block, worker]) for model, block in here), default=0.0)
        lacking = [
            weight + max(float(problem.activation_bytes[model][block, worker]) - largest, 0.0) - free
            for model, weights in enumerate(problem.weight_bytes)
            for block, weight in enumerate(weights[:, worker].tolist())
            if (model, block) not in here
        ]
        if short := [lack for lack in lacking if lack > 0]:
            steps[worker] = float(np.ceil(min(short) / MIB) * MIB)
    return steps


def _resources(instance: Instance, network: str) -> Integers:
    """Return the indices of the resources of a network."""
    return np.array(
        [
            len(instance.workers) + index
            for index, name in enumerate(instance.resources)
            if name == network or name.startswith(f"{network}:")
        ],
        dtype=np.intp,
    )


def _pins(plan: PlanSpec) -> dict[str, dict[str, str]]:
    return dict(plan.options.get("pins") or {})
