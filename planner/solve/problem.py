"""What every method sees of a scenario: plain arrays, and what a route in them costs.

A route visits one worker per block, so it is an array of L workers. In the layered graph of design, with nodes "block
l is on worker d", it pays at each node for the block (and, at the first and last, for bringing the input and taking
the result home) and on each arc between two workers for the transfer and for beginning a stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.plan.evaluate import volumes
from planner.plan.surrogate import UTILISATION_CAP, Classes, kappa, weighted_number
from planner.plan.types import Route, Stage
from planner.scenario.instance import Instance

Array = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True)
class Variant:
    """A model at one of its operating points, L blocks on D workers.

    Parameters
    ----------
    model, operating_point
        Numbers of the model in the problem and of its operating point.
    accuracy
        Fraction of samples answered right.
    reach
        Probability that a sample is worked on by block l, the last repeated for the result; shape [L + 1].
    block_s
        Time of each block on each worker; shape [L, D], seconds.
    overhead_s
        What beginning a stage costs; shape [D], seconds.
    cut_bytes
        Bytes across each cut; shape [L + 1].
    exit_bytes
        Bytes that an average sample sends home after block l because it leaves there; shape [L].
    exit_share
        Probability that a sample leaves by an exit after block l; shape [L].
    """

    model: int
    operating_point: int
    accuracy: float
    reach: Array
    block_s: Array
    overhead_s: Array
    cut_bytes: Array
    exit_bytes: Array
    exit_share: Array

    def __len__(self) -> int:
        return len(self.exit_bytes)


@dataclass(frozen=True)
class Demand:
    """A source: ``volume`` is its rate in samples per second, or its number of samples for ``makespan``."""

    name: str
    home: int
    volume: float
    priority: float
    deadline_s: float
    min_accuracy: float
    variants: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """One route of a source: the worker of each block of a variant, and the share of samples that go there."""

    variant: int
    workers: tuple[int, ...]
    share: float = 1.0


Choices = tuple[tuple[Choice, ...], ...]
"""The routes of every source."""


@dataclass(frozen=True)
class Cost:
    """What one sample of a route takes: seconds of each resource it uses, latency, and accuracy lost."""

    resources: Integers
    seconds: Array
    latency_s: float

    @property
    def unloaded_s(self) -> float:
        """Mean delay of a sample that never waits."""
        return float(self.seconds.sum()) + self.latency_s


@dataclass(frozen=True)
class Problem:
    """Sources, variants, D workers and N network resources as arrays; R = D + N resources, the workers first.

    Parameters
    ----------
    hop_resource, hop_s_per_byte
        Resources on the path between two workers and the time a byte occupies each; shape [D, D, H], padded with
        resource 0 at 0 seconds.
    latency_s
        Latency between two workers; infinite where there is no path; shape [D, D].
    memory_bytes
        What each worker has for weights and activations; shape [D].
    weight_bytes, activation_bytes
        Per model, of each block; shape [L] each.
    max_visits
        How often a sample may begin a stage at one worker.
    pins
        Workers that the user demands: by source, worker by block.
    resident
        Per model, where its blocks may reside at all; shape [L, D] each; everywhere by default.
    loss_s
        Delay that losing all accuracy is worth: 100 × ``accuracy_worth``.
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
    max_visits: int | None = None
    pins: dict[str, dict[int, int]] = field(default_factory=dict)
    resident: tuple[NDArray[np.bool_], ...] | None = None

    @cached_property
    def classes(self) -> Classes:
        """Sources by priority."""
        return Classes.of(np.array([demand.priority for demand in self.demands]))

    @cached_property
    def volume(self) -> Array:
        """Volume of each source; shape [S]."""
        return np.array([demand.volume for demand in self.demands])

    @property
    def cap(self) -> float:
        """Largest utilisation of a resource; only the goal ``delay`` has one."""
        return UTILISATION_CAP if self.goal == "delay" else np.inf

    @cached_property
    def memory_binds(self) -> bool:
        """Whether some worker cannot hold all blocks of all models."""
        everything = sum(float(weights.sum()) for weights in self.weight_bytes)
        largest = max(float(activations.max()) for activations in self.activation_bytes)
        return bool((everything + largest > self.memory_bytes).any())

    def runs(self, source: int, variant: int) -> NDArray[np.bool_]:
        """Whether each block may run on each worker: pinned elsewhere, or no way home for a result; shape [L, D]."""
        demand, model = self.demands[source], self.variants[variant]
        allowed = np.ones((len(model), len(self.workers)), dtype=bool)
        away = np.isinf(self.latency_s[:, demand.home])
        allowed[0, np.isinf(self.latency_s[demand.home])] = False
        allowed[-1, away] = False
        allowed[np.ix_(model.exit_share > 0, away)] = False
        if self.resident is not None:
            allowed &= self.resident[model.model]
        for block, worker in self.pins.get(demand.name, {}).items():
            allowed[block, np.arange(len(self.workers)) != worker] = False
        return allowed

    @cached_property
    def _costs(self) -> dict[tuple[int, int, tuple[int, ...]], Cost]:
        """Costs of the routes looked at so far: methods look at most of them many times."""
        return {}

    def cost(self, source: int, choice: Choice) -> Cost:
        """Give what one sample of ``source`` takes on a route."""
        key = (source, choice.variant, choice.workers)
        if key not in self._costs:
            self._costs[key] = self._cost(source, choice)
        return self._costs[key]

    def _cost(self, source: int, choice: Choice) -> Cost:
        demand, variant = self.demands[source], self.variants[choice.variant]
        workers = np.asarray(choice.workers)
        reach = variant.reach[:-1]
        begins = np.append(True, workers[1:] != workers[:-1])
        work_s = reach * (variant.block_s[np.arange(len(variant)), workers] + begins * variant.overhead_s[workers])
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
        """Utilisation of each resource by each source; shape [S, R]."""
        load = np.zeros((len(self.demands), len(self.resources)))
        for source, own in enumerate(choices):
            for choice in own:
                cost = self.cost(source, choice)
                load[source, cost.resources] += self.demands[source].volume * choice.share * cost.seconds
        return load

    def fixed_cost(self, source: int, choice: Choice, latency_s: float) -> float:
        """Give the part of the objective ``delay`` that does not depend on load: latency and lost accuracy."""
        demand = self.demands[source]
        lost = self.loss_s * (1 - self.variants[choice.variant].accuracy)
        return demand.priority * demand.volume * (latency_s + lost)

    def objective(self, choices: Choices) -> float:
        """Value of the surrogate objective; infinite where a resource is overloaded."""
        load = self.load(choices)
        busiest = float(load.sum(axis=0).max())
        if self.goal == "throughput":
            return busiest
        costs = [[(choice, self.cost(source, choice)) for choice in own] for source, own in enumerate(choices)]
        if self.goal == "makespan":
            return busiest + max(sum(choice.share * cost.unloaded_s for choice, cost in own) for own in costs)
        if busiest > self.cap + 1e-9:
            return np.inf
        fixed = sum(
            choice.share * self.fixed_cost(source, choice, cost.latency_s)
            for source, own in enumerate(costs)
            for choice, cost in own
        )
        return weighted_number(self.classes, load, self.kappa) + fixed

    def memory_used(self, choices: Choices) -> Array:
        """Bytes of distinct resident blocks and the largest activation on each worker; shape [D]."""
        weights = np.zeros(len(self.workers))
        largest = np.zeros(len(self.workers))
        pairs = {
            (self.variants[choice.variant].model, block, worker)
            for own in choices
            for choice in own
            for block, worker in enumerate(choice.workers)
        }
        for model, block, worker in pairs:
            weights[worker] += self.weight_bytes[model][block]
            largest[worker] = max(largest[worker], self.activation_bytes[model][block])
        return weights + largest

    def feasible(self, choices: Choices, tolerance: float = 1e-6) -> bool:
        """Whether routes respect memory, accuracy, visits and the part of a deadline that is pure work."""
        if self.memory_binds and (self.memory_used(choices) > self.memory_bytes * (1 + tolerance)).any():
            return False
        for source, own in enumerate(choices):
            demand = self.demands[source]
            if any(self.revisits(choice) for choice in own):
                return False
            accuracy = sum(choice.share * self.variants[choice.variant].accuracy for choice in own)
            unloaded = sum(choice.share * self.cost(source, choice).unloaded_s for choice in own)
            late = unloaded > demand.deadline_s * (1 + tolerance)
            if late or accuracy < demand.min_accuracy - tolerance:
                return False
        return True

    def revisits(self, choice: Choice) -> bool:
        """Whether a route visits a worker more often than ``max_visits``."""
        if self.max_visits is None:
            return False
        begun = [worker for worker, _, _ in stages(choice.workers)]
        return max(begun.count(worker) for worker in begun) > self.max_visits

    def routes(self, choices: Choices) -> dict[str, tuple[Route, ...]]:
        """Give choices in the words of a plan."""
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
                for choice in own
            )
            for demand, own in zip(self.demands, choices, strict=True)
        }


