"""A session that makes its plan again by itself, when rates or workers' speeds drift."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from planner.api.plan import Plan
from planner.api.scenario import Scenario
from planner.errors import PlannerError, explain
from planner.execution.coordinator.run_result import Observer, SendSample
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS
from planner.execution.wire.messages import Load as WorkerLoad
from planner.plan.drift import DriftRules, DriftWatch, Load, Window
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.trace.records import Incident, SampleRecord

_LOG = logging.getLogger(__name__)


class Meter(Observer):
    """Measures a session window by window, and passes everything on to another observer."""

    def __init__(self, also: Observer) -> None:
        self._also = also
        self._lock = threading.Lock()
        self._begin()
        self._slowness: dict[str, float] = {}

    def _begin(self) -> None:
        self._since_s = time.monotonic()
        self._ended: Counter[str] = Counter()
        self._completed: Counter[str] = Counter()
        self._delay_s: dict[str, float] = {}

    def take(self, priorities: Mapping[str, float], runs: Mapping[str, int]) -> Window:
        """Return the window that ends now, and begin the next one.

        Parameters
        ----------
        runs
            Number of runs of a typical sequence of each source that produces them: so many ends count as a sample.
        """
        with self._lock:
            weight = sum(priorities.get(source, 0.0) * count for source, count in self._completed.items())
            total_s = sum(priorities.get(source, 0.0) * delay_s for source, delay_s in self._delay_s.items())
            window = Window(
                length_s=time.monotonic() - self._since_s,
                arrived={source: count / runs.get(source, 1) for source, count in self._ended.items()},
                slowness=dict(self._slowness),
                delay_s=total_s / weight if weight else None,
                failed=sum(self._ended.values()) - sum(self._completed.values()),
            )
            self._begin()
        return window

    def on_started(self, submit: SendSample) -> None:
        """Begin the first window."""
        with self._lock:
            self._begin()
        self._also.on_started(submit)

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        """Count a sample, or the runs of a sequence that it stands for."""
        count = len(outputs[TOKENS]) if TOKENS in outputs else 1
        with self._lock:
            self._ended[sample.source] += count
            if sample.status == "completed":
                self._completed[sample.source] += count
                self._delay_s[sample.source] = self._delay_s.get(sample.source, 0.0) + sample.delay_s
        self._also.on_ended(sample, outputs)

    def on_load(self, load: WorkerLoad) -> None:
        """Take note of a worker's speed."""
        with self._lock:
            self._slowness[load.worker] = load.slowness
        self._also.on_load(load)

    def on_applied(self, instance: Instance, plan: PlanSpec | None) -> None:
        """Begin a window; speeds are relative to the profiles of the new plan."""
        with self._lock:
            self._begin()
            self._slowness.clear()
        self._also.on_applied(instance, plan)

    def on_left(self, worker: str) -> None:
        """Pass it on."""
        with self._lock:
            self._slowness.pop(worker, None)
        self._also.on_left(worker)

    def on_joined(self, worker: str) -> None:
        """Pass it on."""
        self._also.on_joined(worker)

    def on_given_up(self, worker: str) -> None:
        """Pass it on."""
        self._also.on_given_up(worker)

    def on_incident(self, incident: Incident) -> None:
        """Pass it on."""
        self._also.on_incident(incident)

    def on_replanned(self, plan: PlanSpec) -> None:
        """Pass it on."""
        self._also.on_replanned(plan)

    def on_closed(self, error: Exception) -> None:
        """Pass it on."""
        self._also.on_closed(error)


def load_of(plan: Plan) -> Load:
    """Return what a plan was made for; sources without a rate are not watched."""
    sources = plan.scenario.spec.sources
    return Load({name: source.rate_per_s for name, source in sources.items() if source.rate_per_s is not None})


def for_load(base: Plan, load: Load) -> Scenario:
    """Return the scenario of a plan for another load; speeds are relative to those in the plan's scenario."""
    data = base.scenario.to_dict()
    for name, rate_per_s in load.rates_per_s.items():
        data["sources"][name]["rate"] = f"{rate_per_s:.6g} /s"
    for name, factor in load.slowness.items():
        data["workers"][name]["speed"] = base.scenario.spec.workers[name].speed / factor
    return Scenario.from_dict(data, folder=base.scenario.folder)


class AutoApply:
    """Looks at a session after each window, in a thread, and applies other plans to it.

    Parameters
    ----------
    running
        Returns the plan that runs.
    apply
        Replaces it.
    """

    def __init__(
        self,
        rules: DriftRules,
        meter: Meter,
        running: Callable[[], Plan],
        apply: Callable[[Plan | Scenario], object],
        on_incident: Callable[[Incident], None],
    ) -> None:
        self._rules = rules
        self._meter = meter
        self._running = running
        self._apply = apply
        self._on_incident = on_incident
        self._begun_s = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._base = running()
        """The plan that the user has applied."""
        self._before = self._base
        """During a trial, the plan to come back to."""
        self._watch = DriftWatch(rules, load_of(self._base))
        self._thread = threading.Thread(target=self._work, name="auto", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; wait for a change that is under way."""
        self._stop.set()
        self._thread.join()

    def reset(self) -> None:
        """Take note that the user has applied a plan."""
        with self._lock:
            self._base = self._before = self._running()
            self._watch.reset(load_of(self._base), self._now_s)

    @property
    def _now_s(self) -> float:
        return time.monotonic() - self._begun_s

    def _work(self) -> None:
        while not self._stop.wait(self._rules.window_s):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the session goes on with its plan
                _LOG.warning("the plan cannot be made again", exc_info=True)
                self._note(f"the plan cannot be made again: {explain(error)}")

    def _look(self) -> None:
        plan = self._running()
        sources = plan.scenario.spec.sources
        priorities = {name: source.priority for name, source in sources.items()}
        runs = {name: len(source.decode.runs) for name, source in sources.items() if source.decode is not None}
        with self._lock:
            base, window = self._base, self._meter.take(priorities, runs)
            decision = self._watch.look(self._now_s, window)
        if decision == "keep":
            return
        if decision == "roll back":
            self._note("the delay is worse with the new plan: back to the one before")
            self._apply(self._before)
            return
        try:
            self._apply(for_load(base, decision.load))
        except PlannerError as error:
            self._note(f"no plan for what is measured ({'; '.join(decision.reasons)}): {explain(error)}")
            with self._lock:
                self._watch.refused(self._now_s)
            return
        with self._lock:
            self._before = plan
            self._watch.changed(self._now_s, decision.load, window)
        self._note(f"new plan, because {'; '.join(decision.reasons)}")

    def _note(self, what: str) -> None:
        self._on_incident(Incident(self._now_s, "", what))
