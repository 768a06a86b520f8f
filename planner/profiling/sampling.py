"""Run blocks and segments on this device, and record their times.

On the host with one thread, the clock is the thread's CPU time, so that time used by other programs does not count as a
block's cost. Otherwise (several threads, or a separate device) it is wall-clock time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.heap import only_new_garbage
from planner.model.chain import SEQUENCE, Chain
from planner.model.work import Work
from planner.profiling.batches import BatchCosts
from planner.profiling.fusion import FusedSegments, Times, choose_fused
from planner.profiling.sequences import SequenceCosts
from planner.profiling.timing import Rounds, Segment, choose_segments
from planner.runtime.difference import compare
from planner.runtime.inputs import hint_at_real_inputs, random_inputs
from planner.runtime.memory import BlockMemory, measure_memory
from planner.runtime.placement import Placement, placement
from planner.runtime.providers import REFERENCE_PROVIDER
from planner.runtime.runner import ChainRunner
from planner.runtime.session import BlockSession

if TYPE_CHECKING:  # this module needs onnx, which the base install lacks
    from planner.model.axes import Axes
    from planner.model.functions import RuntimeNode

Progress = Callable[[int, int], None]
"""Callback that receives the percentage done so far, and 100."""

WARM_UP_ROUNDS: Final = 2
CLOCKS_S: Final = 2.0
CLOCKS_SHARE: Final = 0.1
"""How long a device is kept busy before it is measured, and the most of the budget that this may take."""
MIN_ROUNDS: Final = 3
FUSION_ROUNDS: Final = 10
PLACED_RUNS: Final = 10
"""Number of runs in which the times of nodes are taken, after the first one."""
ROUNDS_SHARE: Final = 0.7
"""Share of the budget after which no new round starts, so that fusing and memory can be measured."""


class ProfiledModel(Protocol):
    """A chain with its block models, as returned by :func:`planner.model.load.load_chain`."""

    @property
    def chain(self) -> Chain:
        """Blocks and cuts."""

    @property
    def axes(self) -> Axes:
        """Sizes of the axes that the model names."""

    @property
    def runtime_nodes(self) -> Mapping[str, RuntimeNode]:
        """What onnxruntime makes of each node, by the first tensor that the node produces."""

    @property
    def single(self) -> str:
        """Reason why the block models run single samples only; empty if they run several as one."""

    def work(self, index: int) -> Work:
        """Return the work of a block by kind of operator."""

    def block_model(self, index: int) -> bytes:
        """Return the serialised model of a block."""

    def stage_model(self, first: int, last: int) -> bytes:
        """Return blocks ``first`` to ``last`` as one serialised model."""


class Clock:
    """Elapsed time compared with a budget, with progress reports.

    Parameters
    ----------
    budget_s
        Time limit in seconds.
    progress
        Callback that receives the percentage of the expected total time.
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
        """Return whether ``share`` of the budget is used up."""
        return self.elapsed_s >= share * self.budget_s

    def report(self) -> None:
        """Report the progress."""
        if self._progress:
            self._progress(min(99, int(100 * self.elapsed_s / self.expected_s)), 100)

    def finish(self) -> None:
        """Report completion."""
        if self._progress:
            self._progress(100, 100)


