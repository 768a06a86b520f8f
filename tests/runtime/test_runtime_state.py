"""The state of sequences at a block: continued in order, dropped and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import SEQUENCE
from planner.model.load import load_chain
from planner.runtime.runner import ChainRunner
from planner.runtime.state import MAX_SEQUENCES, StateError
from tests.model.decoder_models import STEP, decoder, loaded, step_inputs

MODEL = load_chain(decoder("gpt2-small-cache"), axes=STEP, max_blocks=2)
PROMPT = [5, 17, 99, 3]


@pytest.fixture
def runner() -> ChainRunner:
    return loaded(MODEL)


def run(runner: ChainRunner, tokens: list[int], fresh: int, number: int, runs: int) -> NDArray[Any]:
    inputs = step_inputs(MODEL, tokens, fresh, (number, runs))
    logits: NDArray[Any] = runner.run_segment(0, len(MODEL.chain) - 1, inputs)["logits"][0, -1]
    return logits


def test_sequences_do_not_mix(runner: ChainRunner) -> None:
    prompts = {0: PROMPT, 7: [200, 1], 3: [9]}
    alone = {}
    for number, prompt in prompts.items():
        alone[number] = run(loaded(MODEL), [*prompt, 4], len(prompt) + 1, 0, 0)
    for number, prompt in prompts.items():
        run(runner, prompt, len(prompt), number, 0)
    for number, prompt in reversed(prompts.items()):
        np.testing.assert_allclose(run(runner, [*prompt, 4], 1, number, 1), alone[number], atol=2e-6)


@pytest.mark.parametrize(("number", "runs", "found"), [(0, 2, "that after 1 runs"), (1, 1, "none"), (0, -1, "that")])
def test_a_run_out_of_order_is_refused(runner: ChainRunner, number: int, runs: int, found: str) -> None:
    run(runner, PROMPT, 4, 0, 0)
    with pytest.raises(StateError, match="the state of the sequence is not here") as caught:
        run(runner, [*PROMPT, 4], 1, number, runs)
    assert found in str(caught.value)


def test_a_sequence_may_begin_again(runner: ChainRunner) -> None:
    first = run(runner, PROMPT, 4, 0, 0)
    run(runner, [*PROMPT, 4], 1, 0, 1)
    np.testing.assert_array_equal(run(runner, PROMPT, 4, 0, 0), first)


def test_a_block_that_was_unloaded_has_no_state(runner: ChainRunner) -> None:
    run(runner, PROMPT, 4, 0, 0)
    runner.unload(1)
    runner.load(1, MODEL.block_model(1))
    with pytest.raises(StateError, match="sequence 0"):
        run(runner, [*PROMPT, 4], 1, 0, 1)


def test_the_state_of_the_sequences_that_went_on_last_is_kept(runner: ChainRunner) -> None:
    for number in range(MAX_SEQUENCES):
        run(runner, [number + 1], 1, number, 0)
    run(runner, [1, 2], 1, 0, 1)
    run(runner, [9], 1, MAX_SEQUENCES, 0)
    run(runner, [1, 2, 3], 1, 0, 2)
    with pytest.raises(StateError, match="sequence 1"):
        run(runner, [2, 2], 1, 1, 1)


def test_a_run_of_no_sequence_starts_from_the_same_state_and_keeps_none(runner: ChainRunner) -> None:
    known = [1] * 9  # the state is drawn for the eight tokens for which the model was loaded
    first = run(runner, known, 1, -1, 0)
    run(runner, PROMPT, 4, 0, 0)
    np.testing.assert_array_equal(run(runner, known, 1, -1, 0), first)
    np.testing.assert_array_equal(run(loaded(MODEL), known, 1, -1, 5), first)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (None, "tensor is missing"),
        (np.array([0], np.int64), r"not a sequence; found 'int64 \[1\]'"),
        (np.array([0, 0], np.int32), r"not a sequence; found 'int32 \[2\]'"),
    ],
)
def test_the_sequence_must_be_told(runner: ChainRunner, sequence: NDArray[Any] | None, message: str) -> None:
    inputs = step_inputs(MODEL, PROMPT, 4, (0, 0))
    del inputs[SEQUENCE.name]
    if sequence is not None:
        inputs[SEQUENCE.name] = sequence
    with pytest.raises(RuntimeSessionError, match=message):
        runner.run_segment(0, 1, inputs)
