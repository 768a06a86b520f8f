"""How long blocks take on one worker by the profiles, whichever tokens a run has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from planner.execution.agent.executor import BlockTime
from planner.execution.agent.model_blocks import Held
from planner.execution.wire.messages import Deploy, DeployedModel
from planner.model.chain import SEQUENCE
from planner.profiling.sequences import Run
from planner.scenario.run_times import RunTimes
from planner.worker.events import RunBlock

MAX_SEQUENCES: Final = 1024
"""Number of sequences of which a worker knows the tokens; of more, those that were continued last."""


class SequenceRuns:
    """The tokens of the runs that a worker sees, counted by the sizes of their tensors.

    All runs of a sequence pass the same blocks, so a worker that sees one of them has seen those before.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[int, tuple[int, Run]] = OrderedDict()

    def of(self, model: DeployedModel, cut: int, tensors: Held) -> Run | None:
        """Return the tokens of a run, given its tensors at a cut; None for what is no run, or is not the next one."""
        if SEQUENCE.name not in tensors:
            return None
        lengths = [
            _shape(tensors[spec.name])[axis] for spec in model.cuts[cut] if spec.name in tensors for axis in spec.varies
        ]
        number, runs = np.asarray(_array(tensors[SEQUENCE.name])).tolist()
        if not lengths or number < 0:
            return None
        new = min(lengths)  # others have the length of the whole context
        known, last = self._last.get(number, (-1, Run(0, 0)))
        if runs == known:
            return last
        past = 0 if runs == 0 else last.past + last.new if runs == known + 1 else max(lengths) - new
        if runs and not past:  # its state has come from another worker, and nothing here is as long as the context
            return None
        run = Run(new, past)
        self._last[number] = runs, run
        self._last.move_to_end(number)
        while len(self._last) > MAX_SEQUENCES:
            self._last.popitem(last=False)
        return run


def _shape(tensor: object) -> tuple[int, ...]:
    return tensor.shape if isinstance(tensor, np.ndarray) else tuple(tensor.shape())  # type: ignore[attr-defined]


def _array(tensor: object) -> object:
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()  # type: ignore[attr-defined]


class BlockTimes:
    """The expected times of the blocks of one worker, which runs one at a time."""

    def __init__(self, worker: str, deploy: Deploy) -> None:
        instance = deploy.instance
        self._worker = worker
        self._instance = instance
        self._models: Mapping[str, DeployedModel] = deploy.models
        self._paced = deploy.paced
        self._times = RunTimes(instance)
        self._overhead_s = {model: instance.stage_overhead_s(model, worker) for model in instance.profiles}
        self._saving_s = {model: instance.saving_s(model, worker) for model in instance.profiles}
        self._sequences = SequenceRuns()
        self._tokens: Run | None = None
        """Those of the block that runs."""

    def begin(self, run: RunBlock, tensors: Held) -> tuple[float, ...] | None:
        """Take note of the blocks that begin; return how long they take in a paced run, in seconds, None otherwise."""
        self._tokens = self._sequences.of(self._models[run.model], run.block, tensors)
        if not self._paced:
            return None
        times_s, saved_s = self._times.block_s(run.model, self._worker, self._tokens), self._saving_s[run.model]
        first_s, *others_s = (
            float(times_s[first : last + 1].sum() - saved_s[first + 1 : last + 1].sum())
            + self._instance.batch_s(run.model, self._worker, first, last, len(run.keys))
            for first, last in run.spans
        )
        return (first_s + (self._overhead_s[run.model] if run.begins_stage else 0.0), *others_s)

    def as_typical(self, model: str, times: Iterable[BlockTime]) -> list[float]:
        """Return how long the blocks that have ended would have taken in a typical run."""
        typical = self._times.as_typical
        return [typical(model, self._worker, self._tokens, time.block, time.end_s - time.start_s) for time in times]
