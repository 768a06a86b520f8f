"""What a policy sees of its worker: up to date, and read-only."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from functools import partial

import pytest

from planner.plan.types import Route
from planner.policy.base import PriorityPolicy
from planner.policy.costs import CostTable
from planner.policy.types import Refuse, Status, View, Waiting, WorkerState
from planner.worker.events import Arrived, BlockEnded, Event, FailureMessage, Left, Received, StatusMessage
from planner.worker.worker import Worker
from tests.instances import make_instance

INSTANCE = make_instance(workers={"slow": 1.0, "fast": 4.0, "far": 4.0})
OF_METHODS = ("clear", "pop", "popitem", "setdefault", "update", "add", "discard", "remove")


def public(value: object) -> list[str]:
    return [name for name in dir(value) if not name.startswith("_")]


def writes(of: object) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way to write to an object: to its attributes, and to the mappings and sets behind them."""
    yield "a new attribute", partial(setattr, of, "invented", 1)
    for name in public(of):
        value = getattr(of, name)
        yield f"{name} =", partial(setattr, of, name, value)
        yield f"del {name}", partial(delattr, of, name)
        if isinstance(value, Mapping | Set):
            yield from ((f"{name}.{what}", write) for what, write in inner_writes(value))


def inner_writes(value: Mapping[Hashable, object] | Set[Hashable]) -> Iterator[tuple[str, Callable[[], object]]]:
    key = next(iter(value), "key")
    yield "[...] =", partial(operator.setitem, value, key, 0.0)
    yield "del [...]", partial(operator.delitem, value, key)
    for method in OF_METHODS:
        arguments: tuple[object, ...] = {"popitem": (), "clear": (), "update": ({key: 0.0},)}.get(method, (key,))
        yield f"{method}()", partial(operator.methodcaller(method, *arguments), value)


class Vandal(PriorityPolicy):
    """Serves by priority, and tries to write to all that it is shown."""

    gossips = True

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def _vandalise(self, of: object) -> None:
        for what, write in writes(of):
            with pytest.raises((AttributeError, TypeError)):
                write()
            self.refused.add(f"{type(of).__name__}.{what}")

    def route(self, view: View, source: str) -> Route | Refuse | float | None:
        self._vandalise(view)
        self._vandalise(view.costs)
        return super().route(view, source)

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        self._vandalise(view)
        for what, write in inner_writes(heads):
            with pytest.raises((AttributeError, TypeError)):
                write()
            self.refused.add(f"heads.{what}")
        return super().choose(view, heads)

    def ran(self, view: View, done: Waiting) -> None:  # noqa: ARG002
        self._vandalise(view)

    def status(self, view: View) -> Status:
        self._vandalise(view)
        return Status(backlog_s=tuple(view.backlog_s.items()))


def test_a_policy_cannot_write_to_what_it_is_shown() -> None:
    vandal = Vandal()
    worker, peer = (Worker("slow", INSTANCE, policy) for policy in (vandal, Friend()))
    events: list[Event] = [
        Received("fast", StatusMessage(Status(slowness=4.0, links=(("far", 2.0),)))),
        Arrived("camera", 0),
        Arrived("camera", 1),
        Left("far"),
    ]
    for now_s, event in enumerate(events):
        assert worker.step(float(now_s), event) == peer.step(float(now_s), event)
    key = worker.running
    assert key is not None
    broken = FailureMessage(key._replace(sample=7), "fast does not reach far", ("fast", "far"))
    events = [Received("fast", broken), BlockEnded(key, 0, 0.01), BlockEnded(key, 1, 0.01), Arrived("camera", 2)]
    for event in events:
        assert worker.step(5.0, event) == peer.step(5.0, event)
    for name in public(View):
        assert f"View.{name} =" in vandal.refused
    for name in ("absent", "backlog_s", "cut", "in_flight", "priorities", "queued", "status_numbers", "statuses"):
        assert f"View.{name}.clear()" in vandal.refused
    for name in ("cut_bytes", "slowness"):
        assert f"CostTable.{name}.clear()" in vandal.refused
    assert "heads.[...] =" in vandal.refused


class Friend(Vandal):
    """Does the same, and writes to nothing."""

    def _vandalise(self, of: object) -> None:
        pass

    def choose(self, view: View, heads: Mapping[Hashable, Waiting]) -> Hashable | None:
        return PriorityPolicy.choose(self, view, heads)


def test_a_view_shows_what_its_worker_knows_now() -> None:
    state = WorkerState("slow", INSTANCE, CostTable(INSTANCE))
    view = state.view
    state.now_s, state.running_until_s, state.absent = 3.0, 4.5, frozenset({"far"})
    state.backlog_s[2.0] = 1.0
    state.slowness["slow"] = 3.0
    assert (view.now_s, view.running_until_s, view.ahead_s(2.0), view.ahead_s(3.0)) == (3.0, 4.5, 2.5, 1.5)
    assert view.present(["far", "fast"]) == ["fast"]
    assert view.costs.compute_s("m", "slow", 0, 0) == pytest.approx(
        3 * CostTable(INSTANCE).compute_s("m", "slow", 0, 0)
    )


def test_every_status_has_a_number_of_its_own() -> None:
    """So a policy knows a new status from one that it has seen, even if they are equal."""
    state = WorkerState("slow", INSTANCE, CostTable(INSTANCE))
    seen = []
    for _ in range(2):
        state.hear("fast", Status())
        seen.append(state.view.status_numbers["fast"])
    state.forget("fast")
    assert "fast" not in state.view.statuses
    assert "fast" not in state.view.status_numbers
    state.hear("fast", Status())
    assert len({*seen, state.view.status_numbers["fast"]}) == 3


def test_the_costs_of_workers_of_one_process_are_shared_but_their_slowness_is_not() -> None:
    costs = CostTable(INSTANCE)
    one, other = (WorkerState(name, INSTANCE, costs) for name in ("slow", "fast"))
    one.slowness["far"] = 8.0
    assert dict(one.view.costs.slowness) == {"far": 8.0}
    assert not other.view.costs.slowness
    assert not costs.slowness
