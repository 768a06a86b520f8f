"""Costs of the runs of sequences: how a block's time and memory depend on the tokens of a run, and on those before it.

A run of a model with state takes ``new`` tokens after ``past`` others; a prompt is one run or several chunks, and a
step is a run of one token. With the context c = past + new, a block takes

    t = fixed + token · new + context · c + pair · new · c

Linear layers cost by token, reading and extending the state by context, attention by the pairs of both. A run of one
token uses other kernels than one of many, so steps and prompts have curves of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from planner.base import FrozenModel
from planner.tables import Table

SHORTEST_S: Final = 1e-9

TOKEN_BYTES: Final = 8
"""Size of a token that the worker of the last block has chosen, which goes home in place of the scores of all."""

Array = NDArray[np.float64]

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
PositiveCount = Annotated[int, Field(ge=1, le=10**18, strict=True)]


class Run(NamedTuple):
    """A run of a model with state: on ``new`` tokens, after ``past`` others of the same sequence."""

    new: int
    past: int


def basis(runs: Sequence[Run]) -> Array:
    """Return what the costs of runs are linear in: 1, new tokens, context, and their product; shape [n, 4]."""
    new, past = np.array(runs, dtype=np.float64).reshape(-1, 2).T
    return np.stack([np.ones_like(new), new, past + new, new * (past + new)], axis=1)


class RunCurve(FrozenModel):
    """Time of a block's runs by their tokens, in seconds; see :mod:`planner.profiling.sequences`."""

    fixed_s: NonNegative
    token_s: NonNegative = 0.0
    context_s: NonNegative = 0.0
    pair_s: NonNegative = 0.0

    @property
    def coefficients(self) -> Array:
        """The four of them, in the order of :func:`basis`."""
        return np.array([self.fixed_s, self.token_s, self.context_s, self.pair_s])

    def scaled(self, factor: float) -> RunCurve:
        """Return the curve with all times multiplied by a factor."""
        times = dict(zip(RunCurve.model_fields, (factor * self.coefficients).tolist(), strict=True))
        return RunCurve(**times)


class BlockRuns(FrozenModel):
    """Costs of a block's runs."""

    prompt: RunCurve
    """Time of a run of several tokens."""
    step: RunCurve
    """Time of a run of one token."""
    state_fixed_bytes: NonNegative
    """State of a sequence that does not grow."""
    state_token_bytes: NonNegative
    """Growth of the state by a token."""
    peak_token_bytes: NonNegative
    """Growth of the peak of the tensors alive by each further token of a run."""

    def state_bytes(self, context: int) -> int:
        """Return the state of a sequence of ``context`` tokens, in bytes."""
        return round(self.state_fixed_bytes + self.state_token_bytes * context)

    def more_peak_bytes(self, most_new: int, context: int) -> int:
        """Return by how much the peak of a sequence's runs exceeds that of a step on a short one, in bytes.

        A long prompt has larger tensors; a step on a long context has the state twice, before and after it.
        """
        return round(max(self.peak_token_bytes * (most_new - 1), float(self.state_bytes(context))))


class CutRuns(FrozenModel):
    """Size of what crosses a cut, by the tokens of a run."""

    fixed_bytes: NonNegative
    token_bytes: NonNegative
    context_bytes: NonNegative

    @property
    def coefficients(self) -> Array:
        """The four of :func:`basis`, the last of which is 0."""
        return np.array([self.fixed_bytes, self.token_bytes, self.context_bytes, 0.0])


class CurveError(FrozenModel):
    """Relative error of a curve for the whole chain, on lengths that it was not fitted to."""

    median: NonNegative
    worst: NonNegative
    runs: PositiveCount
    """Number of lengths."""


