"""How evenly samples arrive at each resource of a fixed plan, relative to Poisson arrivals.

Samples leave a resource one at a time. With constant times and a single flow, the wait in a row of queues is that of
the slowest alone (Friedman): at a faster one after it samples never wait for each other, and what they wait at a faster
one before it, they need not wait there. So of two resources that a flow passes, the faster one counts its samples as
evenly spaced, as far as c² = 1 − p + p · cv² is below 1: p is the share of the departures of the first that go on to
the second, cv the coefficient of variation of the times there. For exponential times arrivals are Poisson everywhere.
Resources on the way blur what came before by their utilisation.

References
----------
H. D. Friedman, "Reduction methods for tandem queuing systems", Operations Research 13 (1965).
W. Whitt, "The queueing network analyzer", Bell System Technical Journal 62 (1983).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from planner.plan.bursts import Bursts
from planner.plan.journey import Visit

ECHO: Final = 1.2
"""Weight of what returning samples add, by simulation of random plans; 2 if their bursts stayed together."""


class Arrivals(NamedTuple):
    """How samples arrive for a visit: relative variability, and the flow within which they are evenly spaced."""

    variability: float
    flow: Hashable
    spared: bool = False
    """Whether its samples wait less only because they wait elsewhere; others meet them as at random."""

    @property
    def for_others(self) -> float:
        """Variability that other flows meet."""
        return 1.0 if self.spared else self.variability


@dataclass(frozen=True)
class Stream:
    """Visits of one kind: their rate, and how important they are (``level`` 0 is the most important).

    Parameters
    ----------
    source
        Name of the source.
    before, after
        The visits that a sample makes before and after this one, in order.
    variability
        Squared coefficient of variation of the times between the source's arrivals.
    bursts
        The source's bursts, if it has any.
    """

    level: int
    rate_per_s: float
    visit: Visit
    source: str
    before: tuple[Visit, ...] = ()
    after: tuple[Visit, ...] = ()
    variability: float = 1.0
    bursts: Bursts | None = None


def arrivals(streams: Sequence[Stream]) -> list[Arrivals]:
    """Return how the samples of each stream arrive."""
    resources = _Resources(streams)
    return [_arrivals(stream, resources) for stream in streams]


def _arrivals(stream: Stream, resources: _Resources) -> Arrivals:
    here = stream.visit.resource
    if any(earlier.resource == here for earlier in stream.before):
        return Arrivals(1 + resources.echo(stream), stream.source)
    even = _blurred(stream.variability, stream.before, resources)
    found = [Arrivals(min(even, 1.0), stream.source)]
    for place, earlier in enumerate(stream.before):
        if not resources.slower(here, earlier.resource, stream.level):
            variability = resources.variability(earlier.resource, here)
            blurred = _blurred(variability, stream.before[place + 1 :], resources)
            found.append(Arrivals(blurred, ("from", earlier.resource)))
    for place, later in enumerate(stream.after):
        if later.resource != here and resources.slower(later.resource, here, stream.level):
            blurred = _blurred(resources.variability(here, later.resource), stream.after[:place], resources)
            found.append(Arrivals(blurred, ("to", later.resource), spared=True))
    return min(found, key=lambda arrival: arrival.variability)


def _blurred(variability: float, between: Sequence[Visit], resources: _Resources) -> float:
    """Return a variability after some visits, in whose queues it comes closer to that of Poisson arrivals."""
    for visit in between:
        variability += (1 - variability) * min(resources.load[visit.resource], 1.0)
    return variability


class _Resources:
    """Loads and rates of all resources, and of what goes from one to another."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        self.load: dict[str, float] = defaultdict(float)
        self._rate: dict[str, float] = defaultdict(float)
        self._squares: dict[str, float] = defaultdict(float)
        self._between: dict[tuple[str, str], tuple[float, float, float]] = defaultdict(lambda: (0.0, 0.0, 0.0))
        self._by_level: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for stream in streams:
            resource, moments = stream.visit.resource, stream.visit.moments
            self.load[resource] += stream.rate_per_s * moments.mean
            self._by_level[resource][stream.level] += stream.rate_per_s * moments.mean
            self._rate[resource] += stream.rate_per_s
            self._squares[resource] += stream.rate_per_s * moments.square
            for earlier in {visit.resource: visit for visit in stream.before}.values():
                rate, there, here = self._between[earlier.resource, resource]
                self._between[earlier.resource, resource] = (
                    rate + stream.rate_per_s,
                    there + stream.rate_per_s * earlier.mean_s,
                    here + stream.rate_per_s * moments.mean,
                )

    def echo(self, stream: Stream) -> float:
        """Return by how much more the returning samples of a stream make others wait than if they came at random.

        They come when others of their burst do, as long as the work here remembers the burst and no queue on the way
        has spread it: then the product of the times of a sample's visits adds to the sum of their squares.
        """
        here = stream.visit.resource
        busy = min(self.load[here], 0.999)
        if busy <= 0:
            return 0.0
        memory_s = self._squares[here] / 2 / busy * (1 + busy) / (1 - busy) ** 2
        since_s, echo_s, clear = 0.0, 0.0, 1.0
        for earlier in reversed(stream.before):
            if earlier.resource == here:
                echo_s += ECHO * earlier.mean_s * math.exp(-since_s / memory_s) * clear
            else:
                clear *= max(1 - self.load[earlier.resource], 0.0)
            since_s += earlier.latency_s + earlier.mean_s / (1 - min(self.load[earlier.resource], 0.999))
        return echo_s / stream.visit.mean_s if stream.visit.mean_s > 0 else 0.0

    def variability(self, earlier: str, later: str) -> float:
        """Return c² of the flow from one resource to another."""
        busy, departures = self.load[earlier], self._rate[earlier]
        rate, _, _ = self._between[earlier, later]
        if busy <= 0 or rate <= 0:
            return 1.0
        part, mean_s = min(rate / departures, 1.0), busy / departures
        cv = max(self._squares[earlier] / departures / mean_s**2 - 1, 0.0)
        return min(1 - part + part * cv, 1.0)

    def slower(self, later: str, earlier: str, level: int) -> bool:
        """Return whether samples that come from one resource to another take longer there, with what goes first."""
        _, there, here = self._between[earlier, later]
        return self._prolonged(later, here, level) > self._prolonged(earlier, there, level)

    def _prolonged(self, resource: str, load: float, level: int) -> float:
        """Return a load, prolonged by other work that is as important as a level or more."""
        first = sum(found for other, found in self._by_level[resource].items() if other <= level)
        return load / (1 - min(max(first - load, 0.0), 0.999))
