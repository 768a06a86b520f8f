"""Random scenarios in which workers and networks come and go, and plans for them, good or bad."""

from __future__ import annotations

from math import prod
from typing import Any

from hypothesis import strategies as st

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.profiling.types import ExitPoint, OperatingPoint, Profile
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec, PolicySpec
from tests.instances import random_instance

BLOCKS = 4

LAST_EVENT_S = 1.5
"""Most samples of these scenarios have ended by then."""

GRID_S = 0.05


@st.composite
def instances(draw: st.DrawFn, *, events: int = 8, network_loss: bool = True) -> Instance:
    """A random instance with up to ``events`` events; a network that is lost may or may not come back."""
    instance = random_instance(
        draw(st.integers(0, 10_000)),
        sources=draw(st.integers(1, 3)),
        workers=draw(st.integers(1, 4)),
        blocks=BLOCKS,
        load=draw(st.floats(0.1, 1.5)),
        links=draw(st.booleans()),
    )
    scenario = instance.scenario
    happens = draw(st.lists(_events(instance, network_loss=network_loss), max_size=events))
    workers = {
        name: spec.model_copy(update={"overlap": draw(st.booleans())}) for name, spec in scenario.workers.items()
    }
    sources = {
        name: spec.model_copy(
            update={"arrivals": draw(st.sampled_from(["poisson", "constant", "batch"])), **draw(_time_limits())}
        )
        for name, spec in scenario.sources.items()
    }
    names = instance.workers
    policy = PolicySpec(
        reservoir_limit=draw(st.integers(1, 3)),
        ring=tuple(draw(st.permutations(names))),
        neighbours=draw(st.none() | st.fixed_dictionaries({name: _others(names, name) for name in names})),
    )
    update = {"events": tuple(happens), "workers": workers, "sources": sources, "policy": policy}
    return instance.model_copy(update={"scenario": scenario.model_copy(update=update)})


def _time_limits() -> st.SearchStrategy[dict[str, Any]]:
    """Deadlines and timeouts of a source's samples, from hopeless to generous; often none."""
    some_s = st.floats(0.001, 0.5)
    dropping = st.fixed_dictionaries(
        {"deadline_s": some_s, "late": st.just("drop")}, optional={"queue_timeout_s": some_s}
    )
    return (
        st.just({}) | st.fixed_dictionaries({}, optional={"deadline_s": some_s, "queue_timeout_s": some_s}) | dropping
    )


def _others(names: tuple[str, ...], name: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sets(st.sampled_from(names)).map(lambda found: tuple(sorted(found - {name})))


def _event(**keys: Any) -> EventSpec:
    return EventSpec(**keys)


def _events(instance: Instance, *, network_loss: bool) -> st.SearchStrategy[EventSpec]:
    # Moments of a coarse grid meet each other, and fall between a worker's leaving and the others' noticing.
    at_s = st.floats(0, LAST_EVENT_S) | st.integers(0, round(LAST_EVENT_S / GRID_S)).map(lambda step: step * GRID_S)
    factor = st.sampled_from([0.5, 3.0, 20.0])
    worker, source = st.sampled_from(instance.workers), st.sampled_from(instance.sources)
    kinds = [
        st.builds(_event, at_s=at_s, action=st.sampled_from(["leave", "join", "recover"]), worker=worker),
        st.builds(_event, at_s=at_s, action=st.just("slow"), worker=worker, factor=factor),
        st.builds(_event, at_s=at_s, action=st.just("rate"), source=source, rate_per_s=st.floats(1, 200)),
        st.builds(
            _event, at_s=at_s, action=st.just("priority"), source=source, priority=st.sampled_from([0.5, 2.0, 20.0])
        ),
    ]
    if networks := list(instance.scenario.networks):
        network = st.sampled_from(networks)
        changes = ["leave", "join", "recover"] if network_loss else ["recover"]
        kinds += [
            st.builds(_event, at_s=at_s, action=st.sampled_from(changes), network=network),
            st.builds(_event, at_s=at_s, action=st.just("slow"), network=network, factor=factor),
            st.builds(
                _event,
                at_s=at_s,
                action=st.just("bandwidth"),
                network=network,
                bandwidth_bytes_per_s=st.floats(1e5, 1e8),
            ),
        ]
    return st.one_of(kinds)


@st.composite
def _with_exits(draw: st.DrawFn, profile: Profile) -> Profile:
    """The profile with up to two exits, and with up to three operating points if there are any."""
    cuts = sorted(draw(st.sets(st.integers(1, BLOCKS - 1), max_size=2)))
    exits = tuple(ExitPoint(name=f"exit{cut}", cut=cut, result_bytes=400) for cut in cuts)
    points = []
    for index in range(draw(st.integers(1, 3)) if cuts else 0):
        stays = {cut: draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])) for cut in cuts}
        reach = [prod(share for cut, share in stays.items() if cut <= block) for block in range(BLOCKS)]
        thresholds = (0.5,) * len(cuts)
        points.append(OperatingPoint(name=f"p{index}", accuracy=0.9, thresholds=thresholds, reach=tuple(reach)))
    return profile.model_copy(update={"exits": exits, "operating_points": tuple(points)})


@st.composite
def cases(draw: st.DrawFn, *, events: int = 8, network_loss: bool = True) -> tuple[Instance, PlanSpec]:
    """A random instance, with exits or without, and any plan for it: routes may return to a worker, loads be wrong."""
    instance = draw(instances(events=events, network_loss=network_loss))
    profiles = {
        model: {device_class: draw(_with_exits(profile)) for device_class, profile in found.items()}
        for model, found in instance.profiles.items()
    }
    instance = instance.model_copy(update={"profiles": profiles})
    sources = {}
    for source in instance.sources:
        routes = []
        count = draw(st.integers(1, 2))
        for _ in range(count):
            cuts = sorted(draw(st.sets(st.integers(1, BLOCKS - 1), max_size=BLOCKS - 1)))
            stages = tuple(
                Stage(worker=draw(st.sampled_from(instance.workers)), first_block=first, last_block=after - 1)
                for first, after in zip([0, *cuts], [*cuts, BLOCKS], strict=True)
            )
            model = instance.scenario.sources[source].models[0]
            point = draw(st.integers(0, len(instance.operating_points(model)) - 1))
            routes.append(Route(share=1 / count, model=model, operating_point=point, stages=stages))
        sources[source] = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=tuple(routes))
    busy_s = draw(st.sampled_from([0.0, 0.5, 5.0]))
    plan = PlanSpec(
        status="feasible", method="test", goal=draw(st.sampled_from(["delay", "makespan"])), objective=1.0, bound=0.0,
        gap=1.0, solve_s=0.0, provenance="measured", sources=sources, networks={},
        workers=dict.fromkeys(instance.workers, WorkerUse(utilisation=busy_s, memory_bytes=0)),
    )  # fmt: skip
    return instance, plan
