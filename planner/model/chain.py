"""A model as a chain of blocks: plain data, independent of onnx.

A chain has L blocks, numbered from 0, and L + 1 cut points. Cut 0 is the model's input, cut L is its output, and cut l
lies before block l. Planning, simulating and running block models require nothing else of this package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a tensor at a cut.

    ``bounds`` are the smallest and the largest value of a model's input that is an index, or chooses a branch; None if
    the model states none. They serve to draw inputs.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bounds: tuple[int, int] | None = None

    @property
    def bytes(self) -> int:
        """Size of the tensor's data in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


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
    """

    name: str
    nodes: int
    flop: float
    parameters: int
    weight_bytes: int
    activation_bytes: int


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
