"""Steps of sequences that follow one another without the source's program in between.

A sample may ask for further steps (:class:`~planner.execution.wire.messages.Further`): when its result is back, its
token becomes the input of another run of the same sequence, and so on. Each run is a sample of its own for the workers,
with a number that no program gives. It begins here, at the home of the source, or at the worker of the last block,
which tells home; home keeps its input in any case, to start it again. The program gets all tokens with the time of
each: those of :data:`PART_S` at a time, and the rest when the sample ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TIMES, TOKENS, DeployedModel, Further, Submit
from planner.model.chain import SEQUENCE, TensorSpec
from planner.model.tokens import Role, inputs_of, roles
from planner.policy.types import RUN_STRIDE, Decoding, Progress, SampleKey
from planner.trace.records import SampleRecord
from planner.worker.events import Arrived, Complete, Fail, sample_record

PART_S: Final = 0.05
"""For how long tokens are collected before the program gets them."""

Part = tuple[str, int, Tensors]
"""Source, sample, and its tokens since the part before, with the time of each."""


@dataclass
class _Loop:
    submit: Submit
    further: Further
    roles: dict[TensorSpec, Role]
    sequence: int
    decoding: Decoding
    """That of the present run."""
    created_s: float
    tokens: list[int] = field(default_factory=list)
    """Those that the program has not got."""
    times_s: list[float] = field(default_factory=list)
    taken: int = 0
    """Number of all tokens so far."""
    last: int = -1
    """The last one."""
    sent_s: float = 0.0
    """When the program got the last part, since the sample arrived."""

    def take(self, token: int, now_s: float) -> bool:
        """Take the token of the present run; return whether another one follows."""
        self.tokens.append(token)
        self.times_s.append(now_s - self.created_s)
        self.taken, self.last = self.taken + 1, token
        return not self.decoding.ends(token)

    def take_tokens(self) -> Tensors:
        """Return the tokens since the last call, with their times."""
        found = {TOKENS: np.array(self.tokens, np.int64), TIMES: np.array(self.times_s)}
        self.tokens, self.times_s = [], []
        return found


class Feedback:
    """The samples of one worker that ask for further steps.

    Parameters
    ----------
    models
        Model of each source.
    """

    def __init__(self, models: Mapping[str, DeployedModel]) -> None:
        self._models = models
        self._loops: dict[tuple[str, int], _Loop] = {}
        self._single: dict[tuple[str, int], tuple[int, int]] = {}
        """Sequence of each sample without further steps, and how many runs are to follow it."""
        self._ended: list[int] = []
        self._part: _Loop | None = None

    def begin(self, submit: Submit, tensors: Tensors, now_s: float) -> Decoding | None:
        """Take note of what a sample asks for; return how its token is chosen, None if all outputs are needed."""
        if SEQUENCE.name not in tensors:
            return None
        further = submit.further
        number, runs = tensors[SEQUENCE.name].tolist()
        if further is None:
            if submit.progress is not None:
                self._single[submit.source, submit.sample] = number, submit.progress[-1]
            return None
        cuts: Sequence[Sequence[TensorSpec]] = self._models[submit.source].cuts
        decoding = Decoding(
            further.index, runs, further.known, further.steps, further.temperature, (further.seed,), further.stop
        )
        found = roles(cuts[0], submit.source)
        self._loops[submit.source, submit.sample] = _Loop(submit, further, found, number, decoding, now_s)
        return decoding

    def next_run(self, key: SampleKey, outputs: Tensors, now_s: float) -> tuple[Arrived, Tensors] | None:
        """Take the result of a run; return the next one with its inputs, or None if the sample has ended.

        A result without its token, which an attempt that is over may send, ends it.
        """
        loop = self._loop(key.source, key.sample)
        if loop is None or TOKENS not in outputs:
            return None
        token = int(outputs[TOKENS][0])
        if not loop.take(token, now_s):
            return None
        if now_s - loop.created_s >= loop.sent_s + PART_S:
            self._part = loop
        loop.decoding = step = loop.decoding.after()
        submit, seen = loop.submit, step.context - 1
        left = submit.progress[-1] if submit.progress is not None else loop.further.steps
        arrived = Arrived(
            submit.source,
            submit.sample + loop.taken * RUN_STRIDE,
            submit.priority,
            submit.within_s,
            loop.sequence,
            step,
            progress=Progress(seen, 1, max(left - loop.taken, 0)),
        )
        return arrived, inputs_of(loop.roles, [token], seen, loop.sequence, step.runs)

    def give_up(self, source: str, sequence: int) -> None:
        """Let no run follow the present one of a sequence."""
        for (name, _), loop in self._loops.items():
            if (name, loop.sequence) == (source, sequence):
                loop.decoding = loop.decoding._replace(left=0)

    def take_part(self, now_s: float) -> Part | None:
        """Return the tokens of a sample that goes on, if it is time to give them to its program."""
        loop, self._part = self._part, None
        if loop is None:
            return None
        loop.sent_s = now_s - loop.created_s
        return loop.submit.source, loop.submit.sample, loop.take_tokens()

    def after(
        self, end: Complete | Fail, outputs: Tensors, now_s: float
    ) -> tuple[Arrived, Tensors] | tuple[SampleRecord, Tensors] | None:
        """Take the end of a run; return the next one with its inputs, or the end of the whole sample."""
        if end.key.sample >= RUN_STRIDE and self._loop(end.key.source, end.key.sample) is None:
            return None  # of a sample that has ended
        following = self.next_run(end.key, outputs, now_s) if isinstance(end, Complete) else None
        if following is not None:
            return following
        self._note_end(end, taken=isinstance(end, Complete) and TOKENS in outputs)
        return self.end(sample_record(end, now_s), outputs)

    def take_ended(self) -> list[int]:
        """Return the numbers of the sequences that have ended since the last call, as far as is known here."""
        ended, self._ended = self._ended, []
        return ended

    def _note_end(self, end: Complete | Fail, *, taken: bool) -> None:
        """Take note of a sequence that ends with a sample: a program that says how far it is begins another one."""
        loop, failed = self._loop(end.key.source, end.key.sample, ended=taken), isinstance(end, Fail)
        number, left = self._single.pop((end.key.source, end.key.sample), (-1, 1))
        if loop is not None and loop.submit.progress is not None:
            failed = failed or not taken
            number, left = loop.sequence, loop.submit.progress[-1] + 1 - loop.taken
            left = 0 if loop.last in loop.further.stop else left
        if number >= 0 and (failed or left <= 0):
            self._ended.append(number)

    def end(self, record: SampleRecord, outputs: Tensors) -> tuple[SampleRecord, Tensors]:
        """Return the end of a whole sample, given that of its last run."""
        completed = record.status == "completed"
        loop = self._loop(record.source, record.sample, ended=completed and TOKENS in outputs)
        if loop is None:
            return record, outputs
        del self._loops[record.source, loop.submit.sample]
        record = replace(record, sample=loop.submit.sample, created_s=loop.created_s)
        if completed and TOKENS not in outputs:
            return replace(record, status="failed", reason="its token was lost", origin=None), {}
        return record, loop.take_tokens() if completed else outputs

    def _loop(self, source: str, number: int, *, ended: bool = False) -> _Loop | None:
        """Return the sample whose present run has a number; ``ended`` if that run's token was taken."""
        loop = self._loops.get((source, number % RUN_STRIDE))
        if loop is None or number != loop.submit.sample + (loop.taken - ended) * RUN_STRIDE:
            return None
        return loop
