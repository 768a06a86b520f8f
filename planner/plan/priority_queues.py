"""The queue of each class and flow at each resource of a fixed plan, with the transform of its wait.

See :mod:`planner.plan.distribution` for the formulas.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.plan.bursts import Modulation, Work
from planner.plan.service_times import Complex, Part, Parts, prolonged, wholes
from planner.plan.smoothing import Arrivals, Stream


@dataclass
class Queue:
    """One flow at one resource, with its class: work ``above`` it, its ``own``, and the pieces of what is ``below``."""

    above: Parts
    own: Parts
    below: Parts
    squares: float
    """Σ λ E S² over the visits of its own and more important classes, plus Σ λ E B² over the pieces of others."""
    shrink: float = 1.0
    """Mean wait relative to that of Poisson arrivals. At low utilisation fewer samples wait, at high they wait less."""
    bursts: tuple[tuple[Modulation, bool], ...] = ()
    """Of sources of its own and more important classes, and whether it is the flow of that source."""

    @property
    def busy(self) -> float:
        """Utilisation by its own and more important classes."""
        return self.above.load + self.own.load

    @property
    def wait_s(self) -> float:
        """Mean wait before the first piece, in seconds; infinite if there is more work than time."""
        if self.busy >= 1:
            return math.inf
        free, free_above = 1 - self.busy, 1 - self.above.load
        crowd_s = sum(modulation.longer_s(own=own) for modulation, own in self.bursts)
        return self.shrink * self.squares / 2 / (free_above * free) + crowd_s

    @property
    def longest_s(self) -> float:
        """A wait that is a typical unit of the longest ones, in seconds."""
        return self.wait_s / max(min(1.0, self.busy + self.below.load), 0.05) if not self.bursts else 4 * self.wait_s

    @property
    def prolongation(self) -> float:
        """Mean of a long time, prolonged by more important work, relative to that time: σ'(0)."""
        return 1 + self.above.load / (1 - self.above.nested)

    def echo(self, after_s: float) -> float:
        """Return the probability that a sample that returns ``after_s`` after it left waits as long as before."""
        if self.squares <= 0 or self.busy <= 0:
            return 0.0
        free = (1 - self.above.load) * (1 - self.busy)
        memory_s = self.squares / 2 / self.busy * (1 + self.busy) / free / (1 - self.busy)
        return self.busy * math.exp(-after_s / memory_s)

    def wait(self, s: Complex, sigma: Complex) -> Complex:
        """Return E e^{−sW} of Poisson arrivals."""
        free = max(1 / self.prolongation - self.own.load, 0.0)
        idle = max(free - self.below.load, 0.0)
        part = min(1.0, free / self.below.load) if self.below.load > 0 else 0.0
        blocked = part * (self.below.rate_per_s - self.below.transform(sigma))
        return (idle * sigma + blocked) / (s - self.own.rate_per_s + self.own.transform(sigma))

    def felt_wait(self, s: Complex) -> Complex:
        """Return E e^{−sW} of the arrivals as they are: evenly spaced ones wait less, bursts longer."""
        if self.shrink < 1e-6:
            return np.ones_like(s)
        waits = min(self.shrink ** (1 - self.busy), 1.0)
        of_wait = self.shrink / waits
        found: Complex = (1 - waits) + waits * self.wait(of_wait * s, prolonged(self.above, of_wait * s))
        for modulation, own in self.bursts:
            found = found * modulation.longer(of_wait * s, own=own)
        return found


Queues = Mapping[tuple[str, int, Hashable], Queue]
"""The queue of each level and flow at each resource."""


