"""What a report's page shows, as one JSON object; the page's scripts only draw it."""

from __future__ import annotations

from typing import Any, Literal

from planner.base import FrozenModel
from planner.report.html.tracks import PackedTrace
from planner.scenario.instance import Instance


class SceneWorker(FrozenModel):
    """A worker on the map."""

    name: str
    device_class: str
    memory_bytes: float
    speed: float


class SceneNetwork(FrozenModel):
    """A network on the map; a shared medium has members, others have links."""

    name: str
    kind: Literal["shared", "point-to-point"]
    members: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    bandwidth_bytes_per_s: float
    latency_s: float


class SceneSource(FrozenModel):
    """A source on the map."""

    name: str
    home: str
    priority: float
    rate_per_s: float | None
    deadline_s: float | None
    samples: int


class Scene(FrozenModel):
    """Workers, networks and sources, in the scenario's order."""

    workers: tuple[SceneWorker, ...]
    networks: tuple[SceneNetwork, ...]
    sources: tuple[SceneSource, ...]

    @classmethod
    def of(cls, instance: Instance) -> Scene:
        """Return the scene of an instance."""
        scenario = instance.scenario
        return cls(
            workers=tuple(
                SceneWorker(name=name, device_class=spec.device_class, memory_bytes=spec.memory_bytes, speed=spec.speed)
                for name, spec in scenario.workers.items()
            ),
            networks=tuple(
                SceneNetwork(
                    name=name,
                    kind=spec.kind,
                    members=spec.members,
                    links=spec.links,
                    bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
                    latency_s=spec.latency_s,
                )
                for name, spec in scenario.networks.items()
            ),
            sources=tuple(
                SceneSource(
                    name=name,
                    home=spec.worker,
                    priority=spec.priority,
                    rate_per_s=spec.rate_per_s,
                    deadline_s=spec.deadline_s,
                    samples=instance.samples(name),
                )
                for name, spec in scenario.sources.items()
            ),
        )


class ProfileRow(FrozenModel):
    """Where the costs of a model on a device class come from."""

    model: str
    device_class: str
    provenance: Literal["measured", "estimated"]
    blocks: int
    total_s: float
    """Mean time of the whole model, in seconds."""
    error_median: float | None
    """Median relative error of the times of segments that were not used to make it; None if unknown."""
    error_p95: float | None
    environment: dict[str, str]
    chain_sha256: str


def profile_rows(instance: Instance) -> tuple[ProfileRow, ...]:
    """Return a row for each profile of an instance."""
    return tuple(
        ProfileRow(
            model=model,
            device_class=device_class,
            provenance=profile.provenance,
            blocks=len(profile.blocks),
            total_s=profile.stage_overhead_s + sum(block.mean_s for block in profile.blocks),
            error_median=profile.segment_error.median if profile.segment_error else None,
            error_p95=profile.segment_error.p95 if profile.segment_error else None,
            environment={
                key: value if isinstance(value, str) else repr(value) for key, value in _flat(profile.environment)
            },
            chain_sha256=profile.chain_sha256,
        )
        for model, by_class in instance.profiles.items()
        for device_class, profile in by_class.items()
    )


def _flat(environment: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the plain values of an environment; what is nested describes the measurement, not the device."""
    return [(key, value) for key, value in environment.items() if isinstance(value, str | int | float)]


Spent = tuple[float, float]
"""Seconds of waiting for a leg, and of work on it."""


class LegRow(FrozenModel):
    """Mean times of a source's samples on a leg."""

    place: str
    transfer: bool
    predicted: Spent | None
    measured: Spent | None


class CheckRow(FrozenModel):
    """A condition of a validation."""

    name: str
    passed: bool
    found: str
    expected: str


class VerdictData(FrozenModel):
    """The verdict on a validation, with its reasons."""

    passed: bool
    checks: tuple[CheckRow, ...]
    explanations: dict[str, str]
    host_limits: tuple[str, ...]
    faults: tuple[str, ...]
    incidents: tuple[tuple[float, str], ...]
    """Time in seconds and text."""


class FileHash(FrozenModel):
    """A file that the run was made from, or that it wrote."""

    name: str
    sha256: str


class RunData(FrozenModel):
    """A plan or a run.

    Parameters
    ----------
    labels
        Names of what the traces and legs show as predicted and as measured, for example "plan" and "simulated".
    plan
        Contents of the plan's file.
    """

    name: str
    kind: Literal["plan", "simulation", "validation", "trace"]
    notes: tuple[str, ...] = ()
    command: str | None = None
    version: str | None = None
    files: tuple[FileHash, ...] = ()
    labels: tuple[str, str] = ("predicted", "measured")
    scene: Scene | None = None
    plan: dict[str, Any] | None = None
    profiles: tuple[ProfileRow, ...] = ()
    traces: tuple[PackedTrace, ...] = ()
    legs: dict[str, tuple[LegRow, ...]] = {}
    verdict: VerdictData | None = None


class ReportData(FrozenModel):
    """Contents of a report."""

    title: str
    version: str
    runs: tuple[RunData, ...]
