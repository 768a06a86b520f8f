"""Sequences that a source produces in a run with arrivals, as a scenario's ``decode:`` says.

A sample is a whole sequence: a prompt, then tokens that are fed back. Each run of the model is a sample of its own for
the workers, with a number that no sample of the scenario has. When the state of a sequence is lost, it starts again:
its prompt and the tokens so far become the prompt of a new one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS, Deploy
from planner.model.chain import TensorSpec
from planner.model.tokens import Role, inputs_of, roles, vocabulary
from planner.policy.types import RUN_STRIDE, Decoding, Progress
from planner.runtime.input_pool import prompt_pool
from planner.runtime.state import NUMBERS
from planner.scenario.decode import MAX_RESTARTS, DecodeSpec
from planner.trace.records import SampleRecord
from planner.worker.events import Arrived, Complete, Fail, sample_record


@dataclass(frozen=True)
class _Source:
    """What is known of a source's sequences before they begin."""

    name: str
    decode: DecodeSpec
    prompts: list[list[int]]
    roles: dict[TensorSpec, Role]
    seed: tuple[int, int]
    """Seed of the run, and position of the source."""


@dataclass
class _Sequence:
    """A sequence on its way."""

    source: _Source
    sample: int
    created_s: float
    seed: tuple[int, ...]
    """Of the draws of its tokens."""
    known: list[int]
    """Tokens of the prompt, and those generated."""
    state: int = field(default_factory=lambda: next(NUMBERS))
    """By which number workers know its state; another one after each start."""
    runs: int = 0
    """Number of runs since the last start, the present one not included."""
    seen: int = 0
    """Number of tokens of those runs."""
    begun: int = 0
    """Number of all runs begun."""
    first_s: float | None = None
    restarts: int = 0

    @property
    def tokens(self) -> list[int]:
        """Those generated so far."""
        return self.known[len(self.source.prompts[self.sample % len(self.source.prompts)]) :]

    @property
    def number(self) -> int:
        """Number of the present run."""
        return self.sample + self.begun * RUN_STRIDE

    @property
    def end(self) -> int:
        """Number of tokens that the state has after the present run."""
        chunk = self.source.decode.chunk
        return len(self.known) if chunk is None else min(self.seen + chunk, len(self.known))

    def next_run(self) -> tuple[Arrived, Tensors]:
        """Begin a run; return its arrival and inputs."""
        source, decode = self.source, self.source.decode
        inputs = inputs_of(source.roles, self.known[self.seen : self.end], self.seen, self.state, self.runs)
        self.begun += 1
        of_prompt = self.end < len(self.known)
        steps = decode.max_new - len(self.tokens) - 1
        left = steps + ceil((len(self.known) - self.end) / (decode.chunk or self.end))
        decoding = Decoding(len(self.tokens), self.runs, self.end)
        if not of_prompt:
            decoding = decoding._replace(
                left=steps, temperature=decode.drawn_temperature, seed=self.seed, stop=decode.stop
            )
        arrived = Arrived(
            source.name,
            self.number,
            sequence=self.state,
            decoding=decoding,
            progress=Progress(self.seen, self.end - self.seen, left),
        )
        return arrived, inputs

    def take(self, outputs: Tensors, now_s: float) -> bool:
        """Take the result of a run; return whether the sequence has ended."""
        self.runs, self.seen = self.runs + 1, self.end
        if self.seen < len(self.known):
            return False
        decode, token = self.source.decode, int(outputs[TOKENS][0])
        self.known.append(token)
        self.first_s = now_s if self.first_s is None else self.first_s
        self.restarts = 0
        return len(self.tokens) >= decode.max_new or token in decode.stop

    def start_again(self) -> None:
        """Go on without the state so far; no run has the number of one that others may have begun."""
        self.state, self.runs, self.seen = next(NUMBERS), 0, 0
        self.begun += self.source.decode.max_new
        self.restarts += 1


