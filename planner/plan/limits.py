"""Limits that single samples of a source keep: on the share of late ones, and on percentiles of the delay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from planner.scenario.types import SourceSpec, percentile_level

if TYPE_CHECKING:
    from planner.plan.distribution import DelayDistribution

LEAST_SHARE: Final = 1e-4
"""``miss_at_most: 0 %`` counts as this: waits have no upper bound."""


class TailLimit(NamedTuple):
    """At least a share ``level`` of the samples takes ``bound_s`` at most."""

    level: float
    bound_s: float

    def broken_by(self, distribution: DelayDistribution, tolerance: float = 0.0) -> bool:
        """Return whether more samples than allowed take longer."""
        return distribution.share_beyond(self.bound_s) > 1 - self.level + tolerance


def tail_limits(spec: SourceSpec) -> tuple[TailLimit, ...]:
    """Return the limits of a source's single samples; a deadline alone is none."""
    limits = [TailLimit(percentile_level(key) or 0.0, bound_s) for key, bound_s in spec.percentiles_s.items()]
    if spec.deadline_s is not None and spec.miss_at_most is not None:
        limits.append(TailLimit(1 - max(spec.miss_at_most, LEAST_SHARE), spec.deadline_s))
    return tuple(limits)
