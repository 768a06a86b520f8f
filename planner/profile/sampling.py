"""Run blocks and segments on this device and note what they take.

On the host with one thread the clock is the thread's processor time: what another program takes in between is not the
block's cost. Elsewhere (several threads, a device of its own) it is the time that passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.model.chain import Chain
from planner.profile.timing import Rounds, choose_segments
from planner.runtime.inputs import random_inputs
from planner.runtime.memory import peak_activation_bytes
from planner.runtime.runner import ChainRunner
from planner.runtime.session import BlockSession

Progress = Callable[[int, int], None]
"""Called with the percentage done so far, and 100."""

WARM_UP_ROUNDS: Final = 2
FEWEST_ROUNDS: Final = 3
FUSION_ROUNDS: Final = 10
ROUNDS_SHARE: Final = 0.7
"""Share of the budget after which no new round begins, so that fusing and memory are measured too."""


class ChainModel(Protocol):
    """A chain together with its block models, as :func:`planner.model.load.load_chain` gives it."""

    @property
    def chain(self) -> Chain:
        """Blocks and cuts."""

    def block_model(self, index: int) -> bytes:
        """Give the serialised model of one block."""

    def stage_model(self, first: int, last: int) -> bytes:
        """Give the serialised model of blocks ``first`` to ``last`` in one."""


class Clock:
    """Time since the start, held against a budget, and reported.

    Parameters
    ----------
    budget_s
        Seconds that all may take.
    progress
        Told the percentage of the time that the whole is expected to take.
    """

    def __init__(self, budget_s: float, progress: Progress | None) -> None:
        self.budget_s = budget_s
        self.expected_s = budget_s
        self._progress = progress
        self._start_s = perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._start_s

    def used(self, share: float) -> bool:
        """Tell whether ``share`` of the budget is used up."""
        return self.elapsed_s >= share * self.budget_s

    def report(self) -> None:
        """Tell how far it is."""
        if self._progress:
            self._progress(min(99, int(100 * self.elapsed_s / self.expected_s)), 100)

    def finish(self) -> None:
        """Tell that all is done."""
        if self._progress:
            self._progress(100, 100)


@dataclass
class Samples:
    """What was measured so far.

    Parameters
    ----------
    rounds
        Times of blocks and segments.
    """

    rounds: Rounds
    load_s: list[float] = field(default_factory=list)
    """Time to make each block's session; length L, seconds."""
    fusion_saving_s: list[float] = field(default_factory=list)
    """What fusing at each inner border saves, as far as they were tried; seconds."""
    peak_bytes: list[int] = field(default_factory=list)
    """Peak memory of each block, as far as they were tried."""
    passed_s: float = 0.0
    """Time that passed in all rounds together, seconds."""
    counted_s: float = 0.0
    """The same by the clock that the costs are taken from; less where other programs had the processor."""

    @property
    def waiting_share(self) -> float:
        """Share of the rounds' time in which other programs had the processor."""
        return max(1 - self.counted_s / self.passed_s, 0.0) if self.passed_s else 0.0