def normalised(own: list[Choice]) -> tuple[Choice, ...]:
    """Scale the shares of one source's routes so that they add up to 1."""
    total = sum(choice.share for choice in own)
    return tuple(Choice(choice.variant, choice.workers, choice.share / total) for choice in own)


def stages(workers: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Give the stages of a route: worker, first and last block."""
    begins = [0, *(block for block in range(1, len(workers)) if workers[block] != workers[block - 1])]
    ends = [*(begin - 1 for begin in begins[1:]), len(workers) - 1]
    return [(workers[begin], begin, end) for begin, end in zip(begins, ends, strict=True)]


def build_problem(instance: Instance, *, max_visits: int | None = None) -> Problem:
    """Turn an instance into arrays.

    Raises
    ------
    PlanError
        The goal ``delay`` misses a rate.
    """
    scenario = instance.scenario
    models = tuple(sorted({model for spec in scenario.sources.values() for model in spec.models}))
    variants: list[Variant] = []
    of_model: dict[str, list[int]] = {}
    for number, model in enumerate(models):
        found = _variants(instance, number, model)
        of_model[model] = list(range(len(variants), len(variants) + len(found)))
        variants += found
    demands = tuple(
        Demand(
            name=name,
            home=instance.workers.index(spec.worker),
            volume=float(volume),
            priority=spec.priority,
            deadline_s=np.inf if spec.deadline_s is None else spec.deadline_s,
            min_accuracy=spec.min_accuracy or 0.0,
            variants=tuple(variant for model in dict.fromkeys(spec.models) for variant in of_model[model]),
        )
        for (name, spec), volume in zip(scenario.sources.items(), volumes(instance), strict=True)
    )
    hop_resource, hop_s_per_byte, latency_s = _paths(instance)
    return Problem(
        goal=scenario.objective.goal,
        kappa=kappa(scenario.objective.service_cv),
        loss_s=100 * scenario.objective.accuracy_worth_s,
        workers=instance.workers,
        resources=(*instance.workers, *instance.resources),
        models=models,
        demands=demands,
        variants=tuple(variants),
        hop_resource=hop_resource,
        hop_s_per_byte=hop_s_per_byte,
        latency_s=latency_s,
        memory_bytes=np.array([spec.memory_bytes - spec.base_memory_bytes for spec in scenario.workers.values()]),
        weight_bytes=tuple(_of_blocks(instance, model, "weight_bytes") for model in models),
        activation_bytes=tuple(_of_blocks(instance, model, "activation_bytes") for model in models),
        max_visits=max_visits,
    )


def _of_blocks(instance: Instance, model: str, key: str) -> Array:
    return np.array([float(getattr(block, key)) for block in instance.any_profile(model).blocks])


def _variants(instance: Instance, number: int, model: str) -> list[Variant]:
    block_s = np.stack([instance.block_s(model, worker) for worker in instance.workers], axis=1)
    overhead_s = np.array([instance.stage_overhead_s(model, worker) for worker in instance.workers])
    found = []
    for index, point in enumerate(instance.operating_points(model)):
        reach = np.array([*point.reach, point.reach[-1]])
        exit_bytes, exit_share = np.zeros(len(block_s)), np.zeros(len(block_s))
        for exit_point in instance.any_profile(model).exits:
            leaves = reach[exit_point.cut - 1] - reach[exit_point.cut]
            exit_share[exit_point.cut - 1] += leaves
            exit_bytes[exit_point.cut - 1] += leaves * exit_point.result_bytes
        found.append(
            Variant(
                model=number,
                operating_point=index,
                accuracy=point.accuracy,
                reach=reach,
                block_s=block_s,
                overhead_s=overhead_s,
                cut_bytes=np.array(instance.cut_bytes(model), dtype=float),
                exit_bytes=exit_bytes,
                exit_share=exit_share,
            )
        )
    return found


def _paths(instance: Instance) -> tuple[Integers, Array, Array]:
    count = len(instance.workers)
    number = {name: index + count for index, name in enumerate(instance.resources)}
    paths = {
        (sender, receiver): instance.path(instance.workers[sender], instance.workers[receiver])
        for sender in range(count)
        for receiver in range(count)
    }
    longest = max([1, *(len(path.hops) for path in paths.values() if path)])
    hop_resource = np.zeros((count, count, longest), dtype=np.intp)
    hop_s_per_byte = np.zeros((count, count, longest))
    latency_s = np.full((count, count), np.inf)
    for pair, path in paths.items():
        if path is None:
            continue
        latency_s[pair] = sum(hop.latency_s for hop in path.hops)
        for index, hop in enumerate(path.hops):
            hop_resource[(*pair, index)] = number[hop.resource]
            hop_s_per_byte[(*pair, index)] = 1 / hop.bytes_per_s
    return hop_resource, hop_s_per_byte, latency_s
