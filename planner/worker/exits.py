"""Exit decisions: whether a sample leaves its model at an exit that the block just run computes."""

from __future__ import annotations

from collections.abc import Sequence

from planner.policy.types import Task
from planner.profiling.types import ExitPoint
from planner.scenario.instance import Instance


def exit_taken(instance: Instance, task: Task, block: int, confidence: Sequence[float]) -> ExitPoint | None:
    """Return the first exit behind ``block`` at which the model is sure enough of its answer, or None.

    It is sure enough when its confidence reaches the threshold of the task's operating point.

    Parameters
    ----------
    confidence
        How sure the model is of its answer at each exit that the block computes, in [0, 1], in the order of the exits.
    """
    thresholds = instance.operating_points(task.model)[task.operating_point].thresholds
    # A model whose exits were never calibrated has no thresholds: all its samples stay to the end.
    rules = zip(instance.any_profile(task.model).exits, thresholds, strict=False)
    here = [(exit_, threshold) for exit_, threshold in rules if exit_.cut == block + 1]
    return next((exit_ for (exit_, threshold), sure in zip(here, confidence, strict=False) if sure >= threshold), None)
