"""States of samples and tasks in a worker, and what moves them on: observed in the random runs of the campaign.

A worker has no table of states. What it holds after each step of a run, under every policy and with every kind of
fault, tells the states; the event of the step tells what led from one to the next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from math import hypot, inf
from typing import Any, Final

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import POLICIES
from planner.scenario.instance import Instance
from planner.worker.events import (
    Complete,
    Discard,
    Effect,
    Event,
    Fail,
    FailureMessage,
    Received,
    ResultMessage,
    Send,
    TaskMessage,
    TimedOut,
)
from planner.worker.worker import Worker
from tests.campaign.case import draw_case
from tests.campaign.faulty import FaultySimulator
from tests.instances import make_instance
from tests.simulation.observed import ObservedSimulator

SEEDS: Final = range(160)
"""Cases of the campaign that are looked at; more of them show no other transition."""

NEW: Final = "–"
"""What is not there yet."""

ON_ITS_WAY: Final = frozenset(("sent on", "turned back"))
"""Where a task may be at the end of the step in which it came. Of results, a worker holds nothing."""

State = tuple[str, int]
"""A state, and the number of the attempt: another attempt at a sample is another state of the same name."""
Held = Mapping[Hashable, State]
Transitions = Mapping[tuple[str, str], frozenset[str]]
"""Events that lead from a state to another."""


class _Observer:
    """Compares what each worker holds after a step with what it held before."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.tasks: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._held: dict[int, tuple[Worker, Held, Held]] = {}

    def look(self, worker: Worker, _now_s: float, event: Event, effects: list[Effect]) -> None:
        _, samples_before, tasks_before = self._held.get(id(worker), (worker, {}, {}))
        samples_now, tasks_now = _samples(worker), _tasks(worker)
        self._held[id(worker)] = (worker, samples_now, tasks_now)  # with the worker, so that no other gets its address
        name = event_name(event)
        _note(self.samples, name, samples_before, samples_now, _ends_of_samples(effects))
        _note(self.tasks, name, tasks_before, tasks_now, _ends_of_tasks(effects))


def _crowded() -> Iterator[tuple[str, Instance, PlanSpec]]:
    """Yield policies with a case in which samples are too late: the campaign has no deadlines."""
    source: dict[str, Any] = {"rate_per_s": 200.0, "samples": 200}
    late: dict[str, dict[str, Any]] = {
        "a": {"late": "drop", "deadline_s": 0.1},
        "b": {"queue_timeout_s": 0.05, "in_flight": 2},
    }
    instance = make_instance(
        workers={"slow": 1.0, "fast": 2.0}, sources={name: source | keys for name, keys in late.items()}
    )
    stages = (Stage(worker="slow", first_block=0, last_block=0), Stage(worker="fast", first_block=1, last_block=1))
    own = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=stages),))
    plan = PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=dict.fromkeys(instance.sources, own), workers={}, networks={},
    )  # fmt: skip
    for policy in POLICIES:
        yield policy, instance, plan


def _run_observed(observer: _Observer, policy: str, instance: Instance, plan: PlanSpec) -> None:
    def observe(name: str, now_s: float, event: Event, effects: list[Effect]) -> None:
        observer.look(simulator._workers[name], now_s, event, effects)

    simulator = ObservedSimulator(instance, policy=policy, plan=plan, seed=0, sink=lambda _: None, observe=observe)
    simulator.run()


@cache
def transitions(seeds: range = SEEDS) -> tuple[Transitions, Transitions]:
    """Return what was observed of samples at their home, and of tasks at a worker."""
    observer = _Observer()
    for seed in seeds:
        FaultySimulator(draw_case(seed), sink=lambda _: None, look=observer.look).run()
    for policy, instance, plan in _crowded():
        _run_observed(observer, policy, instance, plan)
    return tuple(
        {key: frozenset(names) for key, names in found.items()} for found in (observer.samples, observer.tasks)
    )  # type: ignore[return-value]


def event_name(event: Event) -> str:
    """Return the name of an event, of a message that came, or of a time that is over."""
    if isinstance(event, Received):
        return type(event.message).__name__
    return f"TimedOut ({event.timer.purpose})" if isinstance(event, TimedOut) else type(event).__name__


def _note(
    found: dict[tuple[str, str], set[str]],
    event: str,
    before: Held,
    now: Held,
    ends: Mapping[Hashable, str],
) -> None:
    for what in {**before, **now, **ends}:
        start, end = before.get(what, (NEW, 0)), now.get(what) or (ends.get(what, NEW), 0)
        if start != end and (what in before or what in now or end[0] in ON_ITS_WAY):
            found[start[0], end[0]].add(event)


def _samples(worker: Worker) -> dict[Hashable, State]:
    """Return the states of the samples whose home a worker is."""
    return {
        identity: ("in flight", pending.attempt) if pending.started else ("waits", 0)
        for identity, pending in worker._home._pending.items()
    }


def _ends_of_samples(effects: Iterable[Effect]) -> dict[Hashable, str]:
    ends: dict[Hashable, str] = {}
    for effect in effects:
        if isinstance(effect, Complete):
            ends[effect.key.source, effect.key.sample] = "completed"
        elif isinstance(effect, Fail):
            ends[effect.key.source, effect.key.sample] = "dropped" if effect.dropped else "failed"
    return ends


