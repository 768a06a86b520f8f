"""Differences between two profiles of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.errors import ProfileError
from planner.profiling.store import FORMER_CHAIN
from planner.profiling.types import Profile


@dataclass(frozen=True)
class ProfileDiff:
    """Two profiles of a chain of L blocks, side by side.

    Parameters
    ----------
    names
        Names of the blocks; length L.
    before_s, after_s
        Time of each block; length L, seconds.
    stage_overhead_s
        Stage overhead before and after, seconds.
    environment
        Differences between the environments: values before and after by key, None where a key is missing.
    """

    names: tuple[str, ...]
    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    stage_overhead_s: tuple[float, float]
    environment: dict[str, tuple[Any, Any]]

    @property
    def ratio(self) -> float:
        """Time of the whole chain after the change, divided by the time before."""
        return sum(self.after_s) / sum(self.before_s)


def compare(before: Profile, after: Profile) -> ProfileDiff:
    """Compare two profiles of the same chain.

    Raises
    ------
    ProfileError
        If they describe different chains.
    """
    if before.chain_sha256 != after.chain_sha256:
        expected = "the same model, shapes and --max-blocks"
        if before.cut_bytes == after.cut_bytes:
            expected += f"; {FORMER_CHAIN}"
        raise ProfileError(
            f"profiles of different chains: {before.model.name} in {len(before.blocks)} blocks and {after.model.name} "
            f"in {len(after.blocks)}",
            where="chain_sha256",
            value=f"{before.chain_sha256[:12]} and {after.chain_sha256[:12]}",
            expected=expected,
        )
    environments = [profile.environment | {"provenance": profile.provenance} for profile in (before, after)]
    keys = dict.fromkeys([*environments[0], *environments[1]])
    return ProfileDiff(
        names=tuple(block.name for block in before.blocks),
        before_s=tuple(block.mean_s for block in before.blocks),
        after_s=tuple(block.mean_s for block in after.blocks),
        stage_overhead_s=(before.stage_overhead_s, after.stage_overhead_s),
        environment={
            key: (environments[0].get(key), environments[1].get(key))
            for key in keys
            if environments[0].get(key) != environments[1].get(key)
        },
    )