def queues(streams: Sequence[Stream], arrivals: Sequence[Arrivals]) -> Queues:
    """Return all queues of these streams, which arrive as ``arrivals`` says."""
    at: dict[str, list[tuple[Stream, Arrivals]]] = defaultdict(list)
    for stream, arrival in zip(streams, arrivals, strict=True):
        at[stream.visit.resource].append((stream, arrival))
    found: dict[tuple[str, int, Hashable], Queue] = {}
    for resource, here in at.items():
        for level in sorted({stream.level for stream, _ in here}):
            above = [(stream, arrival) for stream, arrival in here if stream.level < level]
            own = [(stream, arrival) for stream, arrival in here if stream.level == level]
            lower = [part for stream, _ in here if stream.level > level for part in _pieces(stream)]
            parts = {
                "above": Parts(_nesting(above, own)),
                "own": Parts(part for stream, _ in own for part in wholes(stream.rate_per_s, stream.visit)),
                "below": Parts(lower),
            }
            busy = min(parts["above"].load + parts["own"].load, 1.0)
            blocking = sum(part.square for part in lower)
            squares = [
                (sum(part.square for part in wholes(stream.rate_per_s, stream.visit)), arrival)
                for stream, arrival in (*above, *own)
            ]
            full = sum(square for square, _ in squares) + blocking
            crowds = _modulations([*above, *own], above) if busy < 1 else {}
            for flow, source in {queue_key(*one) for one in own}:
                felt = sum(square * _felt(arrival, flow, busy) for square, arrival in squares) + blocking
                found[resource, level, (flow, source)] = Queue(
                    **parts,
                    squares=full,
                    shrink=felt / full if full else 0.0,
                    bursts=tuple((modulation, name == source) for name, modulation in crowds.items()),
                )
    return found


def queue_key(stream: Stream, arrival: Arrivals) -> tuple[Hashable, str | None]:
    """Return the flow of a stream, and its source if it comes in bursts.

    Of two resources that samples pass, their bursts count at the slower one only.
    """
    return arrival.flow, stream.source if stream.bursts and arrival.flow == stream.source else None


def _modulations(
    all_work: Sequence[tuple[Stream, Arrivals]], above: Sequence[tuple[Stream, Arrivals]]
) -> dict[str, Modulation]:
    """Return the bursts of each source that has some, in the work of a class and those above it."""
    crowds = {stream.source: stream.bursts for stream, arrival in all_work if queue_key(stream, arrival)[1]}
    return {
        source: Modulation(
            bursts,
            *(
                Work.of((one.rate_per_s, one.visit, queue_key(one, arrival)[1] == source) for one, arrival in some)
                for some in (all_work, above)
            ),
        )
        for source, bursts in crowds.items()
        if bursts is not None
    }


def _felt(arrival: Arrivals, flow: Hashable, busy: float) -> float:
    """Return which part of a stream's contribution to the wait of Poisson arrivals a flow feels.

    Evenly spaced samples do not wait for each other; others meet them at random, yet seldom several of them.
    """
    if arrival.flow == flow and arrival.variability < 1:
        return arrival.variability
    return 1 - (1 - arrival.for_others) * busy


def _nesting(above: Sequence[tuple[Stream, Arrivals]], own: Sequence[tuple[Stream, Arrivals]]) -> Iterable[Part]:
    """Yield the times of more important visits: evenly spaced ones do not come while another of them is served.

    In the long busy periods of high utilisation they come as often as ever.
    """
    load: dict[Hashable, float] = defaultdict(float)
    for stream, arrival in above:
        load[arrival.flow] += stream.rate_per_s * stream.visit.mean_s
    total = sum(load.values())
    free = max(1 - total - sum(stream.rate_per_s * stream.visit.mean_s for stream, _ in own), 0.0)
    for stream, arrival in above:
        nests = 1 - free * max(1 - arrival.for_others, 0.0) * load[arrival.flow] / total if total else 1.0
        for part in wholes(stream.rate_per_s, stream.visit):
            yield part._replace(nests=nests)


def _pieces(stream: Stream) -> Iterable[Part]:
    """Yield the times of pieces; equal ones together."""
    visit = stream.visit
    rates: dict[tuple[float, float], float] = defaultdict(float)
    for share, mean_s, std_s in zip(
        visit.survival.tolist(), visit.piece_s.tolist(), visit.piece_std_s.tolist(), strict=True
    ):
        rates[mean_s, std_s] += stream.rate_per_s * share
    for (mean_s, std_s), rate in rates.items():
        yield Part(rate, mean_s, std_s**2)
