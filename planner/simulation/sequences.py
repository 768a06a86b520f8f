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

from planner.policy.types import RUN_STRIDE, Decoding, Progress, SampleKey
from planner.profiling.sequences import TOKEN_BYTES, Run
from planner.scenario.decode import MAX_RESTARTS, DecodeSpec
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord
from planner.worker.events import Arrived, Complete, Fail, StateMessage


@dataclass
class _Sequence:
    """A sequence on its way."""

    source: str
    sample: int
    created_s: float
    decode: DecodeSpec
    state: int = 0
    """Number of the state that its runs continue; another one after each start."""
    runs: tuple[Run, ...] = ()
    """All runs since the start."""
    pieces: int = 0
    """How many of them are of the prompt; after the last of these, and each run that follows, a token is known."""
    begun: int = 0
    """Number of all runs begun, in all starts."""
    tokens: int = 0
    """How many are known at home."""
    first_s: float | None = None
    restarts: int = 0
    state_at: dict[int, str] = field(default_factory=dict)
    """Which worker has the state of each block."""

    def start(self, state: int) -> None:
        """Begin with the prompt and the tokens so far, without state."""
        self.state = state
        prompt = self.decode.prompt + self.tokens
        rest = self.decode.model_copy(update={"prompt": prompt, "max_new": self.decode.max_new - self.tokens})
        self.runs, self.pieces = rest.runs, len(rest.prompt_runs)
        self.state_at.clear()


@dataclass(slots=True)
class _Run:
    """A run under way."""

    sequence: _Sequence
    place: int
    """Number of runs before it since the start."""
    state: int
    """The state that it continues; that of a start before the last one is no longer anywhere."""

    @property
    def tokens(self) -> Run:
        """Its tokens."""
        return self.sequence.runs[self.place]

    @property
    def stale(self) -> bool:
        """Whether its sequence has started again since."""
        return self.state != self.sequence.state


class Sequences:
    """The sequences of a run, by the number of their current run."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._decode = {name: spec.decode for name, spec in instance.scenario.sources.items() if spec.decode}
        self._under_way: dict[tuple[str, int], _Run] = {}
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
        return self._begin(sequence, 0)

    def fail_waiting(self, source: str, now_s: float, reason: str) -> Iterator[SampleRecord]:
        """Yield the records of sequences that can no longer begin."""
        waiting = self._waiting[source]
        while waiting:
            sample, created_s = waiting.popleft()
            yield SampleRecord(source, sample, created_s, now_s, "failed", reason)

    def arrival(self, source: str, number: int) -> Arrived:
        """Return the arrival of a run at home."""
        run = self._under_way[source, number]
        sequence, (new, past) = run.sequence, run.tokens
        left = len(sequence.runs) - run.place - 1
        following = left if run.place + 1 >= sequence.pieces else 0
        return Arrived(
            source,
            number,
            sequence=sequence.state,
            decoding=Decoding(sequence.tokens, run.place, past + new, following),
            progress=Progress(past, new, left),
        )

    def feed_back(self, key: SampleKey, of: SampleKey) -> None:
        """Let a run begin where the last block of the one before has run."""
        before = self._under_way.get((of.source, of.sample))
        if before is None or before.stale or before.place + 1 == len(before.sequence.runs):
            return
        before.sequence.begun = key.sample // RUN_STRIDE
        self._under_way[key.source, key.sample] = _Run(before.sequence, before.place + 1, before.state)

    def run(self, source: str, number: int) -> Run | None:
        """Return the tokens of a run; None for what is no run."""
        run = self._under_way.get((source, number))
        return None if run is None else run.tokens

    def has_state(self, source: str, number: int, worker: str, blocks: Iterable[int]) -> bool:
        """Return whether a worker has the state that blocks need in a run, and let it keep that after the run."""
        if source not in self._decode:
            return True
        run = self._under_way.get((source, number))
        if run is None or run.stale:
            return False
        state_at = run.sequence.state_at
        if run.tokens.past == 0:
            state_at |= dict.fromkeys(blocks, worker)
        return all(state_at.get(block) == worker for block in blocks)

    def give_state(self, message: StateMessage, sender: str) -> int:
        """Return the size of the state at a block that a worker sends, and has no longer then; 0 if it has none."""
        run = self._under_way.get((message.key.source, message.key.sample))
        costs = self._instance.any_profile(message.model).sequences
        if run is None or costs is None or run.sequence.state_at.get(message.block) != sender:
            return 0
        del run.sequence.state_at[message.block]
        return costs.blocks[message.block].state_bytes(run.tokens.past)

    def take_state(self, message: StateMessage, receiver: str) -> None:
        """Let a worker have the state at a block that another has sent."""
        run = self._under_way.get((message.key.source, message.key.sample))
        if run is not None and run.sequence.state == message.sequence:
            run.sequence.state_at.setdefault(message.block, receiver)

    def size_bytes(self, model: str, source: str, number: int, cut: int) -> int | None:
        """Return the size of a cut in a run; None for what is no run."""
        run = self._under_way.get((source, number))
        costs = self._instance.any_profile(model).sequences
        if run is None or costs is None:
            return None
        if cut == len(costs.blocks):
            return TOKEN_BYTES
        key = (model, run.tokens)
        if key not in self._sizes:
            self._sizes[key] = costs.cut_bytes([run.tokens])[0]
        return round(float(self._sizes[key][cut]))

    def lose(self, worker: str) -> None:
        """Let the state that a worker has be lost."""
        for run in self._under_way.values():
            sequence = run.sequence
            sequence.state_at = {block: name for block, name in sequence.state_at.items() if name != worker}

    def ended(self, effect: Complete | Fail, now_s: float) -> SampleRecord | int | None:
        """Take the end of a run.

        Returns
        -------
        SampleRecord | int | None
            The number of the next run, to begin at home; None if that is under way; or the record of the sequence that
            has ended.
        """
        run = self._under_way.pop((effect.key.source, effect.key.sample))
        sequence = run.sequence
        if isinstance(effect, Fail):
            sequence.restarts += 1
            self._drop_runs(sequence)
            if sequence.restarts > MAX_RESTARTS:
                return self._record(sequence, now_s, effect, effect.reason)
            sequence.start(next(self._states))
            return self._begin(sequence, 0)
        if run.place + 1 >= sequence.pieces:
            sequence.tokens, sequence.restarts = sequence.tokens + 1, 0
            sequence.first_s = now_s if sequence.first_s is None else sequence.first_s
        if effect.goes_on:
            return None
        if run.place + 1 < len(sequence.runs):
            return self._begin(sequence, run.place + 1)
        return self._record(sequence, now_s, effect, "")

    def fail(self, effect: Fail, now_s: float) -> SampleRecord:
        """Return the record of a sequence that cannot go on."""
        sequence = self._under_way.pop((effect.key.source, effect.key.sample)).sequence
        self._drop_runs(sequence)
        return self._record(sequence, now_s, effect, effect.reason)

    def _begin(self, sequence: _Sequence, place: int) -> int:
        sequence.begun += 1
        number = sequence.sample + sequence.begun * RUN_STRIDE
        self._under_way[sequence.source, number] = _Run(sequence, place, sequence.state)
        return number

    def _drop_runs(self, sequence: _Sequence) -> None:
        """Forget the runs of a sequence that its worker of the last block has begun and home does not know of."""
        for key in [key for key, run in self._under_way.items() if run.sequence is sequence]:
            del self._under_way[key]

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
