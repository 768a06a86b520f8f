"""Where the tokens of sequences are fed back: at home, or at the worker of the last block.

At home, a step waits for the way of the token from the last block's worker, and for that of the step to the first
block's. Otherwise it waits for the one way between these two, or for none if they are the same; the token goes home
meanwhile. Which is faster depends on the networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from planner.plan.journey import Journeys
from planner.plan.types import Route
from planner.scenario.instance import Instance

Routes = Mapping[str, Sequence[Route]]


def with_loops(instance: Instance, routes: Routes, journeys: Journeys | None = None) -> dict[str, tuple[Route, ...]]:
    """Return routes with the place where tokens are fed back: as the scenario says, or where an idle system is faster.

    That is at home where there is no path from the last block's worker to the first one's, and where it makes no
    difference.
    """
    known = journeys or Journeys(instance)
    found = {source: tuple(of_source) for source, of_source in routes.items()}
    for source, spec in instance.scenario.sources.items():
        if spec.decode is None or not spec.decode.steps:
            continue
        places = [_places(instance, source, route) for route in found[source]]
        if spec.decode.loop == "auto":
            found[source] = tuple(
                min(options, key=lambda route: round(known.of(source, route).unloaded_s, 12)) for options in places
            )
        else:
            found[source] = tuple(options[-1 if spec.decode.loop == "last" else 0] for options in places)
    return found


def other_loops(instance: Instance, routes: Routes) -> Iterator[tuple[str, tuple[Route, ...]]]:
    """Yield the sources whose tokens may be fed back elsewhere, with the routes on which they are."""
    for source, spec in instance.scenario.sources.items():
        if spec.decode is None or spec.decode.loop != "auto":
            continue
        other = tuple(
            next((option for option in _places(instance, source, route) if option.loop != route.loop), route)
            for route in routes[source]
        )
        if other != tuple(routes[source]):
            yield source, other


def _places(instance: Instance, source: str, route: Route) -> list[Route]:
    """Return a route with each place where tokens may be fed back, home first."""
    first, last = route.stages[0].worker, route.stages[-1].worker
    at_home = route if route.loop == "home" else route.model_copy(update={"loop": "home"})
    if last == instance.home(source) or instance.path(last, first) is None:
        return [at_home]
    return [at_home, at_home.model_copy(update={"loop": "last"})]
