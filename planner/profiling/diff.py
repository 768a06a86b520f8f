"""Differences between two profiles of a chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.errors import ProfileError
from planner.profiling.sequences import Run
from planner.profiling.store import FORMER_CHAIN
from planner.profiling.types import Profile
from planner.tables import Printable, Table, short_name


@dataclass(frozen=True)
class ProfileDiff(Printable):
    """Two profiles of a chain of L blocks, side by side.

    Parameters
    ----------
    names
        Names of the blocks; length L.
    before_s, after_s
        Time of each block; length L, seconds.
    stage_overhead_s
        Stage overhead before and after, seconds.
    chain_s
        Time of the whole chain before and after in each way that both were measured in: one sample after another, as
        one session, in batches, in agents beside others, on prompts and steps of sequences; seconds.
    environment
        Differences between the environments: values before and after by key, None where a key is missing.
    """

    names: tuple[str, ...]
    before_s: tuple[float, ...]
    after_s: tuple[float, ...]
    stage_overhead_s: tuple[float, float]
    chain_s: dict[str, tuple[float, float]]
    environment: dict[str, tuple[Any, Any]]

    @property
    def ratio(self) -> float:
        """Time of the whole chain after the change, divided by the time before."""
        return sum(self.after_s) / sum(self.before_s)

    def contents(self) -> Iterator[Table | str]:
        """Return the times of the blocks, side by side, and the differences between the environments."""
        rows = [
            *zip(map(short_name, self.names), self.before_s, self.after_s, strict=True),
            *((way, *pair) for way, pair in self.chain_s.items()),
        ]
        yield Table(
            "Times of blocks",
            ("block", ">before ms", ">after ms", ">after / before"),
            [(name, f"{1e3 * old_s:.3f}", f"{1e3 * new_s:.3f}", f"{new_s / old_s:.2f}") for name, old_s, new_s in rows],
        )
        for key, (old, new) in self.environment.items():
            yield f"{key}: {old} -> {new}"

    def to_dict(self) -> dict[str, Any]:
        """Return the differences as JSON data."""
        rows = zip(self.names, self.before_s, self.after_s, strict=True)
        return {
            "ratio": self.ratio,
            "stage_overhead_s": self.stage_overhead_s,
            "blocks": [{"name": name, "before_s": old_s, "after_s": new_s} for name, old_s, new_s in rows],
            "chain_s": {way: list(pair) for way, pair in self.chain_s.items()},
            "environment": {key: list(pair) for key, pair in self.environment.items()},
        }


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
        chain_s=_chain_times(before, after),
        environment={
            key: (environments[0].get(key), environments[1].get(key))
            for key in keys
            if environments[0].get(key) != environments[1].get(key)
        },
    )


def _chain_times(before: Profile, after: Profile) -> dict[str, tuple[float, float]]:
    """Return the times of the whole chain in each way that both profiles know, at lengths and sizes of both."""
    pair = (before, after)
    times_s = [np.array([block.mean_s for block in profile.blocks]) for profile in pair]
    found = {"whole chain": [mean_s.sum() for mean_s in times_s]}
    if before.fusion_saving_s and after.fusion_saving_s:
        found["as one session"] = [
            mean_s.sum() - sum(profile.fusion_saving_s) for mean_s, profile in zip(times_s, pair, strict=True)
        ]
    batches = [profile.batches for profile in pair if profile.batches is not None]
    if len(batches) == 2:
        for size in sorted(set(batches[0].sizes) & set(batches[1].sizes) - {1}):
            found[f"batch of {size}"] = [
                costs.times(size) @ mean_s for costs, mean_s in zip(batches, times_s, strict=True)
            ]
    beside = [profile.colocation for profile in pair if profile.colocation is not None]
    if len(beside) == 2:
        for others in (0, min(costs.others for costs in beside)):
            found[f"in an agent beside {others}" if others else "in an agent"] = [
                profile.slowdown(others) @ mean_s for profile, mean_s in zip(pair, times_s, strict=True)
            ]
    sequences = [profile.sequences for profile in pair if profile.sequences is not None]
    if len(sequences) == 2:
        tokens = min(costs.measured_context for costs in sequences)
        for way, run in ((f"prompt of {tokens}", Run(tokens, 0)), (f"step at {tokens}", Run(1, tokens - 1))):
            found[way] = [costs.block_s([run]).sum() for costs in sequences]
    return {way: (float(old_s), float(new_s)) for way, (old_s, new_s) in found.items()}
