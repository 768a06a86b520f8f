"""Sequences in a simulated run: each run of one is a sample of the worker at home, and the next follows its result.

Workers know runs only, which they number. Records have the sample, which is the whole sequence. A worker keeps the
state of the blocks that it has run. A block that lacks the state of a run fails, and the sequence starts again: its
prompt and the tokens so far become a new prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from planner.policy.types import Progress
from planner.profiling.sequences import TOKEN_BYTES, Run
from planner.scenario.decode import MAX_RESTARTS, DecodeSpec
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import Complete, Fail, StateMessage


@dataclass
class _Sequence:
    """A sequence on its way."""

    source: str
    sample: int
    created_s: float
    decode: DecodeSpec
    state: int = 0
    """Number of the state that its runs continue; another one after each start."""
    left: deque[Run] = field(default_factory=deque)
    pieces: int = 0
    """Runs of the prompt that are left; after the last one, and each run that follows, a token is known."""
    tokens: int = 0
    first_s: float | None = None
    restarts: int = 0
    state_at: dict[int, str] = field(default_factory=dict)
    """Which worker has the state of each block."""

    def start(self, state: int) -> None:
        """Begin with the prompt and the tokens so far, without state."""
        self.state = state
        prompt = self.decode.prompt + self.tokens
        rest = self.decode.model_copy(update={"prompt": prompt, "max_new": self.decode.max_new - self.tokens})
        self.left, self.pieces = deque(rest.runs), len(rest.prompt_runs)
        self.state_at.clear()


class Sequences:
    """The sequences of a run, by the number of their current run."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._decode = {name: spec.decode for name, spec in instance.scenario.sources.items() if spec.decode}
        self._under_way: dict[tuple[str, int], _Sequence] = {}
        self._numbers = dict.fromkeys(self._decode, 0)
        self._waiting: dict[str, deque[tuple[int, float]]] = {name: deque() for name in self._decode}
        """Sequences that have arrived and not begun, with the time of their arrival."""
        self._running = dict.fromkeys(self._decode, 0)
        self._states = count()
        self._sizes: dict[tuple[str, Run], NDArray[np.float64]] = {}

    @property
    def sources(self) -> frozenset[str]:
        """The sources that produce sequences."""
        return frozenset(self._decode)

    def arrive(self, source: str, sample: int, now_s: float) -> int | None:
        """Take a new sequence; return the number of its first run, or None if it has to wait."""
        self._waiting[source].append((sample, now_s))
        return self.begin_next(source)

    def begin_next(self, source: str) -> int | None:
        """Begin the sequence that has waited longest, if there is one and room for it; return as :meth:`arrive`."""
        waiting = self._waiting[source]
        if not waiting or self._running[source] >= self._decode[source].concurrent:
            return None
        self._running[source] += 1
        sequence = _Sequence(source, *waiting.popleft(), self._decode[source])
        sequence.start(next(self._states))
        return self._numbered(sequence)

    def fail_waiting(self, source: str, now_s: float, reason: str) -> Iterator[SampleRecord]:
        """Yield the records of sequences that can no longer begin."""
        waiting = self._waiting[source]
        while waiting:
            sample, created_s = waiting.popleft()
            yield SampleRecord(source, sample, created_s, now_s, "failed", reason)

    def greedy(self, source: str) -> bool:
        """Return whether the worker of the last block chooses the tokens of a source."""
        return self._decode[source].next == "argmax"

    def state(self, source: str, number: int) -> int:
        """Return the number of the state that a run continues, by which workers know its sequence."""
        return self._under_way[source, number].state

    def sample(self, source: str, number: int) -> int:
        """Return the sample that a run belongs to."""
        sequence = self._under_way.get((source, number))
        return number if sequence is None else sequence.sample

    def run(self, source: str, number: int) -> Run | None:
        """Return the tokens of a run; None for what is no run."""
        sequence = self._under_way.get((source, number))
        return None if sequence is None else sequence.left[0]

    def progress(self, source: str, number: int) -> Progress:
        """Return how far the sequence of a run is."""
        left = self._under_way[source, number].left
        return Progress(left[0].past, left[0].new, len(left) - 1)

    def has_state(self, source: str, number: int, worker: str, blocks: Iterable[int]) -> bool:
        """Return whether a worker has the state that blocks need in a run, and let it keep that after the run."""
        sequence = self._under_way.get((source, number))
        if sequence is None:
            return True
        if sequence.left[0].past == 0:
            sequence.state_at |= dict.fromkeys(blocks, worker)
        return all(sequence.state_at.get(block) == worker for block in blocks)

    def give_state(self, message: StateMessage, sender: str) -> int:
        """Return the size of the state at a block that a worker sends, and has no longer then; 0 if it has none."""
        sequence = self._under_way.get((message.key.source, message.key.sample))
        costs = self._instance.any_profile(message.model).sequences
        if sequence is None or costs is None or sequence.state_at.get(message.block) != sender:
            return 0
        del sequence.state_at[message.block]
        return costs.blocks[message.block].state_bytes(sequence.left[0].past)

    def take_state(self, message: StateMessage, receiver: str) -> None:
        """Let a worker have the state at a block that another has sent."""
        sequence = self._under_way.get((message.key.source, message.key.sample))
        if sequence is not None and sequence.state == message.sequence:
            sequence.state_at.setdefault(message.block, receiver)

    def size_bytes(self, model: str, source: str, number: int, cut: int) -> int | None:
        """Return the size of a cut in a run; None for what is no run."""
        sequence = self._under_way.get((source, number))
        costs = self._instance.any_profile(model).sequences
        if sequence is None or costs is None:
            return None
        key = (model, sequence.left[0])
        if key not in self._sizes:
            self._sizes[key] = costs.cut_bytes([sequence.left[0]])[0]
        greedy = cut == len(costs.blocks) and sequence.decode.next == "argmax"
        return TOKEN_BYTES if greedy else round(float(self._sizes[key][cut]))

    def lose(self, worker: str) -> None:
        """Let the state that a worker has be lost."""
        for sequence in self._under_way.values():
            kept = {block: name for block, name in sequence.state_at.items() if name != worker}
            sequence.state_at = kept

    def ended(self, effect: Complete | Fail, now_s: float) -> SampleRecord | int:
        """Take the end of a run; return the number of the next one, or the record of the sequence that has ended."""
        sequence = self._under_way.pop((effect.key.source, effect.key.sample))
        if isinstance(effect, Fail):
            sequence.restarts += 1
            if sequence.restarts > MAX_RESTARTS:
                return self._record(sequence, now_s, effect, effect.reason)
            sequence.start(next(self._states))
            return self._numbered(sequence)
        sequence.left.popleft()
        sequence.pieces -= 1
        if sequence.pieces <= 0:
            sequence.tokens, sequence.restarts = sequence.tokens + 1, 0
            sequence.first_s = now_s if sequence.first_s is None else sequence.first_s
        return self._numbered(sequence) if sequence.left else self._record(sequence, now_s, effect, "")

    def fail(self, effect: Fail, now_s: float) -> SampleRecord:
        """Return the record of a sequence that cannot go on."""
        return self._record(self._under_way.pop((effect.key.source, effect.key.sample)), now_s, effect, effect.reason)

    def _numbered(self, sequence: _Sequence) -> int:
        number = self._numbers[sequence.source]
        self._numbers[sequence.source] += 1
        self._under_way[sequence.source, number] = sequence
        return number

    def _record(self, sequence: _Sequence, now_s: float, effect: Complete | Fail, reason: str) -> SampleRecord:
        self._running[sequence.source] -= 1
        return SampleRecord(
            sequence.source,
            sequence.sample,
            sequence.created_s,
            now_s,
            "failed" if reason else "completed",
            reason,
            origin=effect.origin if isinstance(effect, Complete) and not reason else None,
            first_s=sequence.first_s,
            tokens=sequence.tokens,
        )
