"""Mean delays of a fixed plan: each worker and network is a priority M/G/1, preempted between pieces only.

For class k at one resource, S the time of a whole visit, B of one piece (a block or a fragment), S_last of the last
piece of a visit and σ_k the utilisation by classes 1..k, the most important first:

    W_k = [Σ_{j≤k} λ_j E S_j² + Σ_{j>k} λ_j Σ_b E B_jb²] / 2 / ((1 − σ_{k−1}) (1 − σ_k))
    T_k = W_k + (S_k − S_last) / (1 − σ_{k−1}) + S_last

With one piece per visit this is Cobham's formula; less important work delays by the rest of one piece at most. Bursts
prolong W_k as :mod:`planner.plan.bursts` has it.

References
----------
A. Cobham, "Priority assignment in waiting line problems", Operations Research 2 (1954).
L. Kleinrock, "Queueing Systems, Volume 2: Computer Applications" (1976), section 3.6.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planner.plan.bursts import Bursts, Modulation, Work
from planner.plan.journey import Moments, Visit


@dataclass(frozen=True)
class Stream:
    """Visits of one kind: their rate, and how important they are (``level`` 0 is the most important).

    ``bursts`` are those of their source, whose name matters only then. ``returns_s`` is the time from one visit to the
    next without waiting, in seconds, of steps of a sequence: each comes after the last one only.
    """

    level: int
    rate_per_s: float
    visit: Visit
    source: str = ""
    bursts: Bursts | None = None
    returns_s: float = np.inf


class ClassMember(NamedTuple):
    """A stream of one resource, with its number among all streams."""

    number: int
    stream: Stream
    moment: Moments


def visit_times_s(streams: Sequence[Stream]) -> list[float]:
    """Return the mean time of each stream's visits in seconds: waiting and work, without latency.

    The time is infinite for a class that is offered more work than its resource can do.

    Examples
    --------
    Urgent visits of 10 ms at 20 /s wait for others of 100 ms at 5 /s, in one piece or in ten:

    >>> from planner.plan.journey import LegSite
    >>> def visit(*piece_s):
    ...     site = LegSite("worker", first=0, last=0, transfer=False)
    ...     return Visit(site, 1.0, np.array(piece_s), np.zeros(len(piece_s)), np.ones(len(piece_s)))
    >>> urgent = Stream(level=0, rate_per_s=20, visit=visit(0.01))
    >>> whole, cut = (Stream(level=1, rate_per_s=5, visit=visit(*pieces)) for pieces in ([0.1], [0.01] * 10))
    >>> [round(1e3 * visit_times_s([urgent, other])[0], 1) for other in (whole, cut)]
    [42.5, 14.4]
    """
    queues: dict[str, list[ClassMember]] = defaultdict(list)
    for number, stream in enumerate(streams):
        queues[stream.visit.resource].append(ClassMember(number, stream, stream.visit.moments))
    times_s = [0.0] * len(streams)
    for queue in queues.values():
        for member, wait_s, busy_above in _waits(queue):
            free, moment = 1 - busy_above, member.moment
            times_s[member.number] = wait_s + (moment.mean - moment.last) / free + moment.last if free > 0 else np.inf
    return times_s


def _waits(queue: Sequence[ClassMember]) -> Iterable[tuple[ClassMember, float, float]]:
    """Yield each stream of one resource with its mean wait and the utilisation by more important classes."""
    levels = sorted({member.stream.level for member in queue})
    busy_above = 0.0
    for level in levels:
        peers = [member for member in queue if member.stream.level == level]
        busy = busy_above + sum(member.stream.rate_per_s * member.moment.mean for member in peers)
        rest = sum(
            member.stream.rate_per_s
            * (member.moment.square if member.stream.level <= level else member.moment.piece_square)
            for member in queue
        )
        free = (1 - busy_above) * (1 - busy) if busy < 1 else 0.0
        longer_s = _longer_s([member.stream for member in queue if member.stream.level <= level], level, busy)
        for member in peers:
            crowd_s = sum(by_own[source == member.stream.source] for source, by_own in longer_s.items())
            spared = _spared(queue, level, member.stream.returns_s)
            yield member, ((rest - spared) / 2 / free if free > 0 else np.inf) + crowd_s, busy_above
        busy_above = busy


def _spared(queue: Sequence[ClassMember], level: int, returns_s: float) -> float:
    """Return what to leave out of Σ λ E B² over pieces of less important classes, for steps that return in a time r.

    A piece B > r blocks a sequence once, not each of the B / r steps that would come meanwhile if they came by
    themselves. That one comes at any time of the first r seconds and waits for B − r/2 on average. So it is
    r (B − r/2) in place of B²/2.
    """
    if returns_s == np.inf:
        return 0.0
    return sum(
        member.stream.rate_per_s
        * float(member.stream.visit.survival @ np.maximum(member.stream.visit.piece_s - returns_s, 0.0) ** 2)
        for member in queue
        if member.stream.level > level
    )


def _longer_s(streams: Sequence[Stream], level: int, busy: float) -> dict[str, tuple[float, float]]:
    """Return for each source with bursts how much longer others, and its own samples, wait at a level."""
    crowds = {stream.source: stream.bursts for stream in streams if stream.bursts is not None}
    if not crowds or busy >= 1:
        return {}
    found = {}
    for source, bursts in crowds.items():
        work, above = (
            Work.of((stream.rate_per_s, stream.visit, stream.source == source) for stream in some)
            for some in (streams, [stream for stream in streams if stream.level < level])
        )
        modulation = Modulation(bursts, work, above)
        found[source] = modulation.longer_s(own=False), modulation.longer_s(own=True)
    return found
