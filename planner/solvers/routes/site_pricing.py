"""The cheapest routes of many sources at once, where workers form sites.

It is the dynamic program of :mod:`planner.solvers.routes.shortest_path` without its D² moves per cut: a move leads to a
worker of the same site, or through the gateways of both sites. Sources that see the same prices are solved together,
in arrays with one row per source, so that a fleet of 1,000 sources needs few numpy calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.solvers.core.demand import Variant
from planner.solvers.core.problem import Array, Integers, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.sites import Sites
from planner.solvers.routes.shortest_path import MIN_REACH

MAX_ROWS = 256
"""Largest number of sources that are solved together, which limits memory."""

Path = tuple[int, ...]
Group = tuple[int, int, float, float]
"""What sources solved together share: class, variant, price of latency, and of a second because of limits."""


@dataclass(frozen=True)
class Segment:
    """What some parts of paths cost: per sample for latency, and per byte."""

    latency: Array
    per_byte: Array

    @classmethod
    def of(cls, problem: Problem, senders: Integers, receivers: Integers, second: Array, latency: float) -> Segment:
        """Return the prices from ``senders`` to ``receivers``, at those of a ``second`` of each resource [R]."""
        latency_s = problem.latency_s[senders, receivers]
        linked = np.isfinite(latency_s)
        resource, s_per_byte = problem.hop_resource[senders, receivers], problem.hop_s_per_byte[senders, receivers]
        return cls(
            np.where(linked, latency * np.where(linked, latency_s, 0.0), np.inf),
            (s_per_byte * second[resource]).sum(axis=-1),
        )

    def transfer(self, size_bytes: float) -> Array:
        """Return the price of a transfer."""
        return self.latency + size_bytes * self.per_byte

    def __add__(self, other: Segment) -> Segment:
        return Segment(self.latency + other.latency, self.per_byte + other.per_byte)


@dataclass(frozen=True)
class SiteMoves:
    """Prices of moves: within sites [S, n, n], senders first; to gateways and from them [S, n]; between them [S, S]."""

    sites: Sites
    second: Array
    within: Segment
    up: Segment
    down: Segment
    across: Segment

    @classmethod
    def of(cls, problem: Problem, sites: Sites, second: Array, latency: float) -> SiteMoves:
        """Return the prices of moves, given those of a ``second`` of each resource [R] and of ``latency``."""
        members, gateways = sites.members, sites.members[:, :1]
        return cls(
            sites,
            second,
            within=Segment.of(problem, members[:, :, None], members[:, None, :], second, latency),
            up=Segment.of(problem, members, gateways, second, latency),
            down=Segment.of(problem, gateways, members, second, latency),
            across=Segment.of(problem, gateways, gateways.T, second, latency),
        )

    def between(self, homes: Integers, *, outward: bool) -> Segment:
        """Return the prices from ``homes`` [B] to all workers if ``outward``, otherwise to them; [B, S, n]."""
        site, slot = self.sites.of_worker[homes], self.sites.slot_of_worker[homes]
        near, far = (self.up, self.down) if outward else (self.down, self.up)
        parts = []
        for name in ("latency", "per_byte"):
            across: Array = getattr(self.across, name)
            within: Array = getattr(self.within, name)
            through = (across[site] if outward else across[:, site].T)[:, :, None] + getattr(far, name)
            through += getattr(near, name)[site, slot][:, None, None]
            through[np.arange(len(homes)), site] = within[site, slot] if outward else within[site, :, slot]
            parts.append(through)
        return Segment(*parts)


def cheapest_paths(
    problem: Problem, sites: Sites, prices: Prices, sources: Iterable[int]
) -> dict[tuple[int, int], tuple[float, Path]]:
    """Return the price of the cheapest path of each source and variant, per sample per second, and its workers.

    Parameters
    ----------
    sources
        Indices of the sources.
    """
    groups: dict[Group, list[int]] = defaultdict(list)
    for source in sources:
        demand, level = problem.demands[source], int(problem.classes.of_source[source])
        limits = float(prices.second[source]) / demand.volume
        for variant in demand.variants:
            groups[level, variant, float(prices.latency[source]), limits].append(source)
    moves: dict[tuple[int, float, float], SiteMoves] = {}
    found: dict[tuple[int, int], tuple[float, Path]] = {}
    for (level, variant, latency, limits), members in groups.items():
        key = level, latency, limits
        if key not in moves:
            moves[key] = SiteMoves.of(problem, sites, prices.of_class[level] + limits, latency + limits)
        for first in range(0, len(members), MAX_ROWS):
            rows = members[first : first + MAX_ROWS]
            program = _Program(problem, moves[key], variant, rows, prices)
            for source, price, path in zip(rows, *program.solve(), strict=True):
                found[source, variant] = price, path
    return found


class _Program:
    """The dynamic program of B sources of one variant at the same prices."""

    def __init__(self, problem: Problem, moves: SiteMoves, variant: int, sources: list[int], prices: Prices) -> None:
        self.moves, self.sites = moves, moves.sites
        self.model: Variant = problem.variants[variant]
        begin = self.model.begin_s * moves.second[: len(problem.workers)]
        self.begin = begin[:, self.sites.members]
        self.node = self._nodes(problem, variant, sources)
        if problem.room_parts:
            of_blocks = (prices.of_blocks(problem, source, variant) for source in sources)
            self.node += np.stack([price for price in of_blocks if price is not None], axis=1)[:, :, self.sites.members]

    def _nodes(self, problem: Problem, variant: int, sources: list[int]) -> Array:
        """Return the prices of the blocks, with input, result and results of exits; shape [L, B, S, n]."""
        model, members = self.model, self.sites.members
        work = model.reach[:-1, None, None] * model.block_s[:, members] * self.moves.second[members]
        node = np.repeat(work[:, None], len(sources), axis=1)
        homes = np.array([problem.demands[source].home for source in sources])
        from_home, to_home = (self.moves.between(homes, outward=outward) for outward in (True, False))
        from_home, to_home = _finite(from_home), _finite(to_home)
        node[0] += model.reach[0] * (self.begin[0] + from_home.transfer(model.cut_bytes[0]))
        node[-1] += model.reach[-1] * to_home.transfer(model.cut_bytes[-1])
        for block in np.flatnonzero(model.exit_share > 0).tolist():
            node[block] += model.exit_share[block] * to_home.latency + model.exit_bytes[block] * to_home.per_byte
        runs = np.stack([problem.runs(source, variant) for source in sources], axis=1)
        node[~(runs[:, :, members] & self.sites.holds)] = np.inf
        return node

    def _cut(self, block: int) -> tuple[Array, Array, Array, Array]:
        """Return the prices of moves before a block: within sites, to gateways, between them, and from them."""
        moves, model = self.moves, self.model
        scale, size_bytes = max(model.reach[block], MIN_REACH), model.cut_bytes[block]
        within = scale * (moves.within.transfer(size_bytes) + self.begin[block, :, None, :])
        slots = np.arange(within.shape[1])
        within[:, slots, slots] = 0.0
        across = scale * moves.across.transfer(size_bytes)
        np.fill_diagonal(across, np.inf)
        down = scale * (moves.down.transfer(size_bytes) + self.begin[block])
        return within, scale * moves.up.transfer(size_bytes), across, down

    def solve(self) -> tuple[list[float], list[Path]]:
        """Return the price of each source's cheapest path, and its workers."""
        price = [self.node[0]]
        left = [np.zeros(0)]
        cuts = [self._cut(block) for block in range(1, len(self.model))]
        for block, (within, up, across, down) in enumerate(cuts, start=1):
            before = price[-1]
            least = before.copy()
            for slot in range(before.shape[2]):
                np.minimum(least, before[:, :, slot, None] + within[:, slot], out=least)
            left.append((before + up).min(axis=2))
            arrived = (left[-1][:, :, None] + across).min(axis=1)
            np.minimum(least, arrived[:, :, None] + down, out=least)
            price.append(least + self.node[block])
        return price[-1].min(axis=(1, 2)).tolist(), self._paths(price, left, cuts)

    def _paths(
        self, price: list[Array], left: list[Array], cuts: list[tuple[Array, Array, Array, Array]]
    ) -> list[Path]:
        """Return the workers of the cheapest paths, found from their ends back."""
        rows = np.arange(len(price[0]))
        last = price[-1].reshape(len(rows), -1).argmin(axis=1)
        site, slot = np.divmod(last, price[0].shape[2])
        path = [self.sites.members[site, slot]]
        for block in range(len(self.model) - 1, 0, -1):
            within, up, across, down = cuts[block - 1]
            before = price[block - 1]
            near = before[rows, site] + within[site, :, slot]
            near_slot = near.argmin(axis=1)
            far = left[block] + across[:, site].T
            far_site = far.argmin(axis=1)
            far_slot = (before[rows, far_site] + up[far_site]).argmin(axis=1)
            leaves = far[rows, far_site] + down[site, slot] < near[rows, near_slot]
            stays = before[rows, site, slot] <= np.minimum(
                near[rows, near_slot], far[rows, far_site] + down[site, slot]
            )
            slot = np.where(stays, slot, np.where(leaves, far_slot, near_slot))
            site = np.where(leaves & ~stays, far_site, site)
            path.append(self.sites.members[site, slot])
        return [tuple(workers) for workers in np.stack(path[::-1], axis=1).tolist()]


def _finite(segment: Segment) -> Segment:
    """Return the segment without infinite prices: where a home cannot be reached, no block runs."""
    return Segment(np.where(np.isfinite(segment.latency), segment.latency, 0.0), segment.per_byte)