@dataclass
class TimingSamples:
    """Measurements so far.

    Parameters
    ----------
    rounds
        Times of blocks and segments.
    """

    rounds: Rounds
    load_s: list[float] = field(default_factory=list)
    """Time to create each block's session; length L, seconds."""
    fused_segments: FusedSegments = field(default_factory=lambda: FusedSegments([], []))
    """Segments to run as one session."""
    fused: dict[Segment, Times] = field(default_factory=dict)
    """Times of those that were."""
    """Time saved by fusing at each inner border, as far as measured; seconds."""
    memory: list[BlockMemory] = field(default_factory=list)
    """Memory of each block, as far as measured."""
    whole_error: float | None = None
    """What the provider does to the outputs of the whole model, if measured: a relative error."""
    placement: Placement | None = None
    """Which share of the time the provider runs itself, if measured."""
    sequences: SequenceCosts | None = None
    """Costs of the runs of sequences, if measured."""
    batches: BatchCosts | None = None
    """Times of batches, if measured."""
    passed_s: float = 0.0
    """Wall-clock time of all rounds together, seconds."""
    counted_s: float = 0.0
    """Time of all rounds by the clock used for costs, seconds; less if other programs occupied the processor."""

    @property
    def waiting_share(self) -> float:
        """Share of the rounds' time in which other programs occupied the processor."""
        return max(1 - self.counted_s / self.passed_s, 0.0) if self.passed_s else 0.0


