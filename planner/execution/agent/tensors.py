"""The tensors that a worker holds of the samples of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from planner.execution.agent.executor import Held, fetch
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Deploy
from planner.policy.types import SampleKey
from planner.trace.records import Origin
from planner.worker.events import Parcel, ResultMessage, TaskMessage


class TensorStore:
    """What one worker holds: the inputs of its own sources, activations and results.

    Parameters
    ----------
    inputs
        Input tensors of each of this worker's own sources; sample k takes entry k modulo their number. None in a live
        run, whose samples come with :meth:`submit`.
    """

    def __init__(self, deploy: Deploy, inputs: Mapping[str, list[Tensors]]) -> None:
        self._deploy = deploy
        self._inputs = inputs
        self._submitted: dict[tuple[str, int], Tensors] = {}
        self._tensors: dict[SampleKey, Held] = {}

    def submit(self, source: str, sample: int, tensors: Tensors) -> None:
        """Take the input of a sample of a live run."""
        self._submitted[source, sample] = tensors

    def keep(self, key: SampleKey, tensors: Held) -> None:
        """Take what an attempt has come to."""
        self._tensors[key] = tensors

    def of(self, key: SampleKey) -> Held:
        """Give what this worker holds of a sample: activations, a result, or the input of a sample of its own."""
        held = self._tensors.get(key)
        if held is not None:
            return held
        # None for an attempt that is over: it fails, and nobody minds.
        if self._deploy.live:
            return self._submitted.get((key.source, key.sample), {})
        pool = self._inputs.get(key.source)
        return pool[key.sample % len(pool)] if pool else {}

    def discard(self, key: SampleKey) -> None:
        """Drop an attempt's tensors; a source's own inputs stay."""
        self._tensors.pop(key, None)

    def end(self, key: SampleKey) -> None:
        """Drop all of a sample of a live run."""
        self._submitted.pop((key.source, key.sample), None)

    def payload(self, parcel: Parcel) -> Tensors:
        """Give the tensors that travel with a message: an exit's result stays behind where its sample goes on."""
        if isinstance(parcel, TaskMessage):
            return _named(self.of(parcel.key), self._cut(parcel.task.model, parcel.task.next_block))
        if isinstance(parcel, ResultMessage):
            return self.result(parcel.key, parcel.origin)
        return {}

    def result(self, key: SampleKey, origin: Origin | None) -> Tensors:
        """Give the tensors of a result, out of all that this worker holds of its sample."""
        held = self.of(key)
        if origin is None:
            return fetch(held)
        return _named(held, self._cut(origin.model, -1) if origin.exit is None else (origin.exit,))

    def _cut(self, model: str, cut: int) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._deploy.models[model].cuts[cut])


def _named(tensors: Held, names: Iterable[str]) -> Tensors:
    # What a worker no longer holds was of an attempt that is over.
    return fetch({name: tensors[name] for name in names if name in tensors})
