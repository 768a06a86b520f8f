"""What one more MiB, one more Mbit/s, or a 10 % faster worker would be worth to a plan.

Where routes are shared the problem is convex, and its duals are prices: speed θ divides a resource's seconds, so by the
envelope theorem dV / d log θ is what its present load costs at those prices. With one route a source, and for memory
always, each change is solved again from the plan's routes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from planner.plan.types import NetworkPrice, PlanPrices, PlanSpec, WorkerPrice
from planner.scenario.instance import Instance
from planner.solvers.core.build import build_problem, read_routes
from planner.solvers.core.problem import Array, Choices, Integers, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.search_state import Options, Outcome
from planner.solvers.solve import load_method

FASTER = 1.1
MBIT_BYTES = 1e6 / 8
MIB = 2**20


def sensitivity(
    instance: Instance,
    plan: PlanSpec,
    *,
    time_limit_s: float = 10.0,
    progress: Callable[[str], None] | None = None,
) -> PlanPrices:
    """Price the resources of ``instance`` under a plan that :func:`planner.solvers.solve` made for it.

    Parameters
    ----------
    time_limit_s
        For each problem that is solved again.
    progress
        Called with what is solved next, in words.
    """
    pins = {source: {int(block): worker for block, worker in own.items()} for source, own in _pins(plan).items()}
    problem = build_problem(instance, max_visits=plan.options.get("max_visits"), pins=pins)
    known = read_routes(problem, {name: own.routes for name, own in plan.sources.items()})
    method = load_method(plan.method)
    options = Options(time_limit_s=time_limit_s, gap=float(plan.options.get("gap", 1e-4)))
    again = _Again(problem, method, options, progress or (lambda _: None))
    outcome = again.outcome(problem, (known,))
    again.best = min(outcome.incumbents, key=problem.objective)
    networks = {name: _resources(instance, name) for name in instance.scenario.networks}
    bandwidth = {name: spec.bandwidth_bytes_per_s / MBIT_BYTES for name, spec in instance.scenario.networks.items()}
    if outcome.prices is not None:
        worth = elasticity(problem, again.best, outcome.prices)
        faster = (FASTER - 1) * worth[: len(problem.workers)]
        wider = {name: float(worth[members].sum()) / bandwidth[name] for name, members in networks.items()}
    else:
        faster = np.array([again.gain(name, speed_up(problem, index)) for index, name in enumerate(problem.workers)])
        wider = {
            name: again.gain(name, widen(problem, members, 1 + 1 / bandwidth[name]))
            for name, members in networks.items()
        }
    steps = memory_steps(problem, again.best)
    return PlanPrices(
        by="re-solve" if outcome.prices is None else "duals",
        workers={
            name: WorkerPrice(
                faster=float(faster[index]),
                more_memory_bytes=steps.get(index),
                more_memory=again.gain(f"memory of {name}", enlarge(problem, index, steps[index]))
                if index in steps
                else None,
            )
            for index, name in enumerate(problem.workers)
        },
        networks={name: NetworkPrice(mbit_per_s=price) for name, price in wider.items()},
    )


@dataclasses.dataclass
class _Again:
    """Solves changed problems from the best routes of the unchanged one."""

    problem: Problem
    method: Callable[[Problem, Options], Outcome]
    options: Options
    progress: Callable[[str], None]
    best: Choices = ()

    def outcome(self, problem: Problem, start: tuple[Choices, ...]) -> Outcome:
        return self.method(problem, dataclasses.replace(self.options, start=start))

    def gain(self, what: str, changed: Problem) -> float:
        """By how much the objective falls; what was best stays possible, so it never rises."""
        self.progress(what)
        found = self.outcome(changed, (self.best,)).incumbents
        best = min([self.best, *found], key=changed.objective)
        return max(0.0, self.problem.objective(self.best) - changed.objective(best))


def elasticity(problem: Problem, choices: Choices, prices: Prices) -> Array:
    """Give −dV / d log θ of each resource's speed θ at the optimal ``choices``; shape [R]."""
    worth = np.zeros(len(problem.resources))
    for source, own in enumerate(choices):
        level, volume = problem.classes.of_source[source], problem.demands[source].volume
        for choice in own:
            cost = problem.cost(source, choice)
            price = volume * prices.of_class[level][cost.resources] + prices.second[source]
            worth[cost.resources] += choice.share * price * cost.seconds
    return worth


def speed_up(problem: Problem, worker: int, factor: float = FASTER) -> Problem:
    """Give the problem with a worker that is faster by ``factor``."""
    scale = np.ones(len(problem.workers))
    scale[worker] = factor
    variants = tuple(
        dataclasses.replace(variant, block_s=variant.block_s / scale, overhead_s=variant.overhead_s / scale)
        for variant in problem.variants
    )
    return dataclasses.replace(problem, variants=variants)


def widen(problem: Problem, members: Integers, factor: float) -> Problem:
    """Give the problem with ``factor`` times the bandwidth of some network resources."""
    wider = np.isin(problem.hop_resource, members)
    return dataclasses.replace(
        problem, hop_s_per_byte=np.where(wider, problem.hop_s_per_byte / factor, problem.hop_s_per_byte)
    )


def enlarge(problem: Problem, worker: int, more_bytes: float) -> Problem:
    """Give the problem with more memory at a worker."""
    memory_bytes = problem.memory_bytes.copy()
    memory_bytes[worker] += more_bytes
    return dataclasses.replace(problem, memory_bytes=memory_bytes)


def memory_steps(problem: Problem, choices: Choices) -> dict[int, float]:
    """Give the least memory that lets each worker hold another block beside those it needs, where one does not fit.

    Rounded up to whole MiB.
    """
    resident = {
        (problem.variants[choice.variant].model, block, worker)
        for own in choices
        for choice in own
        for block, worker in enumerate(choice.workers)
    }
    used = problem.memory_used(choices)
    steps = {}
    for worker, free in enumerate((problem.memory_bytes - used).tolist()):
        own = [(model, block) for model, block, at in resident if at == worker]
        largest = max((float(problem.activation_bytes[model][block]) for model, block in own), default=0.0)
        lacking = [
            weight + max(float(problem.activation_bytes[model][block]) - largest, 0.0) - free
            for model, weights in enumerate(problem.weight_bytes)
            for block, weight in enumerate(weights.tolist())
            if (model, block) not in own
        ]
        if short := [lack for lack in lacking if lack > 0]:
            steps[worker] = float(np.ceil(min(short) / MIB) * MIB)
    return steps


def _resources(instance: Instance, network: str) -> Integers:
    """Numbers of the resources that a network consists of."""
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
