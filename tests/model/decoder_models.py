"""Decoders for tests, and what they generate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.model.chain import SEQUENCE
from planner.model.decoders import build_decoder
from planner.model.load import ChainModel, load_chain
from planner.runtime.runner import ChainRunner
from tests.model.chained import FOLDER

EXPORTS = Path(__file__).parent / "exports"
EXPECTED: Mapping[str, Sequence[Mapping[str, Sequence[int]]]] = json.loads(
    (EXPORTS / "expected-tokens.json").read_text()
)
"""Greedy tokens by onnxruntime-genai 0.18, for each export."""

STEP = {"sequence_length": 1, "past_sequence_length": 8}


@cache
def decoder(name: str) -> Path:
    """Return the file of a decoder that our own code builds."""
    return build_decoder(name, Path(FOLDER.name) / f"{name}.onnx")


def export(name: str, blocks: int | None, **options: Any) -> ChainModel:
    """Return an exported decoder, for steps after 8 tokens."""
    return load_chain(EXPORTS / name / "model.onnx", axes={"batch_size": 1, **STEP}, max_blocks=blocks, **options)


def loaded(model: ChainModel) -> ChainRunner:
    """Return a runner with all blocks of a model."""
    runner = ChainRunner([[spec.name for spec in cut.tensors] for cut in model.chain.cuts])
    for block in range(len(model.chain)):
        runner.load(block, model.block_model(block))
    return runner


def step_inputs(
    model: ChainModel, tokens: Sequence[int], fresh: int, sequence: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """Return the inputs of a run on the last ``fresh`` of the tokens."""
    ready: dict[str, Callable[[], NDArray[Any]]] = {
        "input_ids": lambda: np.array([tokens[-fresh:]], np.int64),
        "position_ids": lambda: np.arange(len(tokens) - fresh, len(tokens), dtype=np.int64)[None],
        "attention_mask": lambda: np.ones((1, len(tokens)), np.int64),
        SEQUENCE.name: lambda: np.array(sequence, np.int64),
    }
    return {spec.name: ready[spec.name]() for spec in model.chain.cuts[0].tensors}


def continued(
    model: ChainModel, prompt: Sequence[int], count: int, number: int = 0
) -> tuple[list[int], list[NDArray[Any]]]:
    """Return the likeliest tokens after a prompt, and the logits of each."""
    runner, tokens, logits = loaded(model), list(prompt), []
    for runs in range(count):
        inputs = step_inputs(model, tokens, len(prompt) if runs == 0 else 1, (number, runs))
        logits.append(runner.run_segment(0, len(model.chain) - 1, inputs)["logits"][0, -1])
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(prompt) :], logits
