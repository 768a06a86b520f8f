"""Measure blocks that run several samples as one batch, and check that each sample comes out as it does alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import ProfileError, RuntimeSessionError
from planner.profiling.batches import MOST, BatchCosts, BatchError
from planner.profiling.sampling import Clock, ProfiledModel
from planner.runtime.batches import joined, split
from planner.runtime.difference import compare
from planner.runtime.inputs import random_inputs
from planner.runtime.runner import ChainRunner
from planner.runtime.tolerance import base_tolerance, known_tolerance

MIN_ROUNDS: Final = 5
MOST_ROUNDS: Final = 40


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return sizes of batches to measure, in order, with that of one sample.

    Raises
    ------
    ProfileError
        If one is out of range, or there is none but 1.
    """
    found = sorted({1, *sizes})
    if len(found) < 2 or found[0] < 1 or found[-1] > MOST:
        expected = f"sizes from 1 to {MOST}, such as 1,2,4,8"
        raise ProfileError("no sizes of batches", where="batches", value=list(sizes), expected=expected)
    return tuple(found)


def held_out(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return a size half-way between each two of ``sizes`` that have one between them."""
    return tuple((before + after) // 2 for before, after in pairwise(sizes) if after - before > 1)


class BatchSampler:
    """Samples the times of batches.

    Parameters
    ----------
    chain_model, runner
        A chain whose cuts are open for batches, and a runner that has loaded its blocks.
    rng
        Generator for the samples, and the order of sizes.
    clock
        Limits the time.
    now_s
        Clock of the times that are measured, in seconds.
    inputs
        Tensors of cut 0 that each sample takes; drawn by default.
    """

    def __init__(
        self,
        chain_model: ProfiledModel,
        runner: ChainRunner,
        rng: np.random.Generator,
        clock: Clock,
        now_s: Callable[[], float],
        *,
        inputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._chain, self._runner, self._rng = chain_model.chain, runner, rng
        self._clock, self._now_s, self._inputs = clock, now_s, inputs

    def measure(self, sizes: Sequence[int]) -> BatchCosts:
        """Return the times of batches of these sizes, in order from 1 on.

        Raises
        ------
        RuntimeSessionError
            If the model does not run several samples as one, or they come out otherwise than alone.
        """
        others = held_out(sizes)
        samples = [self._sample() for _ in range(max(sizes))]
        self._check(samples)
        batches = {size: joined(samples[:size]) for size in (*sizes, *others)}
        rounds: dict[int, list[list[float]]] = defaultdict(list)
        order = list(batches)
        for done in range(MOST_ROUNDS + 1):
            if done > MIN_ROUNDS and self._clock.used(1.0):
                break
            for index in self._rng.permutation(len(order)):
                block_s = self._run(batches[order[index]])[0]
                if done:  # the first round warms up
                    rounds[order[index]].append(block_s)
        return _costs({size: np.median(times_s, axis=0) for size, times_s in rounds.items()}, sizes, others)

    def _sample(self) -> dict[str, NDArray[Any]]:
        return random_inputs(self._chain.cuts[0].tensors, self._rng) if self._inputs is None else dict(self._inputs)

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[list[float], dict[str, NDArray[Any]]]:
        """Return the time of each block in seconds, and the outputs."""
        tensors = self._runner.send(0, inputs)
        marks_s = [self._now_s()]
        for index in range(len(self._chain)):
            tensors = self._runner.step(index, tensors)
            marks_s.append(self._now_s())
        names = {tensor.name for tensor in self._chain.cuts[-1].tensors}
        return np.diff(marks_s).tolist(), {
            name: array for name, array in self._runner.fetch(tensors).items() if name in names
        }

    def _check(self, samples: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Check that a batch gives each sample the outputs that it has alone."""
        together = split(self._run(joined(samples))[1], len(samples))
        limit = known_tolerance(self._runner.provider, base_tolerance([cut.tensors for cut in self._chain.cuts])).limit
        for outputs, sample in zip(together, samples, strict=True):
            error = compare(outputs, self._run(sample)[1]).max_rel_error
            if not error <= limit:
                raise RuntimeSessionError(
                    "a sample in a batch comes out otherwise than alone",
                    where=self._chain.name,
                    value=f"relative error {error:.1e}",
                    expected=f"at most {limit:.1e}",
                )


def _costs(times_s: Mapping[int, NDArray[np.float64]], sizes: Sequence[int], others: Sequence[int]) -> BatchCosts:
    alone_s = np.maximum(times_s[1], 1e-12)
    ratios = np.maximum.accumulate([np.maximum(times_s[size] / alone_s, 1e-9) for size in sizes], axis=0)
    costs = BatchCosts(sizes=tuple(sizes), relative=tuple(map(tuple, np.maximum(ratios, 1.0).T.tolist())))
    errors = [abs(float(costs.times(size) @ alone_s) / float(times_s[size].sum()) - 1) for size in others]
    if not errors:
        return costs
    error = BatchError(median=float(np.median(errors)), worst=max(errors), sizes=tuple(others))
    return costs.model_copy(update={"error": error})
