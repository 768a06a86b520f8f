"""The chain of blocks that a model is seen as: plain data, free of onnx.

A chain has L blocks, numbered from 0, and L + 1 cut points: cut 0 is the model's input, cut L its output, and cut l
lies before block l. Whoever only plans, simulates or runs block models needs no more than this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a tensor at a cut."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the tensor's data in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Block:
    """The smallest run of layers that is profiled, loaded, moved and run: one onnxruntime session.

    Parameters
    ----------
    name
        Unique within the chain.
    nodes
        How many ONNX nodes it runs.
    flop
        Floating-point operations per sample; one multiply-add counts 2.
    parameters
        Number of weights. A weight used by two blocks counts in both.
    weight_bytes
        Their size. Likewise.
    activation_bytes
        Peak size of the tensors alive while the block runs, its inputs and outputs included.
    """

    name: str
    nodes: int
    flop: float
    parameters: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Cut:
    """A place between blocks and the tensors that cross it."""

    index: int
    tensors: tuple[TensorSpec, ...]

    @property
    def bytes(self) -> int:
        """Size of all tensors that cross the cut, in bytes."""
        return sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True)
class Exit:
    """An inner exit: an output of the model that is ready at ``cut``, that is after block ``cut - 1``."""

    name: str
    cut: int
    result_bytes: int


@dataclass(frozen=True)
class Chain:
    """A model as L blocks in a row.

    ``chain_sha256`` identifies model, shapes and block borders: profiles, scenarios and plans that name different
    chains do not mix.
    """

    name: str
    model_sha256: str
    chain_sha256: str
    blocks: tuple[Block, ...]
    cuts: tuple[Cut, ...]
    exits: tuple[Exit, ...] = ()

    def __len__(self) -> int:
        return len(self.blocks)
