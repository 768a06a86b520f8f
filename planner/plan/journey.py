"""The journey of a sample along a route: its visits to workers and networks, and the latency on its way.

Evaluation and verification start from here. The solvers have their own arrays, so each checks the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.errors import PlanError
from planner.plan.types import Route, Stage
from planner.profiling.types import OperatingPoint
from planner.scenario.instance import Instance
from planner.scenario.phases import SAMPLE, Phase

FRAGMENT_BYTES = 65536
"""Transfers are cut into fragments of this size; urgent transfers pass between two fragments."""
MAX_FRAGMENTS = 2**20
"""Transfers above 64 GiB count as this many larger fragments, which limits memory."""

Array = NDArray[np.float64]

Send = tuple[str, str, int, float, float]
"""Sender, receiver, cut, bytes, and the probability that a sample sends it."""


class LegSite(NamedTuple):
    """Site of a leg: blocks ``first`` to ``last`` at a worker, or the tensors of cut ``first`` over a resource."""

    resource: str
    first: int
    last: int
    transfer: bool

    def __str__(self) -> str:
        if self.transfer:
            return f"{self.resource}: cut {self.first}"
        blocks = f"block {self.first}" if self.first == self.last else f"blocks {self.first}-{self.last}"
        return f"{self.resource}: {blocks}"


@dataclass(frozen=True)
class Moments:
    """Moments of a visit's time in seconds: means of the whole and of its last piece, E S² and Σ_b E B_b²."""

    mean: float
    last: float
    square: float
    piece_square: float


@dataclass(frozen=True)
class Visit:
    """One task of a sample at one resource: a stage at a worker, or a transfer over one hop.

    The runs of a sequence make the same visits again and again.

    Parameters
    ----------
    site
        The worker and its blocks, or the network resource and the cut.
    probability
        Probability that a sample makes this visit at all; for a sequence the number of times.
    piece_s
        Mean times of the sessions (the stage's overhead counts in the first) or fragments, in order; shape [B].
    piece_std_s
        Standard deviations of these times; shape [B].
    survival
        Probability that each piece is processed, given the visit; starts at 1, never increases; shape [B].
    latency_s
        Time that follows, during which the resource is free for others.
    """

    site: LegSite
    probability: float
    piece_s: Array
    piece_std_s: Array
    survival: Array
    latency_s: float = 0.0
    spans: tuple[tuple[int, int], ...] = ()
    """First and last block of each session of a stage."""
    max_batch: int | None = None
    """Largest batch of a stage, if it has a limit of its own."""

    @property
    def resource(self) -> str:
        """Name of the worker or of the network resource."""
        return self.site.resource

    @cached_property
    def mean_s(self) -> float:
        """Mean time of the whole visit, given that it is made, in seconds."""
        return float(self.survival @ self.piece_s)

    @cached_property
    def moments(self) -> Moments:
        """Moments of its time; it may end after any of its pieces."""
        ends = -np.diff(np.append(self.survival, 0.0))
        variance = self.piece_std_s**2
        whole = np.cumsum(self.piece_s)
        return Moments(
            mean=self.mean_s,
            last=float(ends @ self.piece_s),
            square=float(ends @ (whole**2 + np.cumsum(variance))),
            piece_square=float(self.survival @ (self.piece_s**2 + variance)),
        )