def draws(seed: tuple[int, int], entry: int) -> tuple[int, ...]:
    """Return the seed of the draws after a prompt, given that of the run and the source's position."""
    return (*seed, entry, 1)


class Sequences:
    """The sequences of one worker's sources."""

    def __init__(self, worker: str, deploy: Deploy) -> None:
        self._sources: dict[str, _Source] = {}
        self._under_way: dict[tuple[str, int], _Sequence] = {}
        self._ended: list[int] = []
        self._waiting: dict[str, deque[tuple[int, float]]] = {}
        """Sequences that have arrived and not begun, with the time of their arrival."""
        for index, (name, spec) in enumerate(deploy.instance.scenario.sources.items()):
            if spec.decode is None or spec.worker != worker or deploy.live:
                continue
            cuts = deploy.models[spec.models[0]].cuts
            own = deploy.prompts.get(name)
            prompts = (
                list(map(list, own))
                if own is not None
                else prompt_pool(
                    spec.decode.prompt,
                    vocabulary(cuts[0], cuts[-1], name),
                    seed=deploy.seed,
                    source_index=index,
                    samples=spec.samples,
                )
            )
            self._sources[name] = _Source(name, spec.decode, prompts, roles(cuts[0], name), (deploy.seed, index))

    def __contains__(self, source: object) -> bool:
        """Return whether a source of this worker produces sequences."""
        return source in self._sources

    @property
    def waiting(self) -> int:
        """Number of sequences that have arrived and not begun."""
        return sum(map(len, self._waiting.values()))

    def arrive(self, source: str, sample: int, now_s: float) -> tuple[Arrived, Tensors] | None:
        """Take a new sequence; return its first run with its inputs, or None if it has to wait."""
        self._waiting.setdefault(source, deque()).append((sample, now_s))
        return self.begin_next(source)

    def begin_next(self, source: str) -> tuple[Arrived, Tensors] | None:
        """Begin the sequence that has waited longest, if there is one and room for it; return as :meth:`arrive`."""
        own, waiting = self._sources[source], self._waiting.get(source)
        if not waiting or sum(name == source for name, _ in self._under_way) >= own.decode.concurrent:
            return None
        sample, created_s = waiting.popleft()
        entry = sample % len(own.prompts)
        sequence = _Sequence(own, sample, created_s, draws(own.seed, entry), list(own.prompts[entry]))
        self._under_way[source, sample] = sequence
        return sequence.next_run()

    def take_ended(self) -> list[int]:
        """Return the numbers of the sequences that have ended since the last call, or started again with another."""
        ended, self._ended = self._ended, []
        return ended

    def after(
        self, end: Complete | Fail, outputs: Tensors, now_s: float
    ) -> tuple[Arrived, Tensors] | tuple[SampleRecord, Tensors] | None:
        """Take the end of a run; return the next one with its inputs, or the end of the whole sample.

        It is None for a run that a sequence before its last start had begun. A result without its token, which an
        attempt that is over may send, is as good as none.
        """
        record = sample_record(end, now_s)
        key = (end.key.source, end.key.sample % RUN_STRIDE)
        sequence = self._under_way.get(key)
        if sequence is None or sequence.number != end.key.sample:
            return None if end.key.sample >= RUN_STRIDE else (record, outputs)
        if isinstance(end, Complete) and TOKENS in outputs:
            over = sequence.take(outputs, now_s)
            self._ended += [sequence.state] if over else []
        else:
            self._ended.append(sequence.state)
            over = (isinstance(end, Fail) and end.dropped) or sequence.restarts == MAX_RESTARTS
            sequence.start_again()
        if not over:
            return sequence.next_run()
        del self._under_way[key]
        tokens = sequence.tokens
        record = replace(
            record,
            sample=sequence.sample,
            created_s=sequence.created_s,
            first_s=sequence.first_s,
            tokens=len(tokens),
        )
        return record, {TOKENS: np.array(tokens, np.int64)} if isinstance(end, Complete) else {}
