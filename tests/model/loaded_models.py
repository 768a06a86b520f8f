"""Plug-in of pytest that keeps every chain that tests load, with its block models, in the folder ``LOADED_MODELS``."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any, Final, NamedTuple

import planner.model.load
from planner.model.chain import Chain
from planner.model.load import ChainModel

VARIABLE: Final = "LOADED_MODELS"
LARGEST_BYTES: Final = 64 * 2**20

_load_chain = planner.model.load.load_chain


class LoadedModel(NamedTuple):
    """A chain that a test loaded, and its block models."""

    chain: Chain
    blocks: list[bytes]

    def block_model(self, index: int) -> bytes:
        """Return a block model."""
        return self.blocks[index]


def load_chain(*arguments: Any, **options: Any) -> ChainModel:
    """Load a chain as usual, and keep it."""
    model = _load_chain(*arguments, **options)
    keep(model, Path(os.environ[VARIABLE]))
    return model


def keep(model: ChainModel, folder: Path) -> None:
    """Write a chain to the folder, unless it is there or too large."""
    try:
        blocks = [model.block_model(index) for index in range(len(model.chain))]
    except ValueError:  # malformed names, which no file can have
        return
    path = folder / hashlib.sha256(b"".join(blocks)).hexdigest()
    if not path.exists() and sum(map(len, blocks)) <= LARGEST_BYTES:
        path.write_bytes(pickle.dumps(LoadedModel(model.chain, blocks)))


if VARIABLE in os.environ:
    # Before test modules import it.
    planner.model.load.load_chain = load_chain
