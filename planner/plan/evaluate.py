"""Evaluation of fixed routes: delays, accuracies, utilisations, memory and objective, from the scenario alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.plan.distribution import DelayDistribution, Flow, delay_distributions
from planner.plan.energy import energy_use, require_power
from planner.plan.journey import Journeys, LegSite
from planner.plan.memory import memory_bytes
from planner.plan.rates import bursts, variability, volumes
from planner.plan.surrogate import UTILISATION_CAP, Classes, kappa, numbers
from planner.plan.tokens import counted_s, place_waits_s, token_times
from planner.plan.types import EnergyUse, NetworkUse, Route, SourcePlan, Stage, WorkerUse
from planner.plan.visit_times import Samples, Trips, queueing_times_s, seen_by_others
from planner.scenario.instance import Instance

Routes = Mapping[str, Sequence[Route]]
"""Each source's routes."""


SMALLER: Final = 0.95
"""Factor by which rates are reduced until batches carry them."""
MAX_SETTLING: Final = 1000
SETTLED: Final = 1e-12
"""Change in the number of co-located workers that compute, below which it counts as settled."""


@dataclass(frozen=True)
class Evaluation:
    """What fixed routes achieve.

    Parameters
    ----------
    objective
        Value of the surrogate objective of the scenario's goal.
    weighted_delay_s
        Σ p λ (T + 100 v (1 − A)) with the evaluated delays T, those of sequences with the weights of their parts;
        incumbents are ranked by it.
    weighted_misses
        Σ p λ times the share of samples that miss their deadlines, over the sources that have one.
    distributions
        Distribution of the delay of each source that has a deadline or bounds on percentiles.
    """

    sources: dict[str, SourcePlan]
    workers: dict[str, WorkerUse]
    networks: dict[str, NetworkUse]
    energy: EnergyUse | None
    objective: float
    weighted_delay_s: float
    weighted_misses: float = 0.0
    distributions: Mapping[str, DelayDistribution] = field(default_factory=dict)


def surrogate_priorities(instance: Instance) -> NDArray[np.float64]:
    """Return the weight of each source's delay in the surrogate objective; shape [S].

    It is the priority; for the goal ``misses`` the priority divided by the deadline. Then the surrogate bounds the
    weighted share of late samples by Markov's inequality: P(T > D) ≤ E T / D.
    """
    specs = instance.scenario.sources.values()
    per_s = instance.scenario.objective.goal == "misses"
    return np.array([spec.priority / (spec.deadline_s or 1.0) if per_s else spec.priority for spec in specs])


