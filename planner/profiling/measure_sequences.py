"""Measure the runs of sequences on this device: prompts of many lengths, chunks of them, and steps after them.

Lengths grow by powers of two, for the curves, and half-way between them, to state their error. Each round runs them all
in a random order; the time of a run is the median over the rounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import ModelError, RuntimeSessionError
from planner.model.chain import Chain, StatePair, TensorSpec
from planner.model.tokens import Inputs, Role, inputs_of, logits_of, longest_context, roles
from planner.profiling.sampling import Clock, ProfiledModel
from planner.profiling.sequences import BlockRuns, Run, SequenceCosts, curve_error, fit_curve, fit_size
from planner.runtime.memory import measure_memory
from planner.runtime.runner import ChainRunner

LONGEST: Final = 1024
"""The longest prompt that is measured, where neither the model nor the time sets a limit."""
STEPS: Final = 4
"""Steps after each prompt; the first one is not counted, since the prompt has displaced the weights from the caches."""
SEARCH_SHARE: Final = 0.25
"""Share of the time in which longer and longer prompts are tried."""
MOST_ROUNDS: Final = 20


def has_sequences(chain: Chain) -> bool:
    """Return whether a chain is a decoder, whose runs may take any number of tokens."""
    try:
        roles(chain.cuts[0].tensors, chain.name)
        logits_of(chain.cuts[-1].tensors, chain.name)
    except ModelError:
        return False
    return True


@dataclass
class _Runs:
    """Runs of one sequence on a runner, timed block by block."""

    chain: Chain
    runner: ChainRunner
    now_s: Callable[[], float]
    known: Sequence[int]
    roles: dict[TensorSpec, Role] = field(init=False)
    runs: int = 0
    seen: int = 0

    def __post_init__(self) -> None:
        self.roles = roles(self.chain.cuts[0].tensors, self.chain.name)

    def inputs(self, new: int) -> Inputs:
        """Return the inputs of the next run, of ``new`` tokens."""
        return inputs_of(self.roles, self.known[self.seen : self.seen + new], self.seen, 0, self.runs)

    def run(self, new: int) -> tuple[list[float], list[dict[str, NDArray[Any]]]]:
        """Run ``new`` tokens; return the seconds of each block, and the tensors of each cut."""
        tensors = self.runner.send(0, self.inputs(new))
        cuts, marks_s = [tensors], [self.now_s()]
        for index in range(len(self.chain)):
            tensors = self.runner.step(index, tensors)
            marks_s.append(self.now_s())
            cuts.append({tensor.name: tensors[tensor.name] for tensor in self.chain.cuts[index + 1].tensors})
        self.seen, self.runs = self.seen + new, self.runs + 1
        return np.diff(marks_s).tolist(), [self.runner.fetch(cut) for cut in cuts]


class SequenceSampler:
    """Samples the times of runs of sequences.

    Parameters
    ----------
    chain_model, runner
        A decoder, and a runner that has loaded its blocks.
    rng
        Generator for tokens and the order of lengths.
    clock
        Limits the time.
    now_s
        Clock of the times that are measured, in seconds.
    """

    def __init__(
        self,
        chain_model: ProfiledModel,
        runner: ChainRunner,
        rng: np.random.Generator,
        clock: Clock,
        now_s: Callable[[], float],
    ) -> None:
        self._model, self._runner, self._rng, self._clock, self._now_s = chain_model, runner, rng, clock, now_s
        chain = chain_model.chain
        self._chain = chain
        self._max_context = longest_context(roles(chain.cuts[0].tensors, chain.name))
        self._vocabulary = logits_of(chain.cuts[-1].tensors, chain.name).shape[-1]
        self._times_s: dict[Run, list[list[float]]] = defaultdict(list)
        self._sizes: dict[Run, list[int]] = {}

    def measure(self, step_peak_bytes: Sequence[int]) -> SequenceCosts | None:
        """Return the costs of runs; None if the model is too short for sequences of several lengths.

        Parameters
        ----------
        step_peak_bytes
            Measured peak of each block in a step; empty if it is not measured.
        """
        lengths = self._lengths()
        if len(lengths) < 3:
            return None
        for done in range(MOST_ROUNDS):
            if done and self._clock.used(1.0):
                break
            for index in self._rng.permutation(len(lengths)):
                self._sequence(lengths[index], keep=True)
            self._clock.report()
        return self._costs(lengths, step_peak_bytes)

    def _lengths(self) -> list[int]:
        """Return the lengths of prompts to measure, after each was run once as a warm-up."""
        found: list[int] = []
        most = min(self._max_context or LONGEST, LONGEST)
        for length in _growing(most - STEPS):
            if len(found) >= 4 and self._clock.used(SEARCH_SHARE):
                break
            try:
                self._sequence(length, keep=False)
            except RuntimeSessionError:  # longer than the model's context, which nothing states
                break
            found.append(length)
        return found

    def _sequence(self, length: int, *, keep: bool) -> None:
        """Run a prompt, some steps, and a chunk of half its length."""
        limit = self._max_context or 2 * (length + STEPS)
        news = [length, *[1] * STEPS]
        if length >= 4 and length + STEPS + length // 2 <= limit:
            news.append(length // 2)
        tokens = self._rng.integers(self._vocabulary, size=sum(news)).tolist()
        sequence = _Runs(self._chain, self._runner, self._now_s, tokens)
        for new in news:
            run = Run(new, sequence.seen)
            block_s, cuts = sequence.run(new)
            if keep and (new > 1 or sequence.runs > 2):
                self._times_s[run].append(block_s)
                self._sizes[run] = [sum(tensor.nbytes for tensor in cut.values()) for cut in cuts]

    def _costs(self, lengths: Sequence[int], step_peak_bytes: Sequence[int]) -> SequenceCosts:
        times_s = {run: np.median(rounds, axis=0) for run, rounds in self._times_s.items()}
        held_out = {length for length in lengths if length & (length - 1)}
        out = {run for run in times_s if _prompt_of(run, lengths) in held_out}
        fitted = {run: time_s for run, time_s in times_s.items() if run not in out}
        blocks = []
        for index in range(len(self._chain)):
            own = {run: max(float(time_s[index]), 1e-12) for run, time_s in fitted.items()}
            fixed, token = _state_bytes(self._runner.state(index))
            blocks.append(
                BlockRuns(
                    prompt=fit_curve({run: time_s for run, time_s in own.items() if run.new > 1}),
                    step=fit_curve({run: time_s for run, time_s in own.items() if run.new == 1}),
                    state_fixed_bytes=fixed,
                    state_token_bytes=token,
                    peak_token_bytes=self._peak_token_bytes(index, max(fitted), step_peak_bytes),
                )
            )
        costs = SequenceCosts(
            blocks=tuple(blocks),
            cuts=tuple(
                fit_size({run: sizes[cut] for run, sizes in self._sizes.items()}) for cut in range(len(self._chain) + 1)
            ),
            measured_context=max(sum(run) for run in times_s),
            max_context=self._max_context,
            vocabulary=self._vocabulary,
        )
        errors = {}
        for key, runs in (
            ("prompt_error", [run for run in out if run.new > 1]),
            ("step_error", [run for run in out if run.new == 1]),
        ):
            if runs:
                measured_s = np.array([times_s[run].sum() for run in runs])
                errors[key] = curve_error(costs.block_s(runs).sum(axis=1), measured_s)
        return costs.model_copy(update=errors)

    def _peak_token_bytes(self, index: int, longest: Run, step_peak_bytes: Sequence[int]) -> float:
        """Return how the peak of a block grows with the tokens of a run: measured on a prompt, else from its cuts."""
        if index < len(step_peak_bytes) and not self._clock.used(1.5):
            tokens = self._rng.integers(self._vocabulary, size=longest.new).tolist()
            _, cuts = _Runs(self._chain, self._runner, self._now_s, tokens).run(longest.new)
            memory = measure_memory(
                self._model.block_model(index), cuts[index], name=f"{self._chain.name}, block {index}"
            )
            if memory is not None:
                return max(memory.peak_bytes - step_peak_bytes[index], 0) / max(longest.new - 1, 1)
        sizes = [fit_size({run: sizes[cut] for run, sizes in self._sizes.items()}) for cut in (index, index + 1)]
        return sum(size.token_bytes + size.context_bytes for size in sizes)


def _growing(most: int) -> Iterator[int]:
    """Yield 2, 3, 4, 6, 8, 12, … up to ``most``."""
    length = 2
    while length <= most:
        yield length
        if length * 3 // 2 <= most:
            yield length * 3 // 2
        length *= 2


def _prompt_of(run: Run, lengths: Sequence[int]) -> int:
    """Return the length of the prompt of the sequence that a run belongs to."""
    return run.new if run.past == 0 else max(length for length in lengths if length <= run.past)


def _state_bytes(pairs: Sequence[StatePair]) -> tuple[float, float]:
    """Return the size of state that does not grow, and the growth by a token."""
    fixed = sum(pair.before.bytes for pair in pairs if not pair.before.varies)
    token = sum(_token_bytes(pair.before) for pair in pairs if pair.before.varies)
    return float(fixed), float(token)


def _token_bytes(spec: TensorSpec) -> int:
    sizes = [length for axis, length in enumerate(spec.shape) if axis not in spec.varies]
    return int(np.prod(sizes)) * np.dtype(spec.dtype).itemsize
