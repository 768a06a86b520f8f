"""Times of blocks in runs of sequences, by the profiles: those of a prompt, of a piece of one, or of a step."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from planner.profiling.sequences import Run
from planner.scenario.instance import Instance

_KEPT: Final = 4096
"""Number of runs whose times are kept; of more, those asked for last."""


class RunTimes:
    """Times of runs, of which many are alike."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._typical_s = {
            (model, worker): instance.block_s(model, worker)
            for model in instance.profiles
            for worker in instance.workers
        }
        self._known_s = lru_cache(_KEPT)(self._of_run)

    def block_s(self, model: str, worker: str, run: Run | None) -> NDArray[np.float64]:
        """Return the mean time of each block in a run on ``worker``; shape [L], seconds.

        It is that of the profile's typical run where there is no run, or the profile knows no sequences.
        """
        if run is None or self._instance.profile(model, worker).sequences is None:
            return self._typical_s[model, worker]
        return self._known_s(model, worker, run)

    def as_typical(self, model: str, worker: str, run: Run | None, block: int, took_s: float) -> float:
        """Return how long a block would have taken in the profile's typical run, given its time in another.

        Workers compare times with the typical one, and would take a long prompt for slowness.
        """
        ratio = self._typical_s[model, worker][block] / self.block_s(model, worker, run)[block]
        return took_s * float(ratio)

    def _of_run(self, model: str, worker: str, run: Run) -> NDArray[np.float64]:
        return np.asarray(self._instance.run_s(model, worker, [run])[0])
