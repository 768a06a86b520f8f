"""Beam search for a route over distinct workers whose stages and moves all stay within a largest utilisation.

A label is a set of used workers, the last of them, and the cuts that are reachable with it. All labels of a beam get
one more worker at once: from each reachable cut l that the last worker can send, the next one reaches the cuts
l + 1 … e(l) that its time permits. A cut is dropped if the remaining work exceeds what the unused workers can do. The
labels that leave the most time for the remaining work are kept. One search takes O(B D² L) for a beam of B labels at
any number of workers, and proves nothing: :mod:`planner.solvers.methods.bottleneck_dp` does, for up to 64 workers.

References
----------
P. S. Ow and T. E. Morton, "Filtered beam search in scheduling", International Journal of Production Research 26 (1988).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.solvers.core.problem import Array, Integers
from planner.solvers.routes.ordered_partition import PartitionCosts

Flags = NDArray[np.bool_]


class _Labels(NamedTuple):
    """The kept labels: used workers [n, D], the last of them [n], reachable cuts [n, L + 1], and label before [n]."""

    used: Flags
    last: Integers
    reach: Flags
    before: Integers


@dataclass(frozen=True)
class PartitionBeam:
    """Routes of L blocks over D workers, from and to ``home``.

    Parameters
    ----------
    costs
        Relative utilisations by stages and moves.
    price
        Price of the time of each worker; shape [D].
    rest
        Least price of all blocks from each on; shape [L + 1].
    """

    costs: PartitionCosts
    home: int
    price: Array
    rest: Array

    def probe(self, most: float, beam: int, stopped: Callable[[], bool]) -> tuple[int, ...]:
        """Return the worker of each block of a route with utilisations up to ``most``; empty if none was found."""
        length, count = len(self.costs.stage), len(self.price)
        # ends[d, l]: the last cut that worker d reaches from cut l; l itself if it runs no block there.
        ends = (np.arange(length)[:, None] + (self.costs.stage <= most).sum(axis=1)).T
        sends = np.ascontiguousarray((self.costs.move <= most).transpose(1, 2, 0))  # sender, receiver, cut
        reach = np.zeros((1, length + 1), dtype=bool)
        reach[0, 0] = True
        labels = _Labels(np.zeros((1, count), dtype=bool), np.array([self.home]), reach, np.zeros(1, dtype=np.intp))
        layers = [labels]
        for _ in range(count):
            if stopped():
                return ()
            labels = self._extended(labels, most, ends, sends, beam)
            if not len(labels.last):
                return ()
            layers.append(labels)
            done = np.flatnonzero(labels.reach[:, length] & sends[labels.last, self.home, length])
            if len(done):
                return self._trace(layers, int(done[0]), ends, sends)
        return ()

    def _extended(self, labels: _Labels, most: float, ends: Integers, sends: Flags, beam: int) -> _Labels:
        """Return the best labels with one more worker."""
        length, everyone = len(self.rest) - 1, np.arange(len(self.price))
        begun = np.flatnonzero(labels.reach[:, :length].any(axis=0))
        if not len(begun):
            return _Labels(labels.used[:0], labels.last[:0], labels.reach[:0], labels.before[:0])
        low = int(begun[0])
        cuts = np.arange(low, int(ends[:, begun[-1]].max()))
        begins = labels.reach[:, None, low : low + len(cuts)] & sends[labels.last][:, :, low : low + len(cuts)]
        # The latest begin before a cut reaches furthest, because ends grow with begins.
        latest = np.maximum.accumulate(np.where(begins, cuts.astype(np.int32), -1), axis=2)
        reached = np.where(latest >= 0, ends[everyone[None, :, None], latest], 0) > cuts
        reached[labels.used] = False
        unused = (~labels.used @ self.price)[:, None] - self.price
        reached &= self.rest[None, None, cuts + 1] <= most * (1 + 1e-9) * unused[:, :, None]
        before, last = np.nonzero(reached.any(axis=2))
        furthest = cuts[-1] + 1 - reached[before, last, ::-1].argmax(axis=1) if len(before) else before
        spare = most * unused[before, last] - self.rest[furthest]
        used = labels.used[before]
        used[np.arange(len(last)), last] = True
        kept = _distinct(used, last, np.argsort(-spare, kind="stable"))[:beam]
        reach = np.zeros((len(kept), length + 1), dtype=bool)
        reach[:, cuts + 1] = reached[before[kept], last[kept]]
        return _Labels(used[kept], last[kept], reach, before[kept])

    def _trace(self, layers: list[_Labels], row: int, ends: Integers, sends: Flags) -> tuple[int, ...]:
        """Return the workers of the route of a label in the last layer, block by block."""
        cut = len(self.rest) - 1
        workers: list[int] = []
        for before, labels in zip(reversed(layers[:-1]), reversed(layers[1:]), strict=True):
            worker, row = int(labels.last[row]), int(labels.before[row])
            begins = before.reach[row, :cut] & sends[int(before.last[row]), worker, :cut] & (ends[worker, :cut] >= cut)
            begin = int(np.flatnonzero(begins)[0])
            workers, cut = [worker] * (cut - begin) + workers, begin
        return tuple(workers)


def _distinct(used: Flags, last: Integers, order: Integers) -> Integers:
    """Return the ``order`` of labels with only the first of those with the same used workers and the same last one."""
    words = np.column_stack([np.packbits(used, axis=1), last.astype(">u4").view(np.uint8).reshape(-1, 4)])
    keys = np.ascontiguousarray(words[order]).view(f"V{words.shape[1]}").ravel()
    return order[np.sort(np.unique(keys, return_index=True)[1])]
