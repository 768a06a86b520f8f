"""Limits of single samples: which a plan breaks, why, and another route of a source that breaks less.

Solvers minimise mean delays. A limit on late samples or on a percentile is verified by the evaluated distribution of
the delay; while it is broken, :mod:`planner.solvers.solve` solves again with tighter limits on the mean and more weight
for the source. For the goal ``misses`` they minimise Σ p λ E T / D, by Markov's inequality an upper bound of
Σ p λ P(T > D). :func:`improved` then tries other routes, source by source, by what really counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isclose
from typing import Final, NamedTuple

import numpy as np

from planner.plan.evaluate import Evaluation, legs
from planner.plan.limits import TailLimit, tail_limits
from planner.plan.rates import volumes
from planner.plan.tokens import TokenLimit, token_limits
from planner.scenario.instance import Instance
from planner.solvers.core.build import of_phase
from planner.solvers.core.infeasibility import apart, late
from planner.solvers.core.problem import Choice, Choices, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.routes.pricing import cheapest_route
from planner.units import format_quantity

MAX_ROUTES: Final = 24
"""Routes of a source that are tried, those with the least delay without waiting."""
MAX_ENUMERATED: Final = 4096
"""With more routes of at most two stages, only those of plans that were found are tried."""
MAX_ROUNDS: Final = 3
CERTAIN_LEVEL: Final = 0.7
"""From this level on, samples of constant or common times cannot keep a bound below the least mean time."""


class Broken(NamedTuple):
    """A limit that a source breaks: the limit divided by the evaluated time, below 1, and the sentence that says so."""

    ratio: float
    sentence: str


def broken_limits(instance: Instance, evaluation: Evaluation) -> dict[str, Broken]:
    """Return the limit on delay that each source breaks most, because samples wait."""
    found: dict[str, Broken] = {}
    for name, spec in instance.scenario.sources.items():
        delay_s = evaluation.sources[name].delay_s
        broken = []
        if spec.max_mean_delay_s is not None and delay_s > spec.max_mean_delay_s:
            broken.append(Broken(spec.max_mean_delay_s / delay_s, late(name, delay_s, spec.max_mean_delay_s)))
        own = evaluation.sources[name]
        broken += [
            Broken(token.bound_s / token.reached_s, _too_slow(name, token))
            for token in token_limits(spec.decode, own.ttft_s, own.tpot_s)
            if token.reached_s > token.bound_s
        ]
        for limit in tail_limits(spec):
            if limit.broken_by(evaluation.distributions[name]):
                time_s = evaluation.distributions[name].percentile_s(limit.level)
                ratio = min(limit.bound_s / time_s, 1 - 1e-3)
                broken.append(Broken(ratio, _too_late(instance, evaluation, name, limit)))
        if broken:
            found[name] = min(broken)
    return found


def _too_slow(source: str, limit: TokenLimit) -> str:
    reached, bound = apart(
        lambda time, digits: format_quantity(time, "time", digits=digits), limit.reached_s, limit.bound_s, 3
    )
    return f"{source} needs a {limit.what} of {reached} at best, {bound} is required"


def _too_late(instance: Instance, evaluation: Evaluation, source: str, limit: TailLimit) -> str:
    met = 1 - evaluation.distributions[source].share_beyond(limit.bound_s)
    exact = next((digits for digits in range(2, 9) if isclose(round(limit.level, digits), limit.level)), 9)
    reached, required = apart(lambda part, digits: f"{part:.{digits - 2}%}", met, limit.level, exact)
    bound = format_quantity(limit.bound_s, "time")
    sentence = f"{source} can meet {bound} for {reached} at best, {required} are required"
    return sentence + _cause(instance, evaluation, source)


def _cause(instance: Instance, evaluation: Evaluation, source: str) -> str:
    """Return where the samples of a source wait most, and for whom."""
    routes = {name: own.routes for name, own in evaluation.sources.items()}
    found = legs(instance, routes)
    waits: dict[str, float] = {}
    for route, own in zip(routes[source], found[source], strict=True):
        for leg in own:
            waits[leg.site.resource] = waits.get(leg.site.resource, 0.0) + route.share * leg.wait_s
    where = max(waits, key=lambda name: waits[name], default=None)
    if where is None or waits[where] <= 0:
        return ""
    work = {
        name: float(volume)
        * sum(
            route.share * leg.work_s
            for route, own in zip(routes[name], found[name], strict=True)
            for leg in own
            if leg.site.resource == where
        )
        for name, volume in zip(instance.sources, volumes(instance), strict=True)
    }
    use = evaluation.workers.get(where) or evaluation.networks[where]
    busy = use.utilisation
    names = sorted((name for name in work if work[name] > 0), key=lambda name: -work[name])
    shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    return f": {where} is {busy:.0%} busy with {', '.join(shown)}"


def unused_deadlines(instance: Instance) -> str | None:
    """Return a warning about deadlines that the plan takes no account of; None if there is none."""
    if instance.scenario.objective.goal == "misses":
        return None
    names = [
        name
        for name, spec in instance.scenario.sources.items()
        if spec.deadline_s is not None and spec.miss_at_most is None and not spec.percentiles_s
    ]
    if not names:
        return None
    return (
        f"the deadline of {', '.join(names)} limits nothing by itself: miss_at_most limits the share of late samples, "
        "max_mean_delay the mean delay"
    )


def impossible_limits(instance: Instance, problem: Problem) -> tuple[str, ...]:
    """Return one sentence per source with a deadline or a limit that pure work and transfers break on every route.

    A deadline that limits no share of late samples counts, too: all samples would miss it.
    """
    sentences = []
    for source, (name, spec) in enumerate(instance.scenario.sources.items()):
        bounds = [limit.bound_s for limit in tail_limits(spec) if limit.level >= CERTAIN_LEVEL]
        if spec.deadline_s is not None and spec.miss_at_most is None:
            bounds.append(spec.deadline_s)
        if not bounds:
            continue
        least_s, bound_s = _least_s(problem, source), min(bounds)
        if least_s > bound_s * (1 + 1e-9):
            least, bound = apart(lambda time, digits: format_quantity(time, "time", digits=digits), least_s, bound_s, 3)
            sentences.append(f"no route of {name} meets {bound}: work and transfers alone take {least} at least")
    return (*sentences, *_impossible_tokens(instance, problem))


def _impossible_tokens(instance: Instance, problem: Problem) -> Iterator[str]:
    """Yield a sentence for each bound on the tokens of a sequence that pure work and transfers break on every route."""
    for source, (name, spec) in enumerate(instance.scenario.sources.items()):
        if spec.decode is None or not spec.decode.bounded:
            continue
        steps = len(spec.decode.steps)
        ttft_s = _least_s(of_phase(instance, problem, source, 0), source)
        tpot_s = _least_s(of_phase(instance, problem, source, 1), source) / steps if steps else None
        for limit in token_limits(spec.decode, ttft_s, tpot_s):
            if limit.reached_s > limit.bound_s * (1 + 1e-9):
                yield _too_slow(name, limit)


def _least_s(problem: Problem, source: int) -> float:
    """Return the least time that a sample can take on any route, in seconds; a sample may leave at the first exit."""
    variants = [problem.variants[number] for number in problem.demands[source].variants]
    if not any(variant.exit_share.any() for variant in variants):
        sources = len(problem.demands)
        none = np.zeros(sources)
        prices = Prices(np.zeros((len(problem.classes.weight), len(problem.resources))), none, none + 1, none)
        return float(cheapest_route(problem, source, prices)[0])
    ends = [int(np.flatnonzero(np.append(it.exit_share[:-1], 1.0) > 0)[0]) for it in variants]
    return min(float(it.block_s[: end + 1].min(axis=1).sum()) for it, end in zip(variants, ends, strict=True))


# ---- other routes ---------------------------------------------------------------------------------------------------


def improved(
    problem: Problem,
    choices: Choices,
    incumbents: Iterable[Choices],
    worth: Callable[[Choices], tuple[float, ...]],
    stopped: Callable[[], bool],
) -> Choices:
    """Return routes that are worth no less: of one source after the other, the best of other routes is taken.

    Parameters
    ----------
    incumbents
        Plans that were found, whose routes are tried first.
    worth
        The less the better; compared in order.
    """
    options = [_routes(problem, source, [plan[source] for plan in incumbents]) for source in range(len(choices))]
    best, value = choices, worth(choices)
    for _ in range(MAX_ROUNDS):
        before = value
        for source, routes in enumerate(options):
            for other in routes:
                if stopped():
                    return best
                tried = (*best[:source], other, *best[source + 1 :])
                if other == best[source] or not np.isfinite(problem.objective(tried)) or not problem.feasible(tried):
                    continue
                found = worth(tried)
                if found < value:
                    best, value = tried, found
        if value >= before:
            break
    return best


def _routes(problem: Problem, source: int, known: Sequence[tuple[Choice, ...]]) -> list[tuple[Choice, ...]]:
    """Return routes of a source to try: known ones, then those of at most two stages with the least delay."""
    routes = {own: None for own in known if own}
    demand, count = problem.demands[source], len(problem.workers)
    if sum(len(problem.variants[variant]) * count**2 for variant in demand.variants) <= MAX_ENUMERATED:
        simple = [(choice,) for choice in _simple_routes(problem, source) if problem.allowed(source, choice)]
        simple.sort(key=lambda own: problem.cost(source, own[0]).unloaded_s)
        routes |= dict.fromkeys(simple[:MAX_ROUTES])
    return list(routes)


def _simple_routes(problem: Problem, source: int) -> Iterator[Choice]:
    count = len(problem.workers)
    for variant in problem.demands[source].variants:
        length = len(problem.variants[variant])
        for first in range(count):
            yield Choice(variant, (first,) * length)
            for cut in range(1, length):
                for second in range(count):
                    if second != first:
                        yield Choice(variant, (first,) * cut + (second,) * (length - cut))