class SequenceCosts(FrozenModel):
    """Costs of the runs of a chain of L blocks."""

    blocks: tuple[BlockRuns, ...]
    cuts: tuple[CutRuns, ...]
    """Length L + 1."""
    measured_context: PositiveCount
    """The longest sequence that was measured."""
    max_context: PositiveCount | None
    """The longest sequence that the model can take; None if it states no limit."""
    vocabulary: PositiveCount
    """Number of tokens among which the model chooses."""
    prompt_error: CurveError | None = None
    step_error: CurveError | None = None

    def block_s(self, runs: Sequence[Run]) -> Array:
        """Return the time of each block in each run; shape [n, L], seconds."""
        at, one = basis(runs), np.array([run.new == 1 for run in runs])[:, None]
        prompt = np.stack([block.prompt.coefficients for block in self.blocks], axis=1)
        step = np.stack([block.step.coefficients for block in self.blocks], axis=1)
        return np.maximum(np.where(one, at @ step, at @ prompt), SHORTEST_S)

    def scaled(self, prompt: Sequence[float], step: Sequence[float]) -> SequenceCosts:
        """Return the costs with the times of each block's prompts and steps multiplied by a factor."""
        blocks = tuple(
            block.model_copy(update={"prompt": block.prompt.scaled(of_prompt), "step": block.step.scaled(of_step)})
            for block, of_prompt, of_step in zip(self.blocks, prompt, step, strict=True)
        )
        return self.model_copy(update={"blocks": blocks})

    def cut_bytes(self, runs: Sequence[Run]) -> Array:
        """Return the size of each cut in each run; shape [n, L + 1], bytes."""
        return np.asarray(basis(runs) @ np.stack([cut.coefficients for cut in self.cuts], axis=1))


def describe(costs: SequenceCosts) -> Iterator[Table | str]:
    """Return the times of prompts and steps along the chain, at two lengths each, and their errors."""
    low, high = max(costs.measured_context // 8, 2), costs.measured_context
    runs = [Run(low, 0), Run(high, 0), Run(1, low - 1), Run(1, high - 1)]
    yield Table(
        "Sequences",
        (
            ">block",
            *(f">prompt of {run.new}, ms" for run in runs[:2]),
            *(f">step at {run.past + 1}, ms" for run in runs[2:]),
            ">state KiB",
            ">a token KiB",
        ),
        [
            (
                index,
                *(f"{1e3 * time_s:.3f}" for time_s in times_s),
                f"{block.state_bytes(high) / 2**10:.1f}",
                f"{block.state_token_bytes / 2**10:.2f}",
            )
            for index, (block, times_s) in enumerate(zip(costs.blocks, costs.block_s(runs).T.tolist(), strict=True))
        ],
    )
    limit = "" if costs.max_context is None else f"; the model takes {costs.max_context} tokens"
    yield f"sequences were measured up to {costs.measured_context} tokens{limit}"
    for what, error in (("prompts", costs.prompt_error), ("steps", costs.step_error)):
        if error is not None:
            yield f"error of {what} on {error.runs} other lengths: median {error.median:.1%}, worst {error.worst:.1%}"


def fit_curve(times_s: Mapping[Run, float]) -> RunCurve:
    """Return the curve with the least relative squared error at some runs; no coefficient is negative.

    There are so few coefficients that all sets of those that are not zero are tried.
    """
    runs = list(times_s)
    weighted = basis(runs) / np.array([times_s[run] for run in runs])[:, None]
    step = all(run.new == 1 for run in runs)
    columns = (0, 2) if step else (0, 1, 2, 3)
    best, least = np.zeros(4), np.inf
    best[0] = float(np.median(list(times_s.values())))
    for count in range(1, len(columns) + 1):
        for chosen in itertools.combinations(columns, count):
            found = np.linalg.lstsq(weighted[:, chosen], np.ones(len(runs)), rcond=None)[0]
            error = float(((weighted[:, chosen] @ found - 1) ** 2).sum())
            if (found >= 0).all() and error < least - 1e-12:
                best, least = np.zeros(4), error
                best[list(chosen)] = found
    return RunCurve(**dict(zip(("fixed_s", "token_s", "context_s", "pair_s"), best.tolist(), strict=True)))


def fit_size(sizes: Mapping[Run, int]) -> CutRuns:
    """Return the sizes by tokens that reproduce those at some runs."""
    runs = list(sizes)
    found = np.linalg.lstsq(basis(runs)[:, :3], np.array([float(sizes[run]) for run in runs]), rcond=None)[0]
    fixed, token, context = np.maximum(np.round(found, 3), 0.0).tolist()
    return CutRuns(fixed_bytes=fixed, token_bytes=token, context_bytes=context)


def curve_error(predicted_s: Array, measured_s: Array) -> CurveError | None:
    """Return the relative error of predicted times; None without any."""
    if not len(measured_s):
        return None
    errors = np.abs(predicted_s / measured_s - 1)
    return CurveError(median=float(np.median(errors)), worst=float(errors.max()), runs=len(errors))