def evaluate(instance: Instance, routes: Routes, journeys: Journeys | None = None) -> Evaluation:
    """Evaluate fixed ``routes`` on ``instance``.

    Delays are those of queues in steady state. Where the goal ``throughput`` asks for more than the bottleneck can
    sustain, they are those at the largest rates that it can; for ``makespan`` they are those of a sample that never
    waits.

    Parameters
    ----------
    journeys
        Those of this instance, which evaluations of several plans may share.

    Raises
    ------
    PlanError
        A route needs a path that the networks do not have, or a rate or, for the goal ``energy``, a power is missing.
    """
    objective = instance.scenario.objective
    settled = in_company(instance, routes)
    instance, journeys = settled, journeys if settled is instance else None
    samples = _follow(instance, routes, journeys)
    full = samples if not instance.batches else _follow(instance.in_full_batches(), routes)
    volume = volumes(instance)
    load = _loads(instance, full) * volume[:, None]
    busy = dict(zip((*instance.workers, *instance.resources), load.sum(axis=0).tolist(), strict=True))
    busiest = bottleneck(instance, busy)
    unloaded = np.array([sum(route.share * trip.unloaded_s for route, trip in samples[s]) for s in instance.sources])
    latency = np.array([sum(route.share * trip.latency_s for route, trip in samples[s]) for s in instance.sources])
    accuracy = np.array([_accuracy(instance, routes[source]) for source in instance.sources])
    priority = np.array([instance.scenario.sources[source].priority for source in instance.sources])
    weight = surrogate_priorities(instance)
    times_s: Sequence[float]
    if objective.goal == "makespan":
        delay = surrogate = unloaded
        times_s = [visit.mean_s for trips in samples.values() for _, trip in trips for visit in trip.visits]
        fastest_s = max(sum(route.share * trip.unloaded_s for route, trip in full[s]) for s in instance.sources)
        scale = 1 / max(busiest + fastest_s, 1e-12)
        spread: Mapping[str, DelayDistribution] = {}
    else:
        scale, times_s = _in_queues(instance, samples, busy, volume)
        delay = _delays(instance, samples, times_s) + latency
        spread = _distributions(instance, samples, volume * scale, delay)
        held = numbers(Classes.of(weight), load * scale, kappa(objective.service_cv))
        surrogate = held / (volume * scale) + latency
    misses = {source: spread[source].share_beyond(it) for source, it in instance.deadlines.items() if it and spread}
    loss = 100 * objective.accuracy_worth_s * (1 - accuracy)
    energy = energy_use(instance, {name: share * scale for name, share in busy.items()}, float(volume.sum() * scale))
    if objective.goal == "energy":
        require_power(instance)
    value = {
        "delay": float(priority * volume @ (surrogate + loss)),
        "misses": float(weight * volume @ (surrogate + loss)),
        "throughput": busiest,
        "makespan": 1 / scale,
        "energy": energy.average_power_w if energy else 0.0,
    }[objective.goal]
    memory = memory_bytes(instance, routes)
    tokens = token_times(instance, samples, times_s)
    if objective.goal != "makespan":
        delay = delay + place_waits_s(instance, volume * scale, delay, tokens)
    return Evaluation(
        sources={
            source: SourcePlan(
                accuracy=float(accuracy[index]),
                delay_s=float(delay[index]),
                surrogate_delay_s=float(surrogate[index]),
                **_percentiles(spread.get(source)),
                **tokens.get(source, {}),
                miss_share=misses.get(source),
                routes=tuple(routes[source]),
            )
            for index, source in enumerate(instance.sources)
        },
        workers={name: WorkerUse(utilisation=busy[name], memory_bytes=memory[name]) for name in instance.workers},
        networks={name: NetworkUse(utilisation=busy[name]) for name in instance.resources},
        energy=energy,
        objective=value,
        weighted_delay_s=float(priority * volume @ (counted_s(instance, delay, tokens) + loss)),
        weighted_misses=sum(
            priority[index] * volume[index] * misses.get(source, 0.0) for index, source in enumerate(instance.sources)
        ),
        distributions=spread,
    )


def endless(instance: Instance, evaluation: Evaluation) -> Iterator[str]:
    """Yield which sources' samples wait for ever though full batches would carry them: theirs are not full."""
    for name, source in evaluation.sources.items():
        if instance.batches and not np.isfinite(source.delay_s):
            yield f"samples of {name} wait for ever: batches of different priorities are not full at these rates"


def bottleneck(instance: Instance, busy: Mapping[str, float]) -> float:
    """Return the largest utilisation, relative to the share of its time that each worker may be used for.

    Parameters
    ----------
    busy
        Utilisation of each worker and network resource.
    """
    return max(load / instance.max_utilisation[name] for name, load in busy.items())


def sustained(instance: Instance, busy: Mapping[str, float]) -> float:
    """Return the share of all rates at which every worker and network, with utilisations ``busy``, keeps to its cap."""
    caps = {name: min(UTILISATION_CAP, most) for name, most in instance.max_utilisation.items()}
    return min([1.0, *(caps[name] / load for name, load in busy.items() if load > 0)])


def in_company(instance: Instance, routes: Routes) -> Instance:
    """Return the instance in which workers on one host slow each other down as much as they compute under ``routes``.

    An instance whose company is stated, or where no worker slows down another, is returned as it is.

    Raises
    ------
    PlanError
        As :func:`evaluate` does.
    """
    if instance.company or not instance.colocated:
        return instance
    names, volume = (*instance.workers, *instance.resources), volumes(instance)
    goal = instance.scenario.objective.goal

    def loads(computing: float) -> NDArray[np.float64]:
        at = instance.model_copy(update={"company": dict.fromkeys(instance.colocated, computing)}).in_full_batches()
        return np.asarray(volume @ _loads(at, _follow(at, routes)))

    def shares(load: NDArray[np.float64]) -> NDArray[np.float64]:
        if goal == "makespan":
            return np.asarray(load / max(float(load.max()), 1e-300))
        scale = sustained(instance, dict(zip(names, load.tolist(), strict=True))) if goal == "throughput" else 1.0
        return np.asarray(np.minimum(load * scale, 1.0))

    # Loads are linear in the number of co-located workers that compute.
    alone = loads(0.0)
    more = loads(1.0) - alone
    together = np.zeros((len(names), len(names)))
    for worker, others in instance.colocated.items():
        together[names.index(worker), [names.index(other) for other in others]] = 1.0
    computing = np.zeros(len(names))
    for _ in range(MAX_SETTLING):
        before, computing = computing, together @ shares(alone + more * computing)
        if np.abs(computing - before).max() < SETTLED:
            break
    found = dict(zip(names, computing.tolist(), strict=True))
    return instance.model_copy(update={"company": {name: found[name] for name in instance.colocated}})


