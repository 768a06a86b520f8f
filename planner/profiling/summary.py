"""Description of a profile for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from planner.tables import Table

if TYPE_CHECKING:
    from planner.profiling.types import OperatingPoint, Profile

BAR: Final = 24
"""Characters of the longest bar in a table."""


def describe_profile(profile: Profile) -> Iterator[Table | str]:
    """Return the costs along the chain, and how reliable they are."""
    yield _block_table(profile)
    total_s = sum(block.mean_s for block in profile.blocks)
    yield f"whole chain {1e3 * total_s:.2f} ms; each stage adds {1e3 * profile.stage_overhead_s:.3f} ms"
    if profile.fusion_saving_s:
        yield f"one session in place of all would save about {1e3 * sum(profile.fusion_saving_s):.2f} ms"
    if profile.operating_points:
        best, least = profile.operating_points[0], profile.operating_points[-1]
        yield (
            f"{len(profile.operating_points)} operating points: accuracy {best.accuracy:.1%} ({best.name}) to "
            f"{least.accuracy:.1%} ({least.name}), mean time {1e3 * _mean_s(profile, best):.2f} ms to "
            f"{1e3 * _mean_s(profile, least):.2f} ms"
        )
    error, fit = profile.segment_error, profile.environment.get("fit")
    if error is not None:
        yield f"error on {error.segments} held-out segments: median {error.median:.1%}, 95th percentile {error.p95:.1%}"
    if fit:
        yield (
            f"estimated from {fit['figures']} published figures; relative error of each when predicted from the "
            f"others: median {fit['median_error']:.0%}, worst {fit['worst_error']:.0%}"
        )


def _block_table(profile: Profile) -> Table:
    longest_s = max(block.mean_s for block in profile.blocks)
    return Table(
        f"{profile.model.name} on {profile.device_class} ({profile.provenance})",
        (">block", "name", ">ms", ">± ms", "", ">weights MiB", ">peak MiB", ">load ms", ">out KiB"),
        [
            (
                index,
                block.name,
                f"{1e3 * block.mean_s:.3f}",
                f"{1e3 * block.std_s:.3f}",
                "█" * max(round(BAR * block.mean_s / longest_s), 1),
                f"{block.weight_bytes / 2**20:.2f}",
                f"{block.activation_bytes / 2**20:.2f}",
                f"{1e3 * block.load_s:.0f}",
                f"{cut_bytes / 2**10:.1f}",
            )
            for index, (block, cut_bytes) in enumerate(zip(profile.blocks, profile.cut_bytes[1:], strict=True))
        ],
    )


def _mean_s(profile: Profile, point: OperatingPoint) -> float:
    return sum(reach * block.mean_s for reach, block in zip(point.reach, profile.blocks, strict=True))
