"""One case of the campaign: a small scenario, a plan, and the faults of its run; drawn from a seed, or read as JSON."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np

from planner.base import FrozenModel
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.policy.registry import POLICIES
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.scenario.types import EventSpec, NetworkSpec, PaMdiParameters, PolicySpec
from tests.instances import make_instance, make_profile

LAST_FAULT_S = 3.0
"""Members and networks come and go, and clocks step, until then; most samples have arrived by then."""

BANDWIDTH_BYTES_PER_S = 2e7


class CaseSource(FrozenModel):
    """A source, and the routes of its plan: the worker of each block."""

    home: str
    priority: float
    rate_per_s: float
    samples: int
    arrivals: str
    in_flight: int | None
    routes: tuple[tuple[str, ...], ...]


class Cut(FrozenModel):
    """A time in which nothing passes between two workers; they notice when it begins and when it ends."""

    between: tuple[str, str]
    from_s: float
    to_s: float


class ClockStep(FrozenModel):
    """A jump of one worker's clock; forwards only, for agents use a monotonic one."""

    worker: str
    at_s: float
    by_s: float


class Faults(FrozenModel):
    """What happens to messages, by chance.

    Parameters
    ----------
    late
        Share of the messages that take up to ``late_s`` longer.
    reorders
        Whether messages between the same two workers, of the same priority, overtake each other.
    block
        Share of the blocks that fail.
    """

    loss: float = 0.0
    duplicates: float = 0.0
    late: float = 0.0
    late_s: float = 0.0
    reorders: bool = False
    block: float = 0.0

    @property
    def of_transport(self) -> bool:
        """Whether the real transport can show these, with links that break and members that leave."""
        return not (self.loss or self.duplicates or self.reorders)


class Case(FrozenModel):
    """A run: see the fields' names.

    Parameters
    ----------
    network
        ``shared`` medium, ``links`` between all, or a ``line`` on which workers forward for others.
    offsets_s
        What each worker's clock is ahead.
    """

    seed: int
    policy: str
    goal: Literal["delay", "makespan"]
    blocks: int
    block_s: float
    network: str
    workers: dict[str, float]
    overlap: bool
    sources: dict[str, CaseSource]
    events: tuple[EventSpec, ...]
    cuts: tuple[Cut, ...] = ()
    steps: tuple[ClockStep, ...] = ()
    offsets_s: dict[str, float] = {}
    faults: Faults = Faults()
    neighbour_blocks: int = 1
    replans: bool = False

    @property
    def lossless(self) -> bool:
        """Whether every lost message is lost together with its sender or receiver."""
        return self.faults.loss == 0 and not self.cuts

    def instance(self) -> Instance:
        """Return the scenario with its profiles and paths."""
        names = list(self.workers)
        instance = make_instance(
            profiles=[
                make_profile(block_s=[self.block_s] * self.blocks, std_s=self.block_s / 4, stage_overhead_s=2e-4)
            ],
            workers={name: {"speed": speed, "overlap": self.overlap} for name, speed in self.workers.items()},
            sources={
                name: {
                    "worker": source.home,
                    "priority": source.priority,
                    "rate_per_s": source.rate_per_s,
                    "samples": source.samples,
                    "arrivals": source.arrivals,
                    "in_flight": source.in_flight,
                }
                for name, source in self.sources.items()
            },
            networks=self._networks(names),
        )
        scenario = instance.scenario.model_copy(
            update={"events": self.events, "policy": PolicySpec(pa_mdi=PaMdiParameters(blocks=self.neighbour_blocks))}
        )
        return instance.model_copy(
            update={"scenario": scenario, "paths": _line(names) if self.network == "line" else instance.paths}
        )

    def plan(self, rotated: int = 0, absent: frozenset[str] = frozenset()) -> PlanSpec:
        """Return the plan; ``rotated`` sends each block to a later worker instead, and none goes to absent ones."""
        sources = {
            name: SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=routes)
            for name, source in self.sources.items()
            if (routes := self._routes(source, rotated, absent))
        }
        return PlanSpec(
            status="feasible", method="campaign", goal=self.goal, objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
            provenance="measured", sources=sources, networks={},
            workers=dict.fromkeys(self.workers, WorkerUse(utilisation=0.5, memory_bytes=0)),
        )  # fmt: skip

    def _routes(self, source: CaseSource, rotated: int, absent: frozenset[str]) -> tuple[Route, ...]:
        names = list(self.workers)
        routes = []
        for at in source.routes:
            placed = [names[(names.index(worker) + rotated) % len(names)] for worker in at]
            if absent.isdisjoint({*placed, source.home}):
                firsts = [block for block in range(self.blocks) if block == 0 or placed[block] != placed[block - 1]]
                stages = tuple(
                    Stage(worker=placed[first], first_block=first, last_block=after - 1)
                    for first, after in pairwise([*firsts, self.blocks])
                )
                routes.append(Route(model="m", share=1 / len(source.routes), stages=stages))
        return tuple(route.model_copy(update={"share": 1 / len(routes)}) for route in routes)

    def _networks(self, names: list[str]) -> dict[str, NetworkSpec]:
        keys: dict[str, Any] = {"bandwidth_bytes_per_s": BANDWIDTH_BYTES_PER_S, "latency_s": 0.001}
        if self.network == "shared":
            return {"wifi": NetworkSpec(kind="shared", members=tuple(names), **keys)}
        pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
        pairs = list(pairwise(names)) if self.network == "line" else pairs
        return {f"{a}-{b}": NetworkSpec(kind="point-to-point", links=((a, b),), **keys) for a, b in pairs}