def _in_queues(
    instance: Instance, samples: Samples, busy: Mapping[str, float], volume: NDArray[np.float64]
) -> tuple[float, list[float]]:
    """Return the share of all rates for which delays are evaluated, and the mean time of each visit then, in order."""
    throughput = instance.scenario.objective.goal == "throughput"
    scale = sustained(instance, busy) if throughput else 1.0
    times_s = queueing_times_s(instance, samples, volume * scale)
    while throughput and instance.batches and not np.isfinite(times_s).all():
        scale *= SMALLER  # batches of several classes are not full
        times_s = queueing_times_s(instance, samples, volume * scale)
    return scale, times_s


@dataclass(frozen=True)
class PlannedLeg:
    """Mean times of a route's samples on one leg, in seconds; samples that left before it count as zero.

    Parameters
    ----------
    probability
        Probability that a sample comes to this leg.
    wait_s
        Waiting before it, and between its blocks or fragments for more urgent work; infinite where it never ends.
    work_s
        Computing, or sending with its latency.
    """

    site: LegSite
    probability: float
    wait_s: float
    work_s: float


def legs(instance: Instance, routes: Routes) -> dict[str, list[list[PlannedLeg]]]:
    """Return the legs of each route of each source, in the order in which its samples come to them.

    A route's legs add up to its mean delay; weighted by the routes' shares, they add up to the delay of
    :func:`evaluate`.

    Raises
    ------
    PlanError
        As :func:`evaluate` does.
    """
    instance = in_company(instance, routes)
    samples, volume = _follow(instance, routes), volumes(instance)
    goal = instance.scenario.objective.goal
    if goal == "makespan":
        times_s = [visit.mean_s for trips in samples.values() for _, trip in trips for visit in trip.visits]
    else:
        full = samples if not instance.batches else _follow(instance.in_full_batches(), routes)
        loads = (_loads(instance, full) * volume[:, None]).sum(axis=0)
        busy = dict(zip((*instance.workers, *instance.resources), loads.tolist(), strict=True))
        _, times_s = _in_queues(instance, samples, busy, volume)
    in_order = iter(times_s)
    return {
        source: [
            [
                PlannedLeg(
                    visit.site,
                    visit.probability,
                    wait_s=visit.probability * max(time_s - visit.mean_s, 0.0),
                    work_s=visit.probability * (visit.mean_s + visit.latency_s),
                )
                for visit, time_s in zip(trip.visits, in_order, strict=False)
            ]
            for _, trip in trips
        ]
        for source, trips in samples.items()
    }


def alone_at_home(instance: Instance, source: str, route: Route) -> Evaluation:
    """Evaluate the whole of ``route``'s model at the worker of ``source``, as if there were no other source."""
    stage = Stage(worker=instance.home(source), first_block=0, last_block=instance.length(route.model) - 1)
    whole = Route(model=route.model, operating_point=route.operating_point, stages=(stage,))
    return evaluate(instance.only_sources([source]), {source: [whole]})


def weighted_means(instance: Instance, sources: Mapping[str, SourcePlan]) -> tuple[float, float]:
    """Return Σ p λ T / Σ p λ in seconds and Σ p λ A / Σ p λ over the sources' evaluated delays and accuracies."""
    weight = volumes(instance) * [spec.priority for spec in instance.scenario.sources.values()]
    weight /= weight.sum()
    delay = np.array([sources[source].delay_s for source in instance.sources])
    accuracy = np.array([sources[source].accuracy for source in instance.sources])
    return float(weight @ delay), float(weight @ accuracy)


