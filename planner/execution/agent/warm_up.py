"""Warm-up of an agent's blocks: each is loaded and run before samples need it, since the first run takes longer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from planner.errors import PlannerError, RuntimeSessionError, explain
from planner.execution.agent.model_blocks import ModelBlocks, fetch
from planner.execution.wire.frames import Tensors

_LOG = logging.getLogger(__name__)


class WarmUp:
    """Loads blocks, and runs them on tensors that the blocks before produced.

    Parameters
    ----------
    tensors
        Tensors by model and cut, as the coordinator has sent them.
    on_problem
        Called with the reason why a block fails; it may well run on the samples of the run.
    stopping
        Asked before each block and each of its runs; once it returns True, nothing is loaded or run any more.
    """

    def __init__(
        self,
        models: Mapping[str, ModelBlocks],
        tensors: Mapping[tuple[str, int], Tensors],
        on_problem: Callable[[str], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._models = models
        self._tensors = dict(tensors)
        self._on_problem = on_problem
        self._stopping = stopping

    def warm_up(self, model: str, block: int, runs: int = 1, last: int | None = None) -> float:
        """Load a block and, if the tensors before it are known, run it some times; or the session up to ``last``.

        Blocks that cannot be joined to a session are loaded one by one.

        Returns
        -------
        float
            The shortest time in seconds; 0 if the block did not run, or the warm-up stops.

        Raises
        ------
        PlannerError
            If the block cannot be loaded.
        """
        if self._stopping():
            return 0.0
        last = block if last is None else last
        try:
            self._models[model].load(block, last)
        except PlannerError as error:
            if last == block:
                raise
            problem = f"blocks {block} to {last} of {model} run one by one, as they cannot be joined: {explain(error)}"
            _LOG.warning("%s", problem)
            self._on_problem(problem)
            return sum(self.warm_up(model, each, runs) for each in range(block, last + 1))
        tensors = self._tensors.pop((model, block), None)
        if tensors is None:
            return 0.0
        times_s = []
        try:
            for _ in range(runs):
                if self._stopping():
                    return 0.0
                start_s = time.monotonic()
                outputs = self._models[model].run(block, tensors, last)
                times_s.append(time.monotonic() - start_s)
        except RuntimeSessionError as error:
            blocks = f"block {block}" if last == block else f"blocks {block} to {last}"
            problem = f"{blocks} of {model} fails in its warm-up: {explain(error)}"
            _LOG.warning("%s", problem)
            self._on_problem(problem)
            return 0.0
        _LOG.debug("block %d of %s is warm", block, model)
        self._tensors[model, last + 1] = fetch(outputs)
        return min(times_s)