def _line(names: list[str]) -> dict[str, dict[str, NetworkPath]]:
    def hop(a: int, b: int) -> Hop:
        link = f"{names[min(a, b)]}-{names[max(a, b)]}"
        return Hop(
            sender=names[a],
            receiver=names[b],
            resource=f"{link}:{names[a]}>{names[b]}",
            bytes_per_s=BANDWIDTH_BYTES_PER_S,
            latency_s=0.001,
        )

    def path(a: int, b: int) -> NetworkPath:
        step = 1 if b > a else -1
        return NetworkPath(hops=tuple(hop(at, at + step) for at in range(a, b, step)))

    count = range(len(names))
    return {names[a]: {names[b]: path(a, b) for b in count if b != a} for a in count}


def draw_case(seed: int) -> Case:
    """Draw a case; each policy, and each kind of fault, is met in a good share of the seeds."""
    rng = np.random.default_rng([21, seed])

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    def pick(values: tuple[str, ...]) -> str:
        return values[int(rng.integers(len(values)))]

    def moment() -> float:
        # Moments of a coarse grid meet each other, and fall between what happens and its being noticed.
        at_s = float(rng.uniform(0, LAST_FAULT_S))
        return round(at_s / 0.05) * 0.05 if chance(0.5) else at_s

    names = tuple(f"w{index}" for index in range(rng.integers(1, 6)))
    blocks = int(rng.integers(1, 5))
    sources = {}
    for index in range(rng.integers(1, 4)):
        routes = tuple(tuple(pick(names) for _ in range(blocks)) for _ in range(rng.integers(1, 3)))
        sources[f"s{index}"] = CaseSource(
            home=pick(names),
            priority=float(rng.choice([1.0, 2.0, 5.0])),
            rate_per_s=float(rng.uniform(2, 25)),
            samples=int(rng.integers(1, 30)),
            arrivals=pick(("poisson", "constant", "batch")),
            in_flight=int(rng.integers(1, 6)) if chance(0.3) else None,
            routes=routes,
        )
    events = [_event(rng, names, tuple(sources), moment()) for _ in range(rng.integers(0, 9))]
    if chance(0.2):
        events += _taken(rng, names, moment())
    cuts, steps, faults = [], [], Faults()
    if chance(0.4) and len(names) > 1:
        for _ in range(rng.integers(1, 4)):
            a, b = rng.permutation(len(names))[:2]
            from_s = moment()
            cuts.append(Cut(between=(names[a], names[b]), from_s=from_s, to_s=from_s + float(rng.uniform(0.01, 2))))
    if chance(0.3):
        steps = [
            ClockStep(worker=pick(names), at_s=moment(), by_s=float(rng.choice([0.01, 1.0, 60.0])))
            for _ in range(rng.integers(1, 4))
        ]
    if chance(0.6):
        beyond = chance(0.6)
        faults = Faults(
            loss=float(rng.choice([0.0, 0.02, 0.2])) if beyond else 0.0,
            duplicates=float(rng.choice([0.0, 0.05, 0.3])) if beyond else 0.0,
            late=float(rng.choice([0.0, 0.1, 0.5])),
            late_s=float(rng.choice([0.005, 0.1, 2.0])),
            reorders=beyond and chance(0.5),
            block=float(rng.choice([0.0, 0.0, 0.02])),
        )
    return Case(
        seed=seed,
        policy=POLICIES[seed % len(POLICIES)],
        goal="makespan" if chance(0.3) else "delay",
        blocks=blocks,
        block_s=float(rng.choice([0.005, 0.02, 0.05])),
        network=pick(("shared", "links", "line")),
        workers={name: float(rng.choice([1.0, 2.0, 4.0])) for name in names},
        overlap=chance(0.7),
        sources=sources,
        events=tuple(sorted(events, key=lambda event: event.at_s)),
        cuts=tuple(cuts),
        steps=tuple(steps),
        offsets_s={name: float(rng.uniform(0, 2)) for name in names} if chance(0.5) else {},
        faults=faults,
        neighbour_blocks=int(rng.integers(0, 3)),
        replans=chance(0.5),
    )


def _taken(rng: np.random.Generator, names: tuple[str, ...], at_s: float) -> list[EventSpec]:
    """Return what another coordinator's run does to this one: it takes some agents at once, and may give them back."""
    taken = [name for name in names if rng.random() < 0.7]
    events = [EventSpec(at_s=at_s, action="leave", worker=name) for name in taken]
    if rng.random() < 0.6:
        back_s = at_s + float(rng.uniform(0, 1))
        events += [EventSpec(at_s=back_s, action="join", worker=name) for name in taken]
    return events


def _event(rng: np.random.Generator, names: tuple[str, ...], sources: tuple[str, ...], at_s: float) -> EventSpec:
    kind = str(rng.choice(["leave", "leave", "join", "join", "slow", "recover", "priority"]))
    worker, source = names[int(rng.integers(len(names)))], sources[int(rng.integers(len(sources)))]
    if kind == "priority":
        return EventSpec(at_s=at_s, action="priority", source=source, priority=float(rng.choice([0.5, 2.0, 20.0])))
    factor = float(rng.choice([0.5, 3.0, 20.0])) if kind == "slow" else None
    return EventSpec(at_s=at_s, action=kind, worker=worker, factor=factor)  # type: ignore[arg-type]