class Sampler:
    """Takes samples of one chain on one provider.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    runner
        Without blocks yet; :meth:`load` loads them.
    rng
        Draws inputs, segments and their order.
    clock
        Bounds the time.
    """

    def __init__(self, chain_model: ChainModel, runner: ChainRunner, rng: np.random.Generator, clock: Clock) -> None:
        self._model = chain_model
        self._runner = runner
        self._rng = rng
        self._clock = clock
        self._length = len(chain_model.chain)
        self._cut_tensors: list[dict[str, NDArray[Any]]] = []
        on_this_thread = runner.provider.device is None and runner.threads == 1
        self._now_s = thread_time if on_this_thread else perf_counter
        self.samples = Samples(Rounds(*choose_segments(self._length, rng)))

    def load(self) -> None:
        """Make the sessions, and run the chain once to have the tensors of each cut."""
        for index in range(self._length):
            model = self._model.block_model(index)
            start_s = perf_counter()
            self._runner.load(index, model)
            self.samples.load_s.append(perf_counter() - start_s)
            self._clock.report()
        self._cut_tensors = [random_inputs(self._model.chain.cuts[0].tensors, self._rng)]
        for index in range(self._length):
            self._cut_tensors.append(self._runner.run_block(index, self._cut_tensors[index]))

    def run_rounds(self, count: int) -> None:
        """Run ``count`` rounds after the warm-up, or fewer where the budget ends before."""
        for _ in range(WARM_UP_ROUNDS):
            start_s = perf_counter()
            self._run_round(Rounds(self.samples.rounds.fitted, self.samples.rounds.held_out))
            round_s = perf_counter() - start_s
        rounds_s = min(count * round_s, ROUNDS_SHARE * self._clock.budget_s)
        self._clock.expected_s = min(self._clock.budget_s, self._clock.elapsed_s + rounds_s / ROUNDS_SHARE)
        for done in range(count):
            if done >= FEWEST_ROUNDS and self._clock.used(ROUNDS_SHARE):
                break
            self._run_round(self.samples.rounds)
            self._clock.report()

    def _run_round(self, rounds: Rounds) -> None:
        whole = (0, self._length - 1)
        segments = [whole, *rounds.fitted, *rounds.held_out]
        passed_s, counted_s = perf_counter(), self._now_s()
        times = {segments[index]: self._timed(*segments[index]) for index in self._rng.permutation(len(segments))}
        self.samples.passed_s += perf_counter() - passed_s
        self.samples.counted_s += self._now_s() - counted_s
        chain_s, block_s = times.pop(whole)
        rounds.add(block_s, chain_s, {segment: total_s for segment, (total_s, _) in times.items()})

    def _timed(self, first: int, last: int) -> tuple[float, list[float]]:
        """Run a stage; give its time and that of each of its blocks, in seconds."""
        runner, now_s = self._runner, self._now_s
        begin_s = now_s()
        tensors = runner.send(first, self._cut_tensors[first])
        marks_s = [now_s()]
        for index in range(first, last + 1):
            tensors = runner.step(index, tensors)
            marks_s.append(now_s())
        runner.fetch(tensors)
        return now_s() - begin_s, np.diff(marks_s).tolist()

    def try_fusing(self) -> None:
        """Time each two neighbouring blocks as one session and as two."""
        for first in range(self._length - 1):
            if self._clock.used(1.0):
                return
            fused = BlockSession(
                self._model.stage_model(first, first + 1),
                name=f"{self._model.chain.name}, blocks {first} and {first + 1}",
                provider=self._runner.provider,
                threads=self._runner.threads,
            )
            self.samples.fusion_saving_s.append(self._saving_s(fused, first))
            self._clock.report()

    def _saving_s(self, fused: BlockSession, first: int) -> float:
        """Compare the shortest times: a disturbance only ever adds, and to one of the two more than to the other."""
        tensors = self._cut_tensors[first]
        apart_s, fused_s = [], []
        for _ in range(FUSION_ROUNDS):
            apart_s.append(self._timed(first, first + 1)[0])
            start_s = self._now_s()
            fused.run(tensors)
            fused_s.append(self._now_s() - start_s)
        return min(apart_s) - min(fused_s)

    def measure_memory(self) -> None:
        """Measure each block's peak, where the blocks run in the host's memory."""
        if self._runner.provider.device is not None:
            return
        for index in range(self._length):
            peak = None if self._clock.used(1.0) else self._peak_bytes(index)
            if peak is None:
                return
            self.samples.peak_bytes.append(peak)
            self._clock.report()

    def _peak_bytes(self, index: int) -> int | None:
        name = f"{self._model.chain.name}, block {index}"
        return peak_activation_bytes(self._model.block_model(index), self._cut_tensors[index], name=name)


def cut_names(chain: Chain) -> Sequence[Sequence[str]]:
    """Give the names of the tensors at each cut."""
    return [[tensor.name for tensor in cut.tensors] for cut in chain.cuts]