class Way(NamedTuple):
    """How far a sample goes: to an exit, or to the end.

    Parameters
    ----------
    legs
        Number of each of its visits in the journey, and how many of the visit's pieces are processed.
    """

    probability: float
    legs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Journey:
    """All visits of a sample, in order, and the ways that samples take through them.

    Parameters
    ----------
    prompt_visits
        For a sequence, how many of the visits bring the first token; None for other samples.
    steps
        For a sequence, the number of further tokens; all visits after ``prompt_visits`` are made for each.
    aside
        Transfers that no sample waits for: tokens on their way home while the next step runs.
    """

    visits: tuple[Visit, ...]
    ways: tuple[Way, ...]
    prompt_visits: int | None = None
    steps: int = 0
    aside: tuple[Visit, ...] = ()

    def returns_s(self, times_s: Sequence[float]) -> list[float]:
        """Return the time from each visit of a step to that of the next step, in seconds; infinite for other visits.

        Parameters
        ----------
        times_s
            Time of each visit, without latency.
        """
        first = len(self.visits) if self.prompt_visits is None else self.prompt_visits
        own = list(zip(self.visits, times_s, strict=True))[first:]
        step_s = sum(visit.probability * (time_s + visit.latency_s) for visit, time_s in own) / max(self.steps, 1)
        return [math.inf] * first + [step_s] * len(own)

    @cached_property
    def before(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the visits that a sample makes before each visit, in order."""
        found: dict[int, tuple[int, ...]] = {}
        for way in self.ways:
            numbers = tuple(number for number, _ in way.legs)
            for place, number in enumerate(numbers):
                found.setdefault(number, numbers[:place])
        return tuple(found.get(number, ()) for number in range(len(self.visits)))

    @cached_property
    def after(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the visits that a sample makes after each visit if it goes as far as any, in order."""
        found: dict[int, tuple[int, ...]] = {}
        for way in self.ways:
            numbers = tuple(number for number, _ in way.legs)
            for place, number in enumerate(numbers):
                found[number] = max(found.get(number, ()), numbers[place + 1 :], key=len)
        return tuple(found.get(number, ()) for number in range(len(self.visits)))

    @cached_property
    def latency_s(self) -> float:
        """Mean latency of a sample, in seconds."""
        return sum(visit.probability * visit.latency_s for visit in self.visits)

    @cached_property
    def unloaded_s(self) -> float:
        """Mean delay of a sample that never waits, in seconds."""
        return self.latency_s + sum(visit.probability * visit.mean_s for visit in self.visits)


class Journeys:
    """The journeys of samples of an instance; those of equal routes and their parts are made once.

    Routes of a fleet have most of their stages and transfers in common, and so have the plans that a solver compares.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._known: dict[tuple[object, ...], Journey] = {}
        self._stages: dict[tuple[str, int, Stage, Phase], Visit] = {}
        self._sends: dict[Send, tuple[Visit, ...]] = {}

    def of(self, source: str, route: Route) -> Journey:
        """Return the journey of one sample of ``source`` along ``route``, from its arrival until its result is back.

        Raises
        ------
        PlanError
            Two consecutive workers of the route have no path between them.
        """
        phases = self._instance.phases[source]
        key = self._instance.home(source), route.model, route.operating_point, route.stages, route.loop, phases
        if key not in self._known:
            parts = [self._journey(source, route, phase) for phase in phases]
            self._known[key] = parts[0] if phases == (SAMPLE,) else _sequence(phases, parts)
        return self._known[key]

    def _journey(self, source: str, route: Route, phase: Phase) -> Journey:
        """Return the journey of one run, whose visits are made in every run of the phase."""
        instance = self._instance
        point = instance.operating_points(route.model)[route.operating_point]
        reach = tuple(phase.count * share for share in (*point.reach, point.reach[-1]))
        cut_bytes = instance.run_bytes(route.model, phase)
        home = instance.home(source)
        fed_back = phase.fed_back and route.loop == "last"
        before_first = route.stages[-1].worker if fed_back else home
        visits: list[Visit] = []
        ways: list[Way] = []

        def pass_through(more: Iterable[Visit]) -> tuple[tuple[int, int], ...]:
            made = [visit for visit in more if visit.probability > 0]
            visits.extend(made)
            first = len(visits) - len(made)
            return tuple((first + index, len(visit.piece_s)) for index, visit in enumerate(made))

        start = self._transfers(source, (before_first, route.stages[0].worker, 0, float(cut_bytes[0]), reach[0]))
        path = pass_through(start)
        for index, stage in enumerate(route.stages):
            known = route.model, route.operating_point, stage, phase
            if known not in self._stages:
                self._stages[known] = _stage_visit(instance, route.model, stage, point, phase)
            before, path = path, path + pass_through([self._stages[known]])
            for result in _exit_sends(instance, route.model, stage, reach, home):
                _, _, cut, _, leaving = result
                number, sent = path[-1][0], pass_through(self._transfers(source, result))
                done = sum(last < cut for _, last in stage.spans)
                ways.append(Way(leaving, (*before, (number, done), *sent)))
            receiver = route.stages[index + 1].worker if index + 1 < len(route.stages) else home
            cut = stage.last_block + 1
            onward = (stage.worker, receiver, cut, float(cut_bytes[cut]), reach[cut])
            transfers = self._transfers(source, onward)
            if fed_back and index + 1 == len(route.stages):
                return Journey(tuple(visits), (Way(reach[-1], path),), aside=transfers)
            path += pass_through(transfers)
        if reach[-1] > 0:
            ways.append(Way(reach[-1], path))
        return Journey(tuple(visits), tuple(ways))

    def _transfers(self, source: str, send: Send) -> tuple[Visit, ...]:
        if send not in self._sends:
            self._sends[send] = tuple(_transfers(self._instance, source, send))
        return self._sends[send]


def journey(instance: Instance, source: str, route: Route) -> Journey:
    """Return the journey of one sample, as :meth:`Journeys.of` does."""
    return Journeys(instance).of(source, route)


def _sequence(phases: Sequence[Phase], parts: Sequence[Journey]) -> Journey:
    """Return the journey of a sequence from those of its runs, in which no sample leaves early."""
    visits = tuple(visit for part in parts for visit in part.visits)
    path = tuple((number, len(visit.piece_s)) for number, visit in enumerate(visits))
    steps = sum(phase.count for phase in phases[1:])
    aside = tuple(visit for part in parts for visit in part.aside)
    return Journey(visits, (Way(1.0, path),), prompt_visits=len(parts[0].visits), steps=steps, aside=aside)


def _stage_visit(instance: Instance, model: str, stage: Stage, point: OperatingPoint, phase: Phase) -> Visit:
    piece_s, piece_std_s = instance.sessions_s(model, stage.worker, stage.spans, phase, stage.max_batch)
    piece_s[0] += instance.stage_overhead_s(model, stage.worker, stage.max_batch)
    reach = np.array([point.reach[first] for first, _ in stage.spans])
    survival = reach / reach[0] if reach[0] > 0 else np.ones_like(reach)
    return Visit(
        site=LegSite(stage.worker, stage.first_block, stage.last_block, transfer=False),
        probability=phase.count * float(reach[0]),
        piece_s=piece_s,
        piece_std_s=piece_std_s,
        survival=survival,
        spans=tuple(stage.spans),
        max_batch=stage.max_batch,
    )


def _exit_sends(instance: Instance, model: str, stage: Stage, reach: tuple[float, ...], home: str) -> Iterator[Send]:
    """Yield the results that inner exits of a stage send home."""
    for exit_ in instance.any_profile(model).exits:
        if stage.first_block < exit_.cut <= stage.last_block + 1:
            leaving = reach[exit_.cut - 1] - reach[exit_.cut]
            if leaving > 0:
                yield stage.worker, home, exit_.cut, float(exit_.result_bytes), leaving


def _transfers(instance: Instance, source: str, send: Send) -> Iterator[Visit]:
    sender, receiver, cut, size_bytes, probability = send
    path = instance.path(sender, receiver)
    if path is None:
        raise PlanError("no path between two workers", where=f"source {source}", value=f"{sender} > {receiver}")
    fragment = max(FRAGMENT_BYTES, size_bytes / MAX_FRAGMENTS)
    whole, rest = divmod(size_bytes, fragment)
    sizes = np.append(np.full(int(whole), float(fragment)), [rest] * (rest > 0 or whole == 0))
    for hop in path.hops:
        yield Visit(
            site=LegSite(hop.resource, cut, cut, transfer=True),
            probability=probability,
            piece_s=sizes / hop.bytes_per_s,
            piece_std_s=np.zeros(len(sizes)),
            survival=np.ones(len(sizes)),
            latency_s=hop.latency_s,
        )