class Sampler:
    """Samples the times of a chain's blocks and segments on a provider.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    runner
        Runner without blocks; :meth:`load` loads them.
    rng
        Generator for inputs, segments and their order.
    clock
        Clock that limits the time.
    inputs
        Tensors of cut 0, by name; drawn by default.
    """

    def __init__(
        self,
        chain_model: ProfiledModel,
        runner: ChainRunner,
        rng: np.random.Generator,
        clock: Clock,
        inputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._model = chain_model
        self._inputs = inputs
        self._runner = runner
        self._rng = rng
        self._clock = clock
        self._length = len(chain_model.chain)
        self._cut_tensors: list[dict[str, NDArray[Any]]] = []
        on_this_thread = runner.provider.on_calling_thread and runner.threads == 1
        self.now_s: Callable[[], float] = thread_time if on_this_thread else perf_counter
        self.samples = TimingSamples(Rounds(*choose_segments(self._length, rng)))

    def load(self) -> None:
        """Create the sessions, and run the chain once to obtain the tensors of each cut."""
        for index in range(self._length):
            model = self._model.block_model(index)
            start_s = perf_counter()
            self._runner.load(index, model)
            self.samples.load_s.append(perf_counter() - start_s)
            self._clock.report()
        specs = self._model.chain.cuts[0].tensors
        self._cut_tensors = [random_inputs(specs, self._rng) if self._inputs is None else dict(self._inputs)]
        with nullcontext() if self._inputs is not None else hint_at_real_inputs(specs, "--inputs FILE.npz"):
            for index in range(self._length):
                self._cut_tensors.append(self._runner.run_block(index, self._cut_tensors[index]))

    def warm_clocks(self) -> None:
        """Keep a device busy until its clocks are up: an idle GPU runs at a fraction of them, and is slow to rise.

        The CPU's clocks are up once the chain was loaded and run.
        """
        if self._runner.provider.device is None:
            return
        until_s = perf_counter() + min(CLOCKS_S, CLOCKS_SHARE * self._clock.budget_s)
        while perf_counter() < until_s:
            self._runner.run_segment(0, self._length - 1, self._cut_tensors[0])
            self._clock.report()

    def run_rounds(self, count: int) -> None:
        """Run ``count`` rounds after the warm-up, or fewer if the budget runs out."""
        for _ in range(WARM_UP_ROUNDS):
            start_s = perf_counter()
            self._run_round(Rounds(self.samples.rounds.fitted, self.samples.rounds.held_out))
            round_s = perf_counter() - start_s
        rounds_s = min(count * round_s, ROUNDS_SHARE * self._clock.budget_s)
        self._clock.expected_s = min(self._clock.budget_s, self._clock.elapsed_s + rounds_s / ROUNDS_SHARE)
        for done in range(count):
            if done >= MIN_ROUNDS and self._clock.used(ROUNDS_SHARE):
                break
            self._run_round(self.samples.rounds)
            self._clock.report()

    def _run_round(self, rounds: Rounds) -> None:
        whole = (0, self._length - 1)
        segments = [whole, *rounds.fitted, *rounds.held_out]
        passed_s, counted_s = perf_counter(), self.now_s()
        times = {segments[index]: self._timed(*segments[index]) for index in self._rng.permutation(len(segments))}
        self.samples.passed_s += perf_counter() - passed_s
        self.samples.counted_s += self.now_s() - counted_s
        chain_s, block_s = times.pop(whole)
        rounds.add(block_s, chain_s, {segment: total_s for segment, (total_s, _) in times.items()})

    def _timed(self, first: int, last: int) -> tuple[float, list[float]]:
        """Run a stage, and return its time and the time of each of its blocks in seconds."""
        runner, now_s = self._runner, self.now_s
        begin_s = now_s()
        tensors = runner.send(first, self._cut_tensors[first])
        marks_s = [now_s()]
        for index in range(first, last + 1):
            tensors = runner.step(index, tensors)
            marks_s.append(now_s())
        runner.fetch(tensors)
        return now_s() - begin_s, np.diff(marks_s).tolist()

    def try_fusing(self) -> None:
        """Time segments as one session and as one for each block, unless the blocks keep state."""
        chain = self._model.chain
        if SEQUENCE in chain.cuts[0].tensors:
            return
        segments = choose_fused(self._length, [leave.cut for leave in chain.exits], self._rng)
        self.samples.fused_segments = segments
        for first, last in (*segments.fitted, *segments.held_out):
            if self._clock.used(1.0):
                return
            fused = BlockSession(
                self._model.stage_model(first, last),
                name=f"{chain.name}, blocks {first} to {last}",
                provider=self._runner.provider,
                threads=self._runner.threads,
            )
            self.samples.fused[first, last] = self._both_times(fused, first, last)
            self._clock.report()

    def _both_times(self, fused: BlockSession, first: int, last: int) -> Times:
        """Return the shortest times: disturbances only add time, and not equally to both."""
        tensors = self._cut_tensors[first]
        apart_s, fused_s = [], []
        for _ in range(FUSION_ROUNDS):
            apart_s.append(self._timed(first, last)[0])
            start_s = self.now_s()
            fused.run(tensors)
            fused_s.append(self.now_s() - start_s)
        return Times(min(apart_s), min(fused_s))

    def measure_memory(self) -> None:
        """Measure each block's memory if the blocks run on the CPU provider."""
        if not self._runner.provider.on_calling_thread:
            return
        with only_new_garbage():
            for index in range(self._length):
                memory = None if self._clock.used(1.0) else self._memory(index)
                if memory is None:
                    return
                self.samples.memory.append(memory)
                self._clock.report()

    def measure_rounding(self) -> None:
        """Measure what the provider does to the outputs of the whole model, unless it is the reference's own.

        Meanwhile onnxruntime tells which provider runs which nodes.
        """
        if self._runner.provider.name == REFERENCE_PROVIDER or self._clock.used(1.0):
            return
        whole, inputs = self._model.stage_model(0, self._length - 1), self._cut_tensors[0]
        expected = BlockSession(whole, name=self._model.chain.name, optimise=False).run(inputs)
        with TemporaryDirectory() as folder:
            session = BlockSession(
                whole, name=self._model.chain.name, provider=self._runner.provider, threads=self._runner.threads,
                trace=Path(folder) / "trace",
            )  # fmt: skip
            found = session.run(inputs)
            for _ in range(PLACED_RUNS):
                session.run(inputs)
            self.samples.placement = placement(session.end_trace())
        self.samples.whole_error = compare(found, expected).max_rel_error

    def _memory(self, index: int) -> BlockMemory | None:
        """Return the memory of a block, with the tensors that pass by it."""
        name, crossing = f"{self._model.chain.name}, block {index}", self._cut_tensors[index]
        return measure_memory(self._model.block_model(index), crossing, name=name, passing=crossing)


def cut_names(chain: Chain) -> Sequence[Sequence[str]]:
    """Return the names of the tensors at each cut."""
    return [[tensor.name for tensor in cut.tensors] for cut in chain.cuts]
