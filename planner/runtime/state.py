"""The state of sequences at one block, from one run to the next.

The tensor :data:`~planner.model.chain.SEQUENCE` says which sequence a run continues, and how many runs it has had. A
sequence begins with an empty or zero state. Each block checks that it has the state after exactly so many runs; if not,
because the block moved or the state was dropped, the run fails, and the sequence must start again.
"""

from __future__ import annotations

import itertools
import json
import secrets
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import SEQUENCE, STATE_METADATA, StatePair, TensorSpec

MAX_SEQUENCES: Final = 64
"""Number of sequences under way whose state a block keeps; of more, those that were continued last."""

NUMBERS: Final = itertools.count(secrets.randbits(62))
"""Numbers of sequences, which no other of this process has, nor another on the same agents."""

Tensor = Any
"""A numpy array, or an onnxruntime ``OrtValue``."""


class StateError(RuntimeSessionError):
    """A block does not have the state of a sequence that a run needs, or the run says no sequence."""


def state_of(metadata: Mapping[str, str]) -> tuple[StatePair, ...]:
    """Return the state that the metadata of a block model describes; empty if it has none."""
    return tuple(
        StatePair(
            TensorSpec(pair["before"], pair["dtype"], tuple(pair["shape"]), varies=tuple(pair["varies"])), pair["after"]
        )
        for pair in json.loads(metadata.get(STATE_METADATA, "[]"))
    )


@dataclass
class Kept:
    """The state of a sequence at a block."""

    runs: int
    """Number of runs that have led to it."""
    state: dict[str, Tensor]
    """By the names of the inputs."""
    placed: bool = True
    """Whether it is where the block computes; otherwise in the host's memory."""


class KeptStates:
    """The state of the last sequences at a block, whether or not its session is there."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Kept] = OrderedDict()

    def get(self, number: int) -> Kept | None:
        """Return the state of a sequence; None if it is not here."""
        return self._kept.get(number)

    def put(self, number: int, kept: Kept) -> None:
        """Keep the state of a sequence, in place of an earlier one."""
        self._kept[number] = kept
        self._kept.move_to_end(number)
        while len(self._kept) > MAX_SEQUENCES:
            self._kept.popitem(last=False)

    def take(self, number: int) -> Kept | None:
        """Return the state of a sequence, and keep it no longer."""
        return self._kept.pop(number, None)


class SequenceStates:
    """The state of the sequences that a block runs.

    Parameters
    ----------
    pairs
        The block's state.
    place
        Moves numpy arrays to where the block computes.
    kept
        The state that is there already, and where more is kept.
    """

    def __init__(
        self,
        pairs: tuple[StatePair, ...],
        place: Callable[[dict[str, NDArray[Any]]], dict[str, Tensor]] = lambda arrays: arrays,
        kept: KeptStates | None = None,
    ) -> None:
        self._pairs = pairs
        self._place = place
        self._kept = KeptStates() if kept is None else kept
        self._drawn: dict[str, Tensor] | None = None

    def before(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state before a run on ``tensors``.

        Raises
        ------
        StateError
            If it is not here.
        """
        number, runs = self._sequence(tensors)
        if number < 0:
            if self._drawn is None:
                self._drawn = self._place({pair.before.name: _draw(pair.before) for pair in self._pairs})
            return self._drawn
        if runs == 0:
            return self._place({pair.before.name: _empty(pair.before) for pair in self._pairs})
        kept = self._kept.get(number)
        if kept is None or kept.runs != runs:
            found = "none" if kept is None else f"that after {kept.runs} runs"
            raise StateError(
                "the state of the sequence is not here",
                where=f"sequence {number}",
                value=found,
                expected=f"that after {runs} runs",
            )
        if not kept.placed:
            kept.state, kept.placed = self._place(self._fitting(kept.state)), True
        return kept.state

    def _fitting(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return a state that another worker has sent, or refuse it."""
        missing = [pair.before.name for pair in self._pairs if pair.before.name not in state]
        if missing:
            raise StateError("the state of the sequence is not whole", where=f"input {missing[0]}")
        return {pair.before.name: state[pair.before.name] for pair in self._pairs}

    def after(self, tensors: Mapping[str, Tensor], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the state after a run on ``tensors``, and return the other outputs."""
        state = {pair.before.name: outputs.pop(pair.after) for pair in self._pairs}
        number, runs = self._sequence(tensors)
        if number >= 0:
            self._kept.put(number, Kept(runs + 1, state))
        return outputs

    def _sequence(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        tensor = tensors.get(SEQUENCE.name)
        if tensor is None:
            raise StateError("input is missing", where=f"input {SEQUENCE.name}", expected="int64 [2]")
        array = tensor if isinstance(tensor, np.ndarray) else tensor.numpy()
        if array.dtype != np.int64 or array.shape != SEQUENCE.shape:
            found = f"{array.dtype} {list(array.shape)}"
            raise StateError("not a sequence", where=f"input {SEQUENCE.name}", value=found, expected="int64 [2]")
        return int(array[0]), int(array[1])


def sequence_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of the sequence that a sample continues; None if it continues none."""
    tensor = tensors.get(SEQUENCE.name)
    if not isinstance(tensor, np.ndarray) or tensor.dtype != np.int64 or tensor.shape != SEQUENCE.shape:
        return None
    return int(tensor[0]) if tensor[0] >= 0 else None


def _empty(spec: TensorSpec) -> NDArray[Any]:
    """Return the state before the first run: of no length where it grows, and otherwise zero."""
    return np.zeros([0 if axis in spec.varies else length for axis, length in enumerate(spec.shape)], spec.dtype)


def _draw(spec: TensorSpec) -> NDArray[Any]:
    """Return a state of the length for which the model was loaded, the same each time."""
    if np.dtype(spec.dtype).kind != "f":
        return np.zeros(spec.shape, spec.dtype)
    rng = np.random.default_rng(zlib.crc32(spec.name.encode()))
    return rng.standard_normal(spec.shape).astype(spec.dtype)
