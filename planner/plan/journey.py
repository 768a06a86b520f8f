"""What one sample of a route does: the visits it pays to workers and networks, and the latency on its way.

Evaluation and verification start from here; the solvers have their own arrays, so each checks the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import PlanError
from planner.plan.types import Route, Stage
from planner.profile.types import OperatingPoint
from planner.scenario.instance import Instance

FRAGMENT_BYTES = 65536
"""Transfers are cut into fragments of this size; urgent ones pass between two of them."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Visit:
    """One task of a sample at one resource: a stage at a worker, or a transfer over one hop.

    Parameters
    ----------
    resource
        Name of the worker or of the network resource.
    probability
        That a sample makes this visit at all.
    piece_s
        Mean times of the blocks (the stage's overhead counts in the first) or fragments, in order; shape [B].
    piece_std_s
        Their spread; shape [B].
    survival
        Probability that each piece is worked on, given the visit; starts at 1, never increases; shape [B].
    """

    resource: str
    probability: float
    piece_s: Array
    piece_std_s: Array
    survival: Array

    @property
    def mean_s(self) -> float:
        """Mean time of the whole visit, given that it is made."""
        return float(self.survival @ self.piece_s)


@dataclass(frozen=True)
class Journey:
    """All visits of a sample, and the latency it meets on average, in seconds."""

    visits: tuple[Visit, ...]
    latency_s: float

    @property
    def unloaded_s(self) -> float:
        """Mean delay of a sample that never waits."""
        return self.latency_s + sum(visit.probability * visit.mean_s for visit in self.visits)


def journey(instance: Instance, source: str, route: Route) -> Journey:
    """Follow one sample of ``source`` along ``route``, from its arrival until its result is back.

    Raises
    ------
    PlanError
        Two workers that follow each other on the route have no path between them.
    """
    point = instance.operating_points(route.model)[route.operating_point]
    reach = (*point.reach, point.reach[-1])
    cut_bytes = instance.cut_bytes(route.model)
    home = instance.home(source)
    visits: list[Visit] = []
    latency_s = 0.0
    sends = [(home, route.stages[0].worker, float(cut_bytes[0]), reach[0])]
    for index, stage in enumerate(route.stages):
        visits.append(_stage_visit(instance, route.model, stage, point))
        sends += _exit_sends(instance, route.model, stage, reach, home)
        receiver = route.stages[index + 1].worker if index + 1 < len(route.stages) else home
        cut = stage.last_block + 1
        sends.append((stage.worker, receiver, float(cut_bytes[cut]), reach[cut]))
    for sender, receiver, size_bytes, probability in sends:
        path = instance.path(sender, receiver)
        if path is None:
            raise PlanError("no path between two workers", where=f"source {source}", value=f"{sender} > {receiver}")
        for hop in path.hops:
            latency_s += probability * hop.latency_s
            visits.append(_transfer_visit(hop.resource, size_bytes, hop.bytes_per_s, probability))
    return Journey(tuple(visit for visit in visits if visit.probability > 0), latency_s)


def _stage_visit(instance: Instance, model: str, stage: Stage, point: OperatingPoint) -> Visit:
    blocks = slice(stage.first_block, stage.last_block + 1)
    piece_s = instance.block_s(model, stage.worker)[blocks].copy()
    piece_s[0] += instance.stage_overhead_s(model, stage.worker)
    reach = np.array(point.reach[blocks])
    survival = reach / reach[0] if reach[0] > 0 else np.ones_like(reach)
    return Visit(
        resource=stage.worker,
        probability=float(reach[0]),
        piece_s=piece_s,
        piece_std_s=instance.block_std_s(model, stage.worker)[blocks],
        survival=survival,
    )


def _exit_sends(
    instance: Instance, model: str, stage: Stage, reach: tuple[float, ...], home: str
) -> Iterator[tuple[str, str, float, float]]:
    """Give the results that inner exits of a stage send home: sender, receiver, bytes, probability."""
    for exit_point in instance.any_profile(model).exits:
        if stage.first_block < exit_point.cut <= stage.last_block + 1:
            leaves = reach[exit_point.cut - 1] - reach[exit_point.cut]
            if leaves > 0:
                yield stage.worker, home, float(exit_point.result_bytes), leaves


def _transfer_visit(resource: str, size_bytes: float, bytes_per_s: float, probability: float) -> Visit:
    whole, rest = divmod(size_bytes, FRAGMENT_BYTES)
    sizes = np.array([FRAGMENT_BYTES] * int(whole) + [rest] * (rest > 0 or whole == 0))
    return Visit(
        resource=resource,
        probability=probability,
        piece_s=sizes / bytes_per_s,
        piece_std_s=np.zeros(len(sizes)),
        survival=np.ones(len(sizes)),
    )
