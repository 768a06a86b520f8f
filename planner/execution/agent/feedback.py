"""Steps of sequences that follow one another at the home of their source, without its program in between.

A sample may ask for further steps (:class:`~planner.execution.wire.messages.Further`): when its result is back, the
likeliest token becomes the input of another run of the same sequence, and so on. Each run is a sample of its own for
the workers, with a number that no program gives. The program gets one result: all tokens with the time of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import RUN_STRIDE, TIMES, TOKENS, DeployedModel, Submit
from planner.model.chain import SEQUENCE, TensorSpec
from planner.model.tokens import Role, fill, likeliest, logits_of, roles
from planner.policy.types import Progress, SampleKey
from planner.trace.records import SampleRecord
from planner.worker.events import Arrived, Complete, Fail, sample_record


@dataclass
class _Loop:
    submit: Submit
    roles: dict[TensorSpec, Role]
    logits: str
    sequence: tuple[int, int]
    known: list[int]
    """A place for each token of the sequence; only those of the last run are read."""
    created_s: float
    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)


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

    def begin(self, submit: Submit, tensors: Tensors, now_s: float) -> None:
        """Take note of what a sample asks for."""
        if SEQUENCE.name not in tensors:
            return
        cuts: Sequence[Sequence[TensorSpec]] = self._models[submit.source].cuts
        number, runs = tensors[SEQUENCE.name].tolist()
        if submit.further is None:
            if submit.progress is not None:
                self._single[submit.source, submit.sample] = number, submit.progress[-1]
            return
        self._loops[submit.source, submit.sample] = _Loop(
            submit,
            roles(cuts[0], submit.source),
            logits_of(cuts[-1], submit.source).name,
            (number, runs),
            [0] * submit.further.known,
            now_s,
        )

    def next_run(self, key: SampleKey, outputs: Tensors, now_s: float) -> tuple[Arrived, Tensors] | None:
        """Take the result of a run; return the next one with its inputs, or None if the sample has ended."""
        loop = self._loop(key.source, key.sample)
        if loop is None or loop.submit.further is None:
            return None
        token = int(outputs[TOKENS][0]) if TOKENS in outputs else likeliest(outputs[loop.logits])
        loop.tokens.append(token)
        loop.times_s.append(now_s - loop.created_s)
        submit, further = loop.submit, loop.submit.further
        if len(loop.tokens) > further.steps or token in further.stop:
            return None
        number, runs = loop.sequence
        seen = len(loop.known)
        loop.known.append(token)
        inputs = {spec.name: fill(spec, role, loop.known, seen) for spec, role in loop.roles.items()}
        inputs[SEQUENCE.name] = np.array([number, runs + len(loop.tokens)], np.int64)
        sample = submit.sample + len(loop.tokens) * RUN_STRIDE
        left = submit.progress[-1] if submit.progress is not None else further.steps
        arrived = Arrived(
            submit.source,
            sample,
            submit.priority,
            submit.within_s,
            number,
            greedy=True,
            progress=Progress(seen, 1, max(left - len(loop.tokens), 0)),
        )
        return arrived, inputs

    def after(
        self, end: Complete | Fail, outputs: Tensors, now_s: float
    ) -> tuple[Arrived, Tensors] | tuple[SampleRecord, Tensors]:
        """Take the end of a run; return the next one with its inputs, or the end of the whole sample."""
        following = self.next_run(end.key, outputs, now_s) if isinstance(end, Complete) else None
        if following is not None:
            return following
        self._note_end(end)
        return self.end(sample_record(end, now_s), outputs)

    def take_ended(self) -> list[int]:
        """Return the numbers of the sequences that have ended since the last call, as far as is known here."""
        ended, self._ended = self._ended, []
        return ended

    def _note_end(self, end: Complete | Fail) -> None:
        """Take note of a sequence that ends with a sample: a program that says how far it is begins another one."""
        failed = isinstance(end, Fail)
        loop = self._loop(end.key.source, end.key.sample, ended=not failed)
        number, left = self._single.pop((end.key.source, end.key.sample), (-1, 1))
        if loop is not None and loop.submit.further is not None and loop.submit.progress is not None:
            number, left = loop.sequence[0], loop.submit.progress[-1] + 1 - len(loop.tokens)
            left = 0 if loop.tokens and loop.tokens[-1] in loop.submit.further.stop else left
        if number >= 0 and (failed or left <= 0):
            self._ended.append(number)

    def end(self, record: SampleRecord, outputs: Tensors) -> tuple[SampleRecord, Tensors]:
        """Return the end of a whole sample, given that of its last run."""
        loop = self._loop(record.source, record.sample, ended=record.status == "completed")
        if loop is None:
            return record, outputs
        del self._loops[record.source, loop.submit.sample]
        record = replace(record, sample=loop.submit.sample, created_s=loop.created_s)
        if record.status == "completed":
            tokens, times_s = np.array(loop.tokens, np.int64), np.array(loop.times_s)
            outputs = {TOKENS: tokens, TIMES: times_s}
        return record, outputs

    def _loop(self, source: str, number: int, *, ended: bool = False) -> _Loop | None:
        """Return the sample whose present run has a number; ``ended`` if that run's token was taken."""
        loop = self._loops.get((source, number % RUN_STRIDE))
        if loop is None or number != loop.submit.sample + (len(loop.tokens) - ended) * RUN_STRIDE:
            return None
        return loop
