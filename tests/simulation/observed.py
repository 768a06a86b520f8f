"""A simulator whose workers' steps a test can observe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulator
from planner.worker.events import Effect, Event
from planner.worker.worker import Worker

Observe = Callable[[str, float, Event, list[Effect]], None]


class ObservedSimulator(Simulator):
    """Calls ``observe(worker, now_s, event, effects)`` after every step of a worker; otherwise a simulator."""

    def __init__(self, instance: Instance, *, observe: Observe, **options: Any) -> None:
        self._observe = observe
        super().__init__(instance, **options)

    def _new_worker(self, name: str) -> Worker:
        worker = super()._new_worker(name)
        step = worker.step

        def observed_step(now_s: float, event: Event) -> list[Effect]:
            effects = step(now_s, event)
            self._observe(name, now_s, event, effects)
            return effects

        worker.step = observed_step  # type: ignore[method-assign]
        return worker