def weighted_misses(instance: Instance, sources: Mapping[str, SourcePlan]) -> float:
    """Return Σ p λ M / Σ p λ over the sources' shares M of samples that miss their deadlines."""
    weight = volumes(instance) * [spec.priority for spec in instance.scenario.sources.values()]
    share = np.array([sources[source].miss_share or 0.0 for source in instance.sources])
    return float(weight @ share / weight.sum())


def _accuracy(instance: Instance, routes: Sequence[Route]) -> float:
    return sum(route.share * instance.operating_points(route.model)[route.operating_point].accuracy for route in routes)


def _loads(instance: Instance, samples: Samples) -> NDArray[np.float64]:
    """Return the seconds that one sample of each source takes of each worker and network; shape [S, R]."""
    column = {name: index for index, name in enumerate((*instance.workers, *instance.resources))}
    load = np.zeros((len(instance.sources), len(column)))
    for index, source in enumerate(instance.sources):
        for route, trip in samples[source]:
            for visit in (*trip.visits, *trip.aside):
                load[index, column[visit.resource]] += route.share * visit.probability * visit.mean_s
    return load


def loads_by_source(instance: Instance, routes: Routes) -> dict[str, dict[str, float]]:
    """Return what each source adds to the utilisation of each worker and network, as :func:`evaluate` counts it.

    Raises
    ------
    PlanError
        As :func:`evaluate` does.
    """
    instance = in_company(instance, routes).in_full_batches()
    load = _loads(instance, _follow(instance, routes)) * volumes(instance)[:, None]
    return {
        name: dict(zip(instance.sources, column, strict=True))
        for name, column in zip((*instance.workers, *instance.resources), load.T.tolist(), strict=True)
    }


def _follow(instance: Instance, routes: Routes, journeys: Journeys | None = None) -> Samples:
    known = journeys or Journeys(instance)
    return {source: [(route, known.of(source, route)) for route in routes[source]] for source in instance.sources}


def _percentiles(found: DelayDistribution | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {f"p{percent}_delay_s": found.percentile_s(percent / 100) for percent in (50, 95, 99)}


def _distributions(
    instance: Instance, samples: Samples, rate_per_s: NDArray[np.float64], delay_s: NDArray[np.float64]
) -> dict[str, DelayDistribution]:
    """Return the distribution of the delay of each source that has a deadline or bounds on percentiles.

    Parameters
    ----------
    delay_s
        Mean delay of each source, shape [S], seconds. What samples that run as batches wait is as long on average, and
        distributed as the wait for single visits of the mean size.
    """
    specs = instance.scenario.sources
    timed = [source for source, spec in specs.items() if spec.deadline_s is not None or spec.percentiles_s]
    if not timed:
        return {}
    level = {priority: rank for rank, priority in enumerate(sorted({-spec.priority for spec in specs.values()}))}
    seen = seen_by_others(instance, samples, rate_per_s)
    flows = {
        source: Flow(
            level[-specs[source].priority],
            float(rate),
            seen[source],
            variability(instance, source),
            bursts(instance, source),
        )
        for source, rate in zip(instance.sources, rate_per_s, strict=True)
    }
    found = delay_distributions(flows, timed)
    if not instance.batches:
        return found
    means_s = dict(zip(instance.sources, delay_s.tolist(), strict=True))
    return {
        name: each.with_wait(_in_batches_s(samples[name], seen[name]), means_s[name])
        if instance.scenario.sources[name].max_batch > 1
        else each
        for name, each in found.items()
    }


def _in_batches_s(samples: Trips, seen: Trips) -> float:
    """Return the mean delay of samples that never wait, but run in batches of the mean size, in seconds."""
    return sum(
        route.share * visit.probability * (batch.mean_s + visit.latency_s)
        for (route, trip), (_, together) in zip(samples, seen, strict=True)
        for visit, batch in zip(trip.visits, together.visits, strict=True)
    )


def _delays(instance: Instance, samples: Samples, times_s: Sequence[float]) -> NDArray[np.float64]:
    """Return the mean time of each source's samples at all resources, without latency; shape [S], seconds.

    Parameters
    ----------
    times_s
        Mean time of each visit of each route of each source, in order.
    """
    in_order = iter(times_s)
    spent_s = [
        sum(
            route.share * visit.probability * next(in_order) for route, trip in samples[source] for visit in trip.visits
        )
        for source in instance.sources
    ]
    return np.array(spent_s)
