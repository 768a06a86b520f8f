"""The state of a service as JSON, for a live page or a program: ``GET /state``. Unknown values are null."""

from __future__ import annotations

import time
from typing import Any

from planner.base import FrozenModel
from planner.plan.store import plan_document
from planner.report.html.data import Scene
from planner.scenario.instance import Instance
from planner.serve.gateway import Gateway
from planner.serve.watch import Severity, SourceCount, WorkerCount


class WorkerState(FrozenModel):
    """State of a worker."""

    present: bool
    """Whether it is in the run."""
    utilisation: float | None
    """Share of the time between its last two reports for which it computed, in [0, 1]."""
    queue: int | None
    """Number of tasks that wait there, without the running one."""
    blocks_done: int | None
    """Number of blocks computed since it joined."""
    device: str
    """Its device class."""
    temperature_celsius: float | None
    """Highest temperature that the device reports."""
    power_w: float | None
    """Power that the device draws, in watts."""


class DelayState(FrozenModel):
    """Delays of the last completed samples of a source, at most 1000, in seconds."""

    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class SourceState(FrozenModel):
    """State of a source."""

    predicted_mean_delay_s: float | None
    """Mean delay by the plan, in seconds."""
    rate_per_s: float
    """Completed samples per second in the last 10 s."""
    completed: int
    failed: int
    dropped: int
    """Number of samples that were dropped because they were late, waited too long, or their time was up."""
    waiting: int
    """Number of samples in flight."""
    delay_s: DelayState
    recent: tuple[tuple[float, float], ...]
    """End of each of the last samples, in seconds since 1970, and its delay in seconds; at most 200, oldest first."""


class LinkState(FrozenModel):
    """What a worker has sent to another, as the receiver counts it."""

    bytes: int
    """Size of the samples' tensors since the receiver joined."""
    bandwidth_bytes_per_s: float | None
    """Measured bandwidth."""
    age_s: float | None
    """Age of that measurement, in seconds."""


class IncidentState(FrozenModel):
    """A fault, or the recovery from one."""

    unix_s: float
    severity: Severity
    text: str


class ChangeState(FrozenModel):
    """A change of the plan, in words."""

    unix_s: float
    lines: tuple[str, ...]


class ServiceState(FrozenModel):
    """State of a service. Counts are since its start; times are in seconds, those named ``unix_s`` since 1970."""

    name: str
    started_unix_s: float
    now_unix_s: float
    scene: Scene
    """Workers, networks and sources of the scenario."""
    plan: dict[str, Any]
    """The plan that applies, as in a plan file."""
    workers: dict[str, WorkerState]
    sources: dict[str, SourceState]
    links: dict[str, LinkState]
    """By ``SENDER->RECEIVER``; those that have carried something."""
    incidents: tuple[IncidentState, ...]
    """The last ones, at most 200, oldest first."""
    changes: tuple[ChangeState, ...]
    """The last ones, at most 200, oldest first."""


def service_state(name: str, gateway: Gateway) -> ServiceState:
    """Return the state of a service at this moment."""
    watch, now_s = gateway.watch, time.time()
    plan = watch.plan
    with watch.lock:
        counts = watch.counts
        workers = {name: _worker(watch.instance, name, count) for name, count in counts.workers.items()}
        models = gateway.models
        sources = {
            name: _source(
                count,
                predicted_s=plan.sources[name].delay_s if name in plan.sources else None,
                rate_per_s=count.rate_per_s(now_s, watch.started_unix_s),
                waiting=len(models[name].handle.pending),
            )
            for name, count in counts.sources.items()
            if name in models
        }
        links = {
            f"{sender}->{receiver}": _link(counts.workers.get(sender), receiver, size)
            for receiver, worker in counts.workers.items()
            if worker.load is not None
            for sender, size in worker.load.received_bytes.items()
        }
        incidents = tuple(
            IncidentState(unix_s=incident.unix_s, severity=incident.severity, text=incident.text)
            for incident in counts.incidents
        )
        changes = tuple(ChangeState(unix_s=change.unix_s, lines=change.lines) for change in counts.changes)
    return ServiceState(
        name=name,
        started_unix_s=watch.started_unix_s,
        now_unix_s=now_s,
        scene=Scene.of(watch.instance),
        plan=plan_document(plan),
        workers=workers,
        sources=sources,
        links=links,
        incidents=incidents,
        changes=changes,
    )


def _link(sender: WorkerCount | None, receiver: str, size_bytes: int) -> LinkState:
    load = sender.load if sender is not None else None
    speed = load.links.get(receiver) if load is not None else None
    return LinkState(
        bytes=size_bytes,
        bandwidth_bytes_per_s=None if speed is None else speed.bytes_per_s,
        age_s=None if speed is None else speed.age_s,
    )


def _worker(instance: Instance, name: str, count: WorkerCount) -> WorkerState:
    load = count.load
    return WorkerState(
        present=count.present,
        utilisation=count.utilisation,
        queue=load.queued if load is not None else None,
        blocks_done=load.blocks if load is not None else None,
        device=instance.worker(name).device_class,
        temperature_celsius=load.temperature_celsius if load is not None else None,
        power_w=load.power_w if load is not None else None,
    )


def _source(count: SourceCount, *, predicted_s: float | None, rate_per_s: float, waiting: int) -> SourceState:
    delays = count.delays
    return SourceState(
        predicted_mean_delay_s=predicted_s,
        rate_per_s=rate_per_s,
        completed=count.completed,
        failed=count.failed,
        dropped=count.dropped,
        waiting=waiting,
        delay_s=(
            DelayState(mean=None, p50=None, p95=None, p99=None)
            if delays is None
            else DelayState(mean=delays.mean_s, p50=delays.p50_s, p95=delays.p95_s, p99=delays.p99_s)
        ),
        recent=tuple(count.recent),
    )
