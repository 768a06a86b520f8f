"""What changed between two profiles of one chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.errors import ProfileError
from planner.profile.store import FORMER_CHAIN
from planner.profile.types import Profile


@dataclass(frozen=True)
class Comparison:
    """Two profiles of one chain of L blocks side by side.

    Parameters
    ----------
    names
        Of the blocks; length L.
    before_s, after_s
        Time of each block; length L, seconds.
    stage_overhead_s
        Before and after.
    environment
        Whatever is not the same in the two environments: key to the values before and after, None where absent.
    """

    names: tuple[str, ...]
    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    stage_overhead_s: tuple[float, float]
    environment: dict[str, tuple[Any, Any]]

    @property
    def ratio(self) -> float:
        """Time of the whole chain after, divided by before."""
        return sum(self.after_s) / sum(self.before_s)


def compare(before: Profile, after: Profile) -> Comparison:
    """Put two profiles side by side.

    Raises
    ------
    ProfileError
        They are of different chains.
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
    described = [profile.environment | {"provenance": profile.provenance} for profile in (before, after)]
    keys = dict.fromkeys([*described[0], *described[1]])
    return Comparison(
        names=tuple(block.name for block in before.blocks),
        before_s=tuple(block.mean_s for block in before.blocks),
        after_s=tuple(block.mean_s for block in after.blocks),
        stage_overhead_s=(before.stage_overhead_s, after.stage_overhead_s),
        environment={
            key: (described[0].get(key), described[1].get(key))
            for key in keys
            if described[0].get(key) != described[1].get(key)
        },
    )
