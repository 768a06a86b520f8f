"""A model as a chain of blocks: plain data, independent of onnx.

A chain has L blocks, numbered from 0, and L + 1 cut points. Cut 0 is the model's input, cut L is its output, and cut l
lies before block l. Planning, simulating and running block models require nothing else of this package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a tensor at a cut.

    ``bounds`` are the smallest and the largest value of a model's input that is an index, or chooses a branch; None if
    the model states none. They serve to draw inputs. The axes in ``varies`` may have another length in another run.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bounds: tuple[int, int] | None = None
    varies: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the tensor's data in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor may have this shape."""
        return len(shape) == len(self.shape) and all(
            length == wanted or axis in self.varies
            for axis, (length, wanted) in enumerate(zip(shape, self.shape, strict=True))
        )


SEQUENCE: Final = TensorSpec("planner.sequence", "int64", (2,), bounds=(-1, -1))
"""Crosses the cuts of a model with state: number of the sequence that a run continues, and how many runs it has had.

A run with a negative number belongs to no sequence: it starts from a drawn state, which is not kept.
"""


STATE_METADATA: Final = "planner.state"
"""Entry of a block model's metadata that describes the state that stays with the block, as JSON."""


@dataclass(frozen=True)
class StatePair:
    """State that stays with a block from one run to the next of a sequence.

    Parameters
    ----------
    before
        The input with the state before a run.
    after
        Name of the output with the state after it, of the same type; one of the axes may have grown.
    """

    before: TensorSpec
    after: str


@dataclass(frozen=True)
class Block:
    """The smallest sequence of layers that is profiled, loaded, moved and run: one onnxruntime session.

    Parameters
    ----------
    name
        Name, unique within the chain.
    nodes
        Number of ONNX nodes.
    flop
        Floating-point operations per sample; one multiply-add counts 2.
    parameters
        Number of weights. A weight used by two blocks counts for both.
    weight_bytes
        Memory that onnxruntime holds for the weights on a CPU, counted in the same way.
    activation_bytes
        Memory for tensors while the block runs on a CPU, including its inputs and outputs, tensors that pass by it, and
        what onnxruntime's arena holds beside them.
    state_bytes
        Memory for the state of one sequence after a run of the given lengths; see :mod:`planner.model.state`.
    """

    name: str
    nodes: int
    flop: float
    parameters: int
    weight_bytes: int
    activation_bytes: int
    state_bytes: int = 0


@dataclass(frozen=True)
class Cut:
    """A cut point between blocks and the tensors that cross it."""

    index: int
    tensors: tuple[TensorSpec, ...]

    @property
    def bytes(self) -> int:
        """Size of all tensors that cross the cut, in bytes."""
        return sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True)
class Exit:
    """An inner exit: a model output that is available at ``cut``, that is, after block ``cut - 1``."""

    name: str
    cut: int
    result_bytes: int


@dataclass(frozen=True)
class Chain:
    """A model as a sequence of L blocks.

    ``chain_sha256`` identifies the model, its shapes and its block borders. Profiles, scenarios and plans can be
    combined only if they name the same chain.
    """

    name: str
    model_sha256: str
    chain_sha256: str
    blocks: tuple[Block, ...]
    cuts: tuple[Cut, ...]
    exits: tuple[Exit, ...] = ()

    def __len__(self) -> int:
        return len(self.blocks)
