"""The optimization problem as plain arrays: data, cost of a route, objective and feasibility.

A route assigns one worker to each block, so it is an array of L workers. In the layered graph with nodes "block l runs
on worker d" it pays at each node for the block (and, at the first and last, for bringing the input and returning the
result) and on each arc between two workers for the transfer and for starting a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.plan.surrogate import UTILISATION_CAP, Classes, weighted_number
from planner.plan.types import Route, Stage
from planner.solvers.core.demand import Demand, Variant
from planner.solvers.core.light import first_of_stage, light_blocks
from planner.solvers.core.sites import Sites

Array = NDArray[np.float64]
Integers = NDArray[np.intp]
Residency = tuple[NDArray[np.bool_], ...]
"""Per model, whether each block resides on each worker; shape [L, D] each."""

MIN_WORK_S = 1e-12
"""Least time of a whole model, in seconds: speeds must stay finite."""
MAX_CACHED_ROUTES = 2**16
"""Routes whose costs are kept: methods look at most routes many times. At about 1 kB each they take at most 64 MB."""


@dataclass(frozen=True)
class Choice:
    """One route of a source: the worker of each block of a variant, and the share of samples that take it."""

    variant: int
    workers: tuple[int, ...]
    share: float = 1.0


Choices = tuple[tuple[Choice, ...], ...]
"""The routes of every source."""


def largest(routes: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """Return the route with the largest share alone; nothing if there is none."""
    return tuple(replace(choice, share=1.0) for choice in sorted(routes, key=lambda it: -it.share)[:1])


@dataclass(frozen=True)
class Cost:
    """What one sample of a route takes: ``seconds`` [n] of each of the n ``resources`` it uses, and latency."""

    resources: Integers
    seconds: Array
    latency_s: float

    @property
    def unloaded_s(self) -> float:
        """Mean delay in seconds of a sample that never waits."""
        return float(self.seconds.sum()) + self.latency_s


@dataclass(frozen=True)
class Problem:
    """Sources, variants, D workers and N network resources as arrays; R = D + N resources, the workers first.

    Parameters
    ----------
    hop_resource, hop_s_per_byte
        Resources on the path between two workers and the seconds that a byte occupies each; shape [D, D, H] with H the
        most hops of a path, padded with resource 0 at 0 seconds.
    latency_s
        Latency between two workers in seconds; infinite where there is no path; shape [D, D].
    memory_bytes
        Memory of each worker for weights and activations; shape [D].
    weight_bytes, activation_bytes
        Per model, bytes of each block on each worker, which depend on its device class; shape [L, D] each.
    parameters
        Per model, number of parameters of each block; shape [L] each.
    ring
        Order of the workers for methods that send samples around a ring.
    max_visits
        How many stages of one sample a worker may run; unlimited by default.
    max_wait_s
        Longest time of a session of several blocks that more urgent work may wait for, when plans are evaluated; costs
        here are those of all blocks joined. By default whatever evaluates best.
    pins
        Workers fixed by the user: by source, worker by block.
    resident
        Per model, where its blocks may reside; shape [L, D] each; everywhere by default.
    max_utilisation
        Largest share of the time of each resource that may be used; shape [R], or one for all.
    load_w
        Power that a utilisation of 1 adds at each resource; shape [R], or one for all.
    idle_w
        Power of all workers while they are idle.
    loss_s
        Delay in seconds that losing all accuracy is worth: 100 × ``accuracy_worth``.
    most_load
        Utilisation that no stage and no transfer of a route may exceed by itself; unlimited by default.
    least_delay_s, most_delay_s
        For ``makespan``, what the longest unloaded delay counts at least, and about the most that one of a route may
        be: pricing leaves out slower ones, but some that are a little slower.
    room_parts
        Per model, the part of each worker's room for weights that a block takes for one source, where blocks may be
        resident in part; shape [L, D] each. Empty, as by default, if that is no limit.
    """

    goal: str
    kappa: float
    loss_s: float
    workers: tuple[str, ...]
    resources: tuple[str, ...]
    models: tuple[str, ...]
    demands: tuple[Demand, ...]
    variants: tuple[Variant, ...]
    hop_resource: Integers
    hop_s_per_byte: Array
    latency_s: Array
    memory_bytes: Array
    weight_bytes: tuple[Array, ...]
    activation_bytes: tuple[Array, ...]
    parameters: tuple[Array, ...]
    ring: tuple[int, ...] = ()
    max_visits: int | None = None
    max_wait_s: float | None = None
    pins: dict[str, dict[int, int]] = field(default_factory=dict)
    resident: Residency | None = None
    max_utilisation: Array | float = 1.0
    load_w: Array | float = 0.0
    idle_w: float = 0.0
    most_load: float = np.inf
    least_delay_s: float = 0.0
    most_delay_s: float = np.inf
    room_parts: tuple[Array, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is cached cannot be sent to another process, or is found there again."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @cached_property
    def classes(self) -> Classes:
        """Sources by priority."""
        return Classes.of(np.array([demand.priority for demand in self.demands]))

    @cached_property
    def volume(self) -> Array:
        """Volume of each source; shape [S]."""
        return np.array([demand.volume for demand in self.demands])

    @cached_property
    def speed(self) -> Array:
        """Samples per second of each worker alone, as the mean over the sources' first variants; shape [D]."""
        models = [self.variants[demand.variants[0]] for demand in self.demands]
        work_s = np.mean([model.reach[:-1] @ model.block_s for model in models], axis=0)
        return np.asarray(1 / np.maximum(work_s, MIN_WORK_S))

    @cached_property
    def derived(self) -> dict[tuple[object, ...], Any]:
        """What other modules compute once from this problem, by a key of their own."""
        return {}

    @cached_property
    def sites(self) -> Sites | None:
        """Workers by site, if that makes pricing faster."""
        return Sites.of(self.hop_resource, self.hop_s_per_byte, self.latency_s)

    @property
    def cap(self) -> float:
        """Largest permitted utilisation of any resource; only the goals ``delay`` and ``energy`` limit it."""
        return UTILISATION_CAP if self.goal in {"delay", "energy"} else np.inf

    @cached_property
    def caps(self) -> Array:
        """Largest permitted utilisation of each resource, infinite where the goal does not limit it; shape [R]."""
        limited = np.minimum(self.cap, self.max_utilisation) if np.isfinite(self.cap) else np.inf
        return np.asarray(np.broadcast_to(limited, len(self.resources)), dtype=np.float64)

    @cached_property
    def usable(self) -> Array:
        """The shares :attr:`max_utilisation` as an array; shape [R]."""
        return np.asarray(np.broadcast_to(self.max_utilisation, len(self.resources)), dtype=np.float64)

    @cached_property
    def watts(self) -> Array:
        """The power :attr:`load_w` as an array; shape [R]."""
        return np.asarray(np.broadcast_to(self.load_w, len(self.resources)), dtype=np.float64)

    @cached_property
    def memory_binds(self) -> bool:
        """Whether some worker cannot hold all blocks of all models."""
        return bool((self.most_bytes > self.memory_bytes).any())

    @cached_property
    def most_bytes(self) -> Array:
        """Memory that each worker needs to hold all blocks of all models; shape [D], bytes."""
        everywhere = tuple(np.ones(weights.shape, dtype=bool) for weights in self.weight_bytes)
        weights, largest = self.resident_bytes(everywhere)
        return weights + largest

    @property
    def arcs(self) -> int:
        """Number of arcs of all layered graphs, the variables of a program over arcs."""
        blocks = sum(len(self.variants[variant]) for demand in self.demands for variant in demand.variants)
        return len(self.workers) ** 2 * blocks

    @cached_property
    def _cached_runs(self) -> Callable[[int, int], NDArray[np.bool_]]:
        return lru_cache(maxsize=None)(self._runs)  # one entry per source and variant

    def runs(self, source: int, variant: int) -> NDArray[np.bool_]:
        """Return whether each block may run on each worker: pins and paths permit it; shape [L, D]."""
        return self._cached_runs(source, variant)

    def _runs(self, source: int, variant: int) -> NDArray[np.bool_]:
        demand, model = self.demands[source], self.variants[variant]
        allowed = np.ones((len(model), len(self.workers)), dtype=bool)
        away = np.isinf(self.latency_s[:, demand.home])
        allowed[0, np.isinf(self.latency_s[demand.home])] = False
        allowed[-1, away] = False
        allowed[np.ix_(model.exit_share > 0, away)] = False
        if self.resident is not None:
            allowed &= self.resident[model.model]
        if self.most_load < np.inf:
            usable = self.usable[: len(self.workers)]
            allowed &= light_blocks(demand, model, self.most_load, usable, self.hop_s_per_byte.max(axis=2))
        for block, worker in self.pins.get(demand.name, {}).items():
            allowed[block, np.arange(len(self.workers)) != worker] = False
        return allowed

    @cached_property
    def _cached_first_of_stage(self) -> Callable[[int, int], Integers]:
        return lru_cache(maxsize=None)(self._first_of_stage)  # one entry per source and variant

    def first_of_stage(self, source: int, variant: int) -> Integers:
        """Return the first block of the longest stage before each cut that :attr:`most_load` permits; [L + 1, D]."""
        return self._cached_first_of_stage(source, variant)

    def _first_of_stage(self, source: int, variant: int) -> Integers:
        usable = self.usable[: len(self.workers)]
        return first_of_stage(self.demands[source], self.variants[variant], self.most_load, usable)

    def has_heavy_stage(self, source: int, variant: int, workers: tuple[int, ...]) -> bool:
        """Return whether a stage of a route exceeds :attr:`most_load`."""
        if np.isinf(self.most_load):
            return False
        first = self.first_of_stage(source, variant)
        return any(begin < first[last + 1, worker] for worker, begin, last in stages(workers))

    @cached_property
    def _cached_cost(self) -> Callable[[int, int, tuple[int, ...]], Cost]:
        return lru_cache(MAX_CACHED_ROUTES)(self._cost)

    def cost(self, source: int, choice: Choice) -> Cost:
        """Return what one sample of ``source`` takes on a route, whatever its share."""
        return self._cached_cost(source, choice.variant, choice.workers)

    def _cost(self, source: int, variant_index: int, route: tuple[int, ...]) -> Cost:
        demand, variant = self.demands[source], self.variants[variant_index]
        workers = np.asarray(route)
        reach = variant.reach[:-1]
        starts = np.append(True, workers[1:] != workers[:-1])
        work_s = reach * (
            variant.block_s[np.arange(len(variant)), workers]
            + starts * variant.begin_s[np.arange(len(variant)), workers]
        )
        senders = np.concatenate([[demand.home], workers, workers])
        home = np.full(len(variant), demand.home)
        receivers = np.concatenate([workers, [demand.home], home])
        sizes = np.concatenate([variant.reach * variant.cut_bytes, variant.exit_bytes])
        shares = np.concatenate([variant.reach, variant.exit_share])
        moves = (senders != receivers) & (shares > 0)
        hops_s = sizes[moves, None] * self.hop_s_per_byte[senders[moves], receivers[moves]]
        resources = np.concatenate([workers, self.hop_resource[senders[moves], receivers[moves]].ravel()])
        used, where = np.unique(resources, return_inverse=True)
        seconds = np.bincount(where, np.concatenate([work_s, hops_s.ravel()])).astype(np.float64)
        latency_s = float(shares[moves] @ self.latency_s[senders[moves], receivers[moves]])
        return Cost(used, seconds, latency_s)

    def load(self, choices: Choices) -> Array:
        """Return the utilisation of each resource by each source; shape [S, R]."""
        load = np.zeros((len(self.demands), len(self.resources)))
        for source, routes in enumerate(choices):
            if not routes:
                continue
            costs = [self.cost(source, choice) for choice in routes]
            resources = np.concatenate([cost.resources for cost in costs])
            seconds = np.concatenate([choice.share * cost.seconds for choice, cost in zip(routes, costs, strict=True)])
            load[source] = self.demands[source].volume * np.bincount(resources, seconds, len(self.resources))
        return load

    def fixed_cost(self, source: int, choice: Choice, latency_s: float) -> float:
        """Return the part of the objective ``delay`` that does not depend on load: latency and lost accuracy."""
        demand = self.demands[source]
        lost = self.loss_s * (1 - self.variants[choice.variant].accuracy)
        return demand.priority * demand.volume * (latency_s + lost)

    def objective(self, choices: Choices) -> float:
        """Return the surrogate objective; infinite where a resource is overloaded."""
        load = self.load(choices)
        busy = load.sum(axis=0)
        busiest = float((busy / self.usable).max())
        if self.goal == "throughput":
            return busiest
        costs = [[(choice, self.cost(source, choice)) for choice in routes] for source, routes in enumerate(choices)]
        if self.goal == "makespan":
            delays_s = [sum(choice.share * cost.unloaded_s for choice, cost in routes) for routes in costs]
            return busiest + max(self.least_delay_s, *delays_s)
        if (busy > self.caps + 1e-9).any():
            return np.inf
        if self.goal == "energy":
            return self.idle_w + float(self.watts @ busy)
        fixed = sum(
            choice.share * self.fixed_cost(source, choice, cost.latency_s)
            for source, routes in enumerate(costs)
            for choice, cost in routes
        )
        return weighted_number(self.classes, load, self.kappa) + fixed

    def residency(self, choices: Choices) -> Residency:
        """Return the blocks that routes need to have on each worker."""
        held = tuple(np.zeros(weights.shape, dtype=bool) for weights in self.weight_bytes)
        for routes in choices:
            for choice in routes:
                held[self.variants[choice.variant].model][np.arange(len(choice.workers)), choice.workers] = True
        return held

    def resident_bytes(self, held: Residency) -> tuple[Array, Array]:
        """Return the weights of the blocks on each worker, and the largest activation; shape [D] each, bytes."""
        weights, largest = np.zeros(len(self.workers)), np.zeros(len(self.workers))
        for model, blocks in enumerate(held):
            weights += (self.weight_bytes[model] * blocks).sum(axis=0)
            largest = np.maximum(largest, (self.activation_bytes[model] * blocks).max(axis=0))
        return weights, largest

    def memory_used(self, choices: Choices) -> Array:
        """Return the bytes of distinct resident blocks and the largest activation on each worker; shape [D]."""
        weights, largest = self.resident_bytes(self.residency(choices))
        return weights + largest

    def room_used(self, choice: Choice) -> Array:
        """Return the part of each worker's room that a route takes with its share of samples; shape [D]."""
        parts = self.room_parts[self.variants[choice.variant].model]
        used = parts[np.arange(len(parts)), choice.workers]
        return np.asarray(choice.share * np.bincount(choice.workers, used, len(self.workers)), dtype=np.float64)

    def feasible(self, choices: Choices, tolerance: float = 1e-6) -> bool:
        """Return whether routes satisfy all limits but the cap; deadlines count work and transfers without waiting.

        Memory is counted in whole bytes and has no tolerance.
        """
        if self.memory_binds and (self.memory_used(choices) > self.memory_bytes).any():
            return False
        if self.room_parts and np.any(sum(map(self.room_used, chain.from_iterable(choices))) > 1 + tolerance):
            return False
        for source, routes in enumerate(choices):
            demand = self.demands[source]
            if not all(self.allowed(source, choice) for choice in routes):
                return False
            accuracy = sum(choice.share * self.variants[choice.variant].accuracy for choice in routes)
            unloaded_s = sum(choice.share * self.cost(source, choice).unloaded_s for choice in routes)
            late = unloaded_s > demand.deadline_s * (1 + tolerance)
            if late or accuracy < demand.min_accuracy - tolerance:
                return False
        return True

    def allowed(self, source: int, choice: Choice) -> bool:
        """Return whether a route has paths, satisfies the pins, and visits no worker too often."""
        return self._cached_allowed(source, choice.variant, choice.workers)

    @cached_property
    def _cached_allowed(self) -> Callable[[int, int, tuple[int, ...]], bool]:
        return lru_cache(MAX_CACHED_ROUTES)(self._allowed)

    def _allowed(self, source: int, variant: int, workers: tuple[int, ...]) -> bool:
        runs = self.runs(source, variant)[np.arange(len(workers)), workers]
        linked = np.isfinite(self._cached_cost(source, variant, workers).latency_s)
        heavy = self.has_heavy_stage(source, variant, workers)
        return bool(runs.all()) and bool(linked) and not heavy and not self.visited_too_often(workers)

    def visited_too_often(self, workers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the workers that a route visits more often than ``max_visits``."""
        if self.max_visits is None:
            return ()
        visits = [worker for worker, _, _ in stages(workers)]
        return tuple(worker for worker in dict.fromkeys(visits) if visits.count(worker) > self.max_visits)

    def routes(self, choices: Choices) -> dict[str, tuple[Route, ...]]:
        """Return choices as the routes of a plan, by source."""
        return {
            demand.name: tuple(
                Route(
                    share=choice.share,
                    model=self.models[self.variants[choice.variant].model],
                    operating_point=self.variants[choice.variant].operating_point,
                    stages=tuple(
                        Stage(worker=self.workers[worker], first_block=first, last_block=last)
                        for worker, first, last in stages(choice.workers)
                    ),
                )
                for choice in chosen
            )
            for demand, chosen in zip(self.demands, choices, strict=True)
        }


def normalised(routes: list[Choice]) -> tuple[Choice, ...]:
    """Return one source's routes with their shares scaled to add up to 1."""
    total = sum(choice.share for choice in routes)
    return tuple(Choice(choice.variant, choice.workers, choice.share / total) for choice in routes)


def stages(workers: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return the stages of a route: worker, first and last block of each."""
    starts = [0, *(block for block in range(1, len(workers)) if workers[block] != workers[block - 1])]
    ends = [*(begin - 1 for begin in starts[1:]), len(workers) - 1]
    return [(workers[begin], begin, end) for begin, end in zip(starts, ends, strict=True)]
