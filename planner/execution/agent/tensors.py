"""The tensors that a worker stores of the samples of a run, and the state of sequences that it gives and takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from planner.execution.agent.model_blocks import Held, ModelBlocks, fetch
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS, Deploy
from planner.model.chain import SEQUENCE
from planner.policy.types import SampleKey
from planner.runtime.state import sequence_of
from planner.trace.records import Origin
from planner.worker.events import Parcel, ResultMessage, StateMessage, TaskMessage


class TensorStore:
    """The tensors of one worker: inputs of its sources, activations and results.

    Parameters
    ----------
    inputs
        Input tensors of each of this worker's sources; sample k takes entry k modulo their number. None in a live run,
        and for sequences, whose inputs come by :meth:`submit`.
    models
        The blocks, which keep the state of sequences.
    """

    def __init__(self, deploy: Deploy, inputs: Mapping[str, list[Tensors]], models: Mapping[str, ModelBlocks]) -> None:
        self._deploy = deploy
        self._models = models
        self._inputs = inputs
        self._submitted: dict[tuple[str, int], Tensors] = {}
        self._tensors: dict[SampleKey, Held] = {}

    def submit(self, source: str, sample: int, tensors: Tensors) -> bool:
        """Store the input of a sample of a live run, or of a run of a sequence; return False if it is here already."""
        if (source, sample) in self._submitted:
            return False
        self._submitted[source, sample] = tensors
        return True

    def put(self, key: SampleKey, tensors: Held) -> None:
        """Store an attempt's tensors, in place of earlier ones."""
        self._tensors[key] = tensors

    def get(self, key: SampleKey) -> Held:
        """Return the tensors of an attempt: activations, a result, or the input of a sample of this worker's sources.

        They are empty for an attempt that is over: its block then fails, without effect on the sample.
        """
        tensors = self._tensors.get(key)
        if tensors is not None:
            return tensors
        submitted = self._submitted.get((key.source, key.sample))
        if submitted is not None:
            return submitted
        pool = self._inputs.get(key.source)
        return pool[key.sample % len(pool)] if pool else {}

    def discard(self, key: SampleKey) -> None:
        """Drop an attempt's tensors, but not its input."""
        self._tensors.pop(key, None)

    def end(self, key: SampleKey) -> None:
        """Drop the input of a sample of a live run, or of a run of a sequence."""
        self._submitted.pop((key.source, key.sample), None)

    def payload(self, parcel: Parcel) -> Tensors:
        """Return the tensors that travel with a message; where a sample goes on, its exits' results do not."""
        if isinstance(parcel, TaskMessage):
            return _select(self.get(parcel.key), self._cut(parcel.task.model, parcel.task.next_block))
        if isinstance(parcel, ResultMessage):
            return self.result(parcel.key, parcel.origin)
        return self._give_state(parcel) if isinstance(parcel, StateMessage) else {}

    def _give_state(self, message: StateMessage) -> Tensors:
        """Return the state of a sequence, which goes to another worker; none if it is not here or too large to send."""
        found = self._models[message.model].give_state(message.block, message.sequence)
        if found is None:
            return {}
        runs, state = found
        if sum(tensor.nbytes for tensor in state.values()) > self._deploy.largest_bytes:
            return {}
        return {SEQUENCE.name: np.array([message.sequence, runs], np.int64), **state}

    def forget_state(self, sequence: int) -> None:
        """Drop the state of a sequence that has ended."""
        for blocks in self._models.values():
            blocks.forget_state(sequence)

    def take_state(self, message: StateMessage, tensors: Tensors) -> None:
        """Keep the state of a sequence that another worker has sent."""
        sequence = tensors.get(SEQUENCE.name)
        if sequence is None or sequence_of(tensors) != message.sequence:
            return
        state = {name: tensor for name, tensor in tensors.items() if name != SEQUENCE.name}
        self._models[message.model].take_state(message.block, message.sequence, int(sequence[1]), state)

    def result(self, key: SampleKey, origin: Origin | None) -> Tensors:
        """Return the tensors of a sample's result."""
        tensors = self.get(key)
        if origin is None or TOKENS in tensors:
            return fetch(tensors)
        return _select(tensors, self._cut(origin.model, -1) if origin.exit is None else (origin.exit,))

    def _cut(self, model: str, cut: int) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._deploy.models[model].cuts[cut])


def _select(tensors: Held, names: Iterable[str]) -> Tensors:
    """Return the tensors of these names; those of an attempt that is over may be missing."""
    return fetch({name: tensors[name] for name in names if name in tensors})
