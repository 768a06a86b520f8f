"""Check a plan against its scenario without any solver's code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from planner.errors import Fault, PlanError
from planner.plan.evaluate import Evaluation, endless, evaluate
from planner.plan.limits import tail_limits
from planner.plan.surrogate import UTILISATION_CAP
from planner.plan.tokens import token_limits
from planner.plan.types import EnergyUse, PlanSpec, Route, Stage
from planner.scenario.instance import Instance
from planner.units import format_quantity

TOLERANCE = 1e-6


def verify(instance: Instance, plan: PlanSpec, *, tolerance: float = TOLERANCE) -> None:
    """Check that ``plan`` can be carried out on ``instance`` and that its recorded figures are true.

    Raises
    ------
    PlanError
        All errors at once: routes that do not join up, shares, memory, capacity, deadlines, accuracy, recorded values.
    """
    faults = list(_route_faults(instance, plan, tolerance))
    if not faults:
        actual = evaluate(instance, {source: entry.routes for source, entry in plan.sources.items()})
        faults = [*_limit_faults(instance, actual, tolerance), *_record_faults(instance, plan, actual, tolerance)]
    if faults:
        raise PlanError(faults)


def _route_faults(instance: Instance, plan: PlanSpec, tolerance: float) -> Iterator[Fault]:
    if plan.goal != instance.scenario.objective.goal:
        yield Fault("another goal than the scenario's", "goal", plan.goal, instance.scenario.objective.goal)
    for source in sorted(set(instance.sources) ^ set(plan.sources)):
        yield Fault("not in both scenario and plan", f"sources.{source}")
    for model, chain_sha256 in plan.chains.items():
        if model not in instance.profiles or chain_sha256 != instance.any_profile(model).chain_sha256:
            yield Fault("the plan was made for another chain", f"chains.{model}", chain_sha256)
    for source in instance.sources:
        if source not in plan.sources:
            continue
        routes = plan.sources[source].routes
        total = sum(route.share for route in routes)
        if abs(total - 1) > tolerance:
            yield Fault("shares do not add up to 1", f"sources.{source}", total)
        for number, route in enumerate(routes):
            where = f"sources.{source}.routes.{number}"
            yield from _one_route_faults(instance, source, route, where)
            yield from _wish_faults(plan, source, route, where)


def _one_route_faults(instance: Instance, source: str, route: Route, where: str) -> Iterator[Fault]:
    models = instance.scenario.sources[source].models
    if route.model not in models:
        yield Fault("not a model of this source", where, route.model, " or ".join(models))
        return
    if not 0 <= route.operating_point < len(instance.operating_points(route.model)):
        yield Fault("no such operating point", where, route.operating_point)
        return
    expected = 0
    for stage in route.stages:
        if stage.worker not in instance.workers:
            yield Fault("no such worker", where, stage.worker)
            return
        if stage.first_block != expected or stage.last_block < stage.first_block:
            yield Fault("stages do not join up", where, f"blocks {stage.first_block}-{stage.last_block}", str(expected))
        expected = stage.last_block + 1
        yield from _session_faults(instance, route, stage, where)
    if expected != instance.length(route.model):
        yield Fault("blocks are left out or added", where, expected, f"{instance.length(route.model)} blocks")
    yield from _loop_faults(instance, source, route, where)
    home = instance.home(source)
    stops = [home, *(stage.worker for stage in route.stages), home]
    for sender, receiver in itertools.pairwise(stops):
        if instance.path(sender, receiver) is None:
            yield Fault("no path between two workers", where, f"{sender} > {receiver}")


def _loop_faults(instance: Instance, source: str, route: Route, where: str) -> Iterator[Fault]:
    """Check where the tokens of a sequence are fed back: where the scenario says so, if that is possible."""
    decode = instance.scenario.sources[source].decode
    linked = instance.path(route.stages[-1].worker, route.stages[0].worker) is not None
    if route.loop == "last":
        if decode is None:
            yield Fault("a loop of no sequence", where, route.loop, "a source with decode")
        elif decode.loop == "home":
            yield Fault("another loop than the scenario's", where, route.loop, decode.loop)
        if not linked:
            ends = f"{route.stages[-1].worker} > {route.stages[0].worker}"
            yield Fault("no path between two workers", where, ends)


def _session_faults(instance: Instance, route: Route, stage: Stage, where: str) -> Iterator[Fault]:
    """Check that blocks are joined only if they can be: they keep no state, and an exit ends a session."""
    profile = instance.profile(route.model, stage.worker)
    cuts = [exit_.cut for exit_ in profile.exits]
    for first, last in stage.spans:
        if first < last and profile.sequences is not None:
            yield Fault("blocks that keep state are not joined", where, f"blocks {first}-{last}")
        for cut in cuts:
            if first < cut <= last:
                yield Fault("an exit ends a session", where, f"blocks {first}-{last}", f"a session ends at {cut - 1}")


def _wish_faults(plan: PlanSpec, source: str, route: Route, where: str) -> Iterator[Fault]:
    """Check what the user asked for when the plan was made: pinned blocks, visits to one worker."""
    for block, worker in plan.options.get("pins", {}).get(source, {}).items():
        for stage in route.stages:
            if stage.first_block <= int(block) <= stage.last_block and stage.worker != worker:
                yield Fault(f"block {block} is not where it is pinned", where, stage.worker, worker)
    most = plan.options.get("max_visits")
    begun = [stage.worker for stage in route.stages]
    for worker in dict.fromkeys(begun):
        if most is not None and begun.count(worker) > most:
            yield Fault(f"visits {worker} too often", where, begun.count(worker), f"at most {most}")


def _limit_faults(instance: Instance, actual: Evaluation, tolerance: float) -> Iterator[Fault]:
    for worker, use in actual.workers.items():
        memory = instance.worker(worker).memory_bytes
        if use.memory_bytes > memory * (1 + tolerance):
            needed, most = (format_quantity(size, "memory", digits=6) for size in (use.memory_bytes, memory))
            yield Fault("more memory than there is", f"workers.{worker}", needed, f"at most {most}")
    if instance.scenario.objective.goal in {"delay", "energy", "misses"}:
        busy = {name: use.utilisation for name, use in actual.workers.items()}
        busy.update({name: use.utilisation for name, use in actual.networks.items()})
        for name, utilisation in busy.items():
            cap = min(UTILISATION_CAP, instance.max_utilisation[name])
            if utilisation > cap + tolerance:
                yield Fault("busier than the cap", name, utilisation, f"at most {cap:g}")
    yield from _source_faults(instance, actual, tolerance)


def _source_faults(instance: Instance, actual: Evaluation, tolerance: float) -> Iterator[Fault]:
    yield from (Fault(waiting, "sources") for waiting in endless(instance, actual))
    for source, own in actual.sources.items():
        spec = instance.scenario.sources[source]
        if spec.max_mean_delay_s is not None and own.delay_s > spec.max_mean_delay_s * (1 + tolerance):
            yield Fault(
                "above the largest mean delay", f"sources.{source}", own.delay_s, f"at most {spec.max_mean_delay_s:g} s"
            )
        for token in token_limits(spec.decode, own.ttft_s, own.tpot_s):
            if token.reached_s > token.bound_s * (1 + tolerance):
                expected = f"at most {token.bound_s:g} s"
                yield Fault(f"above the largest {token.what}", f"sources.{source}", token.reached_s, expected)
        for limit in tail_limits(spec):
            distribution = actual.distributions.get(source)
            if distribution is not None and limit.broken_by(distribution, tolerance):
                beyond = distribution.share_beyond(limit.bound_s)
                expected = f"at most {1 - limit.level:g} take more than {limit.bound_s:g} s"
                yield Fault("too many samples are late", f"sources.{source}", beyond, expected)
        if spec.min_accuracy is not None and own.accuracy < spec.min_accuracy - tolerance:
            yield Fault("not accurate enough", f"sources.{source}", own.accuracy, f"at least {spec.min_accuracy:g}")


def _record_faults(instance: Instance, plan: PlanSpec, actual: Evaluation, tolerance: float) -> Iterator[Fault]:
    pairs = [("objective", plan.objective, actual.objective)]
    for source, own in actual.sources.items():
        recorded = plan.sources[source]
        pairs += [
            (f"sources.{source}.{key}", getattr(recorded, key), getattr(own, key))
            for key in ("accuracy", "delay_s", "surrogate_delay_s")
        ]
        pairs += [
            (f"sources.{source}.{key}", stated, getattr(own, key) or 0.0)
            for key in ("p50_delay_s", "p95_delay_s", "p99_delay_s", "ttft_s", "tpot_s", "miss_share")
            if (stated := getattr(recorded, key)) is not None
        ]
    for worker in instance.workers:
        if worker not in plan.workers:
            yield Fault("missing from the plan", f"workers.{worker}")
            continue
        pairs += [
            (f"workers.{worker}.{key}", getattr(plan.workers[worker], key), getattr(actual.workers[worker], key))
            for key in ("utilisation", "memory_bytes")
        ]
    for name in instance.resources:
        if name not in plan.networks:
            yield Fault("missing from the plan", f"networks.{name}")
            continue
        pairs.append(
            (f"networks.{name}.utilisation", plan.networks[name].utilisation, actual.networks[name].utilisation)
        )
    pairs += _energy_pairs(plan.energy, actual.energy)
    for where, recorded_value, value in pairs:
        if not math.isclose(recorded_value, value, rel_tol=tolerance, abs_tol=tolerance):
            yield Fault("does not follow from the routes", where, recorded_value, f"{value:g}")
    if plan.bound > plan.objective + tolerance * max(abs(plan.objective), 1.0):
        yield Fault("above the objective", "bound", plan.bound, f"at most {plan.objective:g}")
    if not math.isclose(plan.gap, relative_gap(plan.objective, plan.bound), rel_tol=tolerance, abs_tol=tolerance):
        yield Fault("is not (objective − bound) / |objective|", "gap", plan.gap)


def _energy_pairs(recorded: EnergyUse | None, actual: EnergyUse | None) -> Iterator[tuple[str, float, float]]:
    """Yield what a plan records of energy beside what follows; a plan of an earlier version records none."""
    if recorded is None or actual is None:
        return
    yield "energy.average_power_w", recorded.average_power_w, actual.average_power_w
    yield "energy.energy_per_sample_j", recorded.energy_per_sample_j or 0.0, actual.energy_per_sample_j or 0.0
    for name, use in actual.workers.items():
        own = recorded.workers.get(name)
        yield f"energy.workers.{name}", own.average_power_w if own else 0.0, use.average_power_w


def relative_gap(objective: float, bound: float) -> float:
    """Return (objective − bound) / max(|objective|, 1e-9), never below 0."""
    return max(0.0, (objective - bound) / max(abs(objective), 1e-9))
