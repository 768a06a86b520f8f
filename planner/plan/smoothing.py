"""How evenly samples arrive at each resource of a fixed plan, relative to Poisson arrivals.

Samples that come from another resource leave it one at a time. With the utilisation ρ_u there, and of its departures a
share p that comes here at the rate λ, they are ρ_u / λ apart on average while it is busy, which takes the variability

    x = c² + (1 − c²) · max(0, 1 − (gap / m)² (1 − ρ) / (1 − ρ_u)),    c² = 1 − p + p · cv²

from what queues here, where m is the mean time that a sample takes here, prolonged by other work, and ρ the
utilisation. x is exact for constant times and a single flow, whose wait here and there is that of the slower resource
alone; it is 1, that of Poisson arrivals, for exponential times. Resources on the way blur what came before by their
utilisation.

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

from planner.plan.journey import Visit

ECHO: Final = 1.2
"""Weight of what returning samples add, by simulation of random plans; 2 if their bursts stayed together."""


class Arrivals(NamedTuple):
    """How samples arrive for a visit: relative variability, and the flow within which they are evenly spaced."""

    variability: float
    flow: Hashable


@dataclass(frozen=True)
class Stream:
    """Visits of one kind: their rate, and how important they are (``level`` 0 is the most important).

    Parameters
    ----------
    source
        Name of the source.
    before
        The visits that a sample makes before this one, in order.
    variability
        Squared coefficient of variation of the times between the source's arrivals.
    """

    level: int
    rate_per_s: float
    visit: Visit
    source: str
    before: tuple[Visit, ...] = ()
    variability: float = 1.0


def arrivals(streams: Sequence[Stream]) -> list[Arrivals]:
    """Return how the samples of each stream arrive."""
    resources = _Resources(streams)
    return [_arrivals(stream, resources) for stream in streams]


def _arrivals(stream: Stream, resources: _Resources) -> Arrivals:
    here = stream.visit.resource
    if any(earlier.resource == here for earlier in stream.before):
        return Arrivals(1 + resources.echo(stream), stream.source)
    best = Arrivals(min(stream.variability, 1.0), stream.source)
    blur = 0.0
    for earlier in reversed(stream.before):
        if earlier.resource != here:
            found = resources.variability(earlier.resource, here)
            found += (1 - found) * blur
            if found < best.variability:
                best = Arrivals(found, earlier.resource)
        blur += (1 - blur) * min(resources.load[earlier.resource], 1.0)
    own = stream.variability + (1 - stream.variability) * blur
    if stream.before and best.flow == stream.source:
        best = Arrivals(min(max(own, 0.0), 1.0), stream.source)
    return best


class _Resources:
    """Loads and rates of all resources, and of what goes from one to another."""

    def __init__(self, streams: Iterable[Stream]) -> None:
        self.load: dict[str, float] = defaultdict(float)
        self._rate: dict[str, float] = defaultdict(float)
        self._squares: dict[str, float] = defaultdict(float)
        self._between: dict[tuple[str, str], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._known: dict[tuple[str, str], float] = {}
        for stream in streams:
            resource, moments = stream.visit.resource, stream.visit.moments
            self.load[resource] += stream.rate_per_s * moments.mean
            self._rate[resource] += stream.rate_per_s
            self._squares[resource] += stream.rate_per_s * moments.square
            for earlier in {visit.resource for visit in stream.before}:
                rate, load = self._between[earlier, resource]
                self._between[earlier, resource] = rate + stream.rate_per_s, load + stream.rate_per_s * moments.mean

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

    def variability(self, earlier: str, here: str) -> float:
        """Return x of the flow from one resource to another."""
        if (earlier, here) not in self._known:
            self._known[earlier, here] = self._variability(earlier, here)
        return self._known[earlier, here]

    def _variability(self, earlier: str, here: str) -> float:
        rate, load = self._between[earlier, here]
        busy, departures = self.load[earlier], self._rate[earlier]
        if busy <= 0 or busy >= 1 or load <= 0:
            return 1.0
        others = min(max(self.load[here] - load, 0.0), 0.999)
        mean_s = load / rate / (1 - others)
        part, mean_there_s = min(rate / departures, 1.0), busy / departures
        cv = max(self._squares[earlier] / departures / mean_there_s**2 - 1, 0.0)
        spread = min(1 - part + part * cv, 1.0)
        free = max(1 - rate * mean_s, 0.0)
        even = max(0.0, 1 - (busy / rate / mean_s) ** 2 * free / (1 - busy)) if busy / rate < mean_s else 0.0
        return spread + (1 - spread) * min(even, 1.0)