def _tasks(worker: Worker) -> dict[Hashable, State]:
    """Return the states of the tasks at a worker."""
    found: dict[Hashable, State] = dict.fromkeys(worker._handshake._open, ("asks", 0))
    for heap in worker._queues._heaps.values():
        found |= {waiting.task.key: ("queued", 0) for _, waiting in heap}
    if worker._running is not None:
        found[worker._running.task.key] = ("runs", 0)
    return found


def _ends_of_tasks(effects: Iterable[Effect]) -> dict[Hashable, str]:
    ends: dict[Hashable, str] = {}
    for effect in effects:
        if isinstance(effect, Discard):
            ends.setdefault(effect.key, "forgotten")
        elif isinstance(effect, Complete):
            ends[effect.key] = "result home"
        elif isinstance(effect, Fail):
            ends[effect.key] = "given up"
        elif isinstance(effect, Send):
            kinds = {TaskMessage: "sent on", ResultMessage: "result home", FailureMessage: "turned back"}
            ends[effect.message.key] = kinds[type(effect.message)]
    return ends


# ---- the picture ------------------------------------------------------------------------------------------------

PLACES: Final[tuple[Mapping[str, tuple[int, int]], ...]] = (
    {
        NEW: (60, 110),
        "waits": (210, 50),
        "in flight": (210, 170),
        "dropped": (430, 50),
        "failed": (430, 125),
        "completed": (430, 200),
    },
    {
        NEW: (60, 160),
        "asks": (200, 60),
        "queued": (200, 260),
        "runs": (340, 150),
        "sent on": (540, 30),
        "result home": (540, 90),
        "given up": (540, 150),
        "forgotten": (540, 210),
        "turned back": (540, 285),
    },
)
"""Centres of the states in the picture, of samples and of tasks."""
_TITLES: Final = ("A sample at its home", "A task at a worker")
_HALF_WIDTH, _HALF_HEIGHT, _BEND = 48, 17, 16


def numbered(found: Transitions, places: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    """Return the transitions in the order of their numbers: that of the states in the picture."""
    order = list(places)
    return sorted(found, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))


def states_picture() -> str:
    """Return both machines as an SVG picture, with the numbers of the transitions."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 620" font-family="sans-serif" font-size="14">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#444"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for found, places, title, top in zip(transitions(), PLACES, _TITLES, (20, 285), strict=True):
        parts.append(f'<text x="12" y="{top}" font-weight="bold">{title}</text>')
        pairs = numbered(found, places)
        arrows = [_arrow(number, places[start], places[end], top) for number, (start, end) in enumerate(pairs, start=1)]
        parts += arrows
        ends = {end for _, end in pairs} - {start for start, _ in pairs}
        parts += [_node(name, x, y + top, end=name in ends) for name, (x, y) in places.items()]
    return "\n".join([*parts, "</svg>", ""])


def _node(name: str, x: int, y: int, *, end: bool) -> str:
    box = f'x="{x - _HALF_WIDTH}" y="{y - _HALF_HEIGHT}" width="{2 * _HALF_WIDTH}" height="{2 * _HALF_HEIGHT}"'
    if name == NEW:
        text = f'<text x="{x}" y="{y}" dy="5" fill="white" text-anchor="middle">comes</text>'
        return f'<rect {box} rx="{_HALF_HEIGHT}" fill="#444"/>{text}'
    style = 'fill="#eee" stroke="#444" stroke-dasharray="4 3"' if end else 'fill="#cfe3f5" stroke="#0072b2"'
    return f'<rect {box} rx="8" {style}/><text x="{x}" y="{y}" dy="5" text-anchor="middle">{name}</text>'


def _arrow(number: int, start: tuple[int, int], end: tuple[int, int], top: int) -> str:
    """Return a bent arrow from the border of a state to that of another, with its number in the middle."""
    (x1, y1), (x2, y2) = (start[0], start[1] + top), (end[0], end[1] + top)
    style = 'stroke="#444" fill="none" marker-end="url(#end)"'
    if start == end:
        low = y1 + _HALF_HEIGHT
        path = f"M {x1 - 20} {low} C {x1 - 30} {low + 34} {x1 + 30} {low + 34} {x1 + 20} {low}"
        return f'<path d="{path}" {style}/>{_label(number, x1, low + 25)}'
    length = hypot(x2 - x1, y2 - y1)
    across_x, across_y = -(y2 - y1) / length, (x2 - x1) / length
    bend_x, bend_y = (x1 + x2) / 2 + 2 * _BEND * across_x, (y1 + y2) / 2 + 2 * _BEND * across_y
    from_x, from_y = _border(x1, y1, bend_x, bend_y)
    to_x, to_y = _border(x2, y2, bend_x, bend_y)
    middle = (from_x + 2 * bend_x + to_x) / 4, (from_y + 2 * bend_y + to_y) / 4
    path = f"M {from_x:.0f} {from_y:.0f} Q {bend_x:.0f} {bend_y:.0f} {to_x:.0f} {to_y:.0f}"
    return f'<path d="{path}" {style}/>{_label(number, *middle)}'


def _border(x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Return where the line from the centre of a state to a point leaves its box."""
    dx, dy = to_x - x, to_y - y
    share = min(_HALF_WIDTH / abs(dx) if dx else inf, _HALF_HEIGHT / abs(dy) if dy else inf, 1.0)
    return x + share * dx, y + share * dy


def _label(number: int, x: float, y: float) -> str:
    circle = f'<circle cx="{x:.0f}" cy="{y:.0f}" r="9" fill="white" stroke="#999"/>'
    return f'{circle}<text x="{x:.0f}" y="{y:.0f}" dy="4" font-size="11" text-anchor="middle">{number}</text>'
