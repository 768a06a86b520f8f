"""``mdi`` and ``ar-mdi``: model-distributed inference round a ring, cut by parameters.

AR-MDI is the adaptive and resilient layer allocation that Li, Seferoglu and Koyuncu (MS-MDI, section 3) build on.
Worker n of the ring gets, of the model's W parameters, the share of their equation (1),

    W (1/γ_n) / Σ_m (1/γ_m)

where γ_n is its measured computation time per parameter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

from planner.plan.types import Route, Stage
from planner.policy.base import BasePolicy
from planner.policy.costs import CostTable
from planner.policy.types import Status, View, Waiting

_REMEMBERED: Final = 64
"""Number of routes that are kept: γ settles, and then the same ones come again and again."""

SMOOTHING: Final = 0.1
"""Weight of the newest measurement in the moving average of γ; our choice, the paper names none."""


def cuts_by_parameters(costs: CostTable, model: str, weights: Sequence[float]) -> list[int]:
    """Cut a model where the cumulated parameters come closest to the cumulated shares.

    Parameters
    ----------
    weights
        Share of each segment, up to a common factor.

    Returns
    -------
    list
        The cut before each segment, and the last one, from 0 to L; never decreasing, so a segment may be empty.
    """
    length = costs.length(model)
    sums = [costs.parameters(model, 0, cut - 1) if cut else 0 for cut in range(length + 1)]
    cuts = [0]
    for share in list(accumulate(weights))[:-1]:
        target = share / sum(weights, 0.0) * sums[-1]
        after = bisect_left(sums, target)
        closest = min(
            (cut for cut in (after - 1, after) if 0 <= cut <= length), key=lambda cut: abs(sums[cut] - target)
        )
        cuts.append(max(closest, cuts[-1]))
    return [*cuts, length]


def ring_route(costs: CostTable, model: str, ring: Sequence[str], weights: Sequence[float]) -> Route:
    """Return the route round the ring, one segment per worker; workers whose segment is empty are left out."""
    cuts = cuts_by_parameters(costs, model, weights)
    return Route(
        model=model,
        stages=tuple(
            Stage(worker=worker, first_block=first, last_block=after - 1)
            for worker, (first, after) in zip(ring, pairwise(cuts), strict=True)
            if after > first
        ),
    )


class Mdi(BasePolicy):
    """Fixed segments of equal parameters round the ring, starting at the source."""

    def route(self, view: View, source: str) -> Route | None:
        """Return equal segments for the workers that are present."""
        spec = view.instance.scenario.sources[source]
        ring = view.present(view.costs.ring(spec.worker))
        return ring_route(view.costs, spec.models[0], ring, [1.0] * len(ring))


class ArMdi(BasePolicy):
    """Segments by equation (1) of the MS-MDI paper, from γ that each worker measures and tells the sources.

    Until a worker has measured, its γ is its profile's time per parameter over the whole model.
    """

    gossips = True

    def __init__(self) -> None:
        self._measured: dict[str, float] = {}
        self._rounded: dict[str, float] = {}
        self._routes: dict[tuple[str, tuple[str, ...], tuple[float, ...]], Route] = {}

    def route(self, view: View, source: str) -> Route | None:
        """Return segments for the workers that are present, by equation (1)."""
        spec = view.instance.scenario.sources[source]
        ring = tuple(view.present(view.costs.ring(spec.worker)))
        weights = tuple(1 / self.per_parameter_s(view, source, worker) for worker in ring)
        key = (source, ring, weights)
        if key not in self._routes:
            self._routes = {key: ring_route(view.costs, spec.models[0], ring, weights)} | self._routes
            while len(self._routes) > _REMEMBERED:
                self._routes.popitem()
        return self._routes[key]

    def per_parameter_s(self, view: View, source: str, worker: str) -> float:
        """Return γ of a worker for a source, in seconds per parameter: measured, or expected from the profile."""
        measured_s = self._rounded.get(source) if worker == view.worker else _told_s(view, worker, source)
        if measured_s is not None:
            return measured_s
        model = view.instance.scenario.sources[source].models[0]
        last = view.costs.length(model) - 1
        return view.costs.compute_s(model, worker, 0, last) / view.costs.parameters(model, 0, last)

    def ran(self, view: View, done: Waiting) -> None:
        """Update γ; a segment without parameters says nothing about it."""
        parameters = view.costs.parameters(done.task.model, done.task.next_block, done.last_block)
        if parameters:
            source = done.task.key.source
            newest = done.service_s / parameters
            before = self._measured.get(source, newest)
            self._measured[source] = average = before + SMOOTHING * (newest - before)
            self._rounded[source] = float(f"{average:.3g}")

    def status(self, view: View) -> Status:  # noqa: ARG002
        """Return γ of each source, to three digits: finer changes are noise, and would be told after every task."""
        return Status(per_parameter_s=tuple(sorted(self._rounded.items())))

    def listeners(self, view: View) -> Iterable[str]:
        """Return the homes of the sources, which cut the models."""
        return dict.fromkeys(spec.worker for spec in view.instance.scenario.sources.values())


def _told_s(view: View, worker: str, source: str) -> float | None:
    status = view.statuses.get(worker)
    if status is None:
        return None
    return next((gamma_s for name, gamma_s in status.per_parameter_s if name == source), None)
