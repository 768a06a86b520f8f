"""Sequences of a run with arrivals, at the home of their source; and the tokens of runs, as each worker counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.execution.agent.block_times import BlockTimes, SequenceRuns
from planner.execution.agent.executor import BlockTime
from planner.execution.agent.next_tokens import NextTokens
from planner.execution.agent.sequences import Sequences
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS, Deploy, DeployedModel
from planner.model.chain import SEQUENCE
from planner.policy.types import RUN_STRIDE, SampleKey
from planner.profiling.sequences import Run
from planner.scenario.decode import MAX_RESTARTS, DecodeSpec
from planner.trace.records import Origin, SampleRecord
from planner.worker.events import Arrived, Complete, Fail, RunBlock
from tests.instances import make_instance, make_profile, with_sequences
from tests.model.decoder_models import continued, export, loaded

BLOCKS = 4
MODEL = export("llama-fp32", BLOCKS)


CONCURRENT = 3


def deployed(*, paced: bool = False, **decode: Any) -> Deploy:
    cut_bytes = [cut.bytes for cut in MODEL.chain.cuts]
    profile = with_sequences(make_profile("llama", block_s=[0.002] * BLOCKS, cut_bytes=cut_bytes))
    spec = DecodeSpec(**{"prompt": 11, "max_new": 6, "concurrent": CONCURRENT, **decode})
    sources = {name: {"rate_per_s": 1.0, "worker": "a", "decode": spec, "samples": 40} for name in ("s", "t")}
    instance = make_instance(profiles=[profile], workers={"a": 0.5, "b": 1.0}, sources=sources)
    cuts = tuple(cut.tensors for cut in MODEL.chain.cuts)
    model = DeployedModel(cuts=cuts, block_sha256=("0" * 64,) * BLOCKS, block_bytes=(1,) * BLOCKS)
    return Deploy(
        run="r", instance=instance, plan=None, policy="local", seed=3, models={"llama": model}, resident={}, paced=paced
    )


def drive(sequences: Sequences, samples: range, lost: float = 0.0, seed: int = 0) -> dict[int, tuple[Any, Tensors]]:
    """Run sequences at the same time, in random order, some of whose runs fail; return the ends."""
    runner, random, next_tokens = loaded(MODEL), np.random.default_rng(seed), NextTokens(deployed().models)
    ends: dict[int, tuple[Any, Tensors]] = {}
    waiting = [run for sample in samples if (run := sequences.arrive("s", sample, float(sample)))]
    while waiting:
        assert len(waiting) == min(CONCURRENT, len(samples) - len(ends))
        arrived, inputs = waiting.pop(int(random.integers(len(waiting))))
        key, now_s = SampleKey("s", arrived.sample, 0), 100.0 + len(ends)
        assert arrived.sequence == inputs[SEQUENCE.name][0]
        if random.random() < lost:
            after = sequences.after(Fail(key, 0.0, "lost"), {}, now_s)
        else:
            outputs = runner.run_segment(0, BLOCKS - 1, inputs)
            assert arrived.decoding is not None
            assert arrived.sequence is not None
            token = next_tokens.token("llama", outputs, arrived.decoding)
            goes_on = random.random() < 0.5 and not arrived.decoding.ends(token)
            after = sequences.after(
                Complete(key, 0.0, Origin("llama"), goes_on), {TOKENS: np.array([token], np.int64)}, now_s
            )
            if goes_on:  # as the worker of the last block would begin it
                step = arrived.decoding.after()
                fed_back = next_tokens.inputs("llama", token, arrived.sequence, step)
                assert after is not None
                assert isinstance(after[0], Arrived)
                assert (after[0].decoding, after[0].sample) == (step, arrived.sample + RUN_STRIDE)
                assert {name: tensor.tolist() for name, tensor in after[1].items()} == {
                    name: tensor.tolist() for name, tensor in fed_back.items()
                }
        assert after is not None
        following, tensors = after
        if isinstance(following, Arrived):
            waiting.append((following, tensors))
        else:
            ends[following.sample] = following, tensors
            if run := sequences.begin_next("s"):
                waiting.append(run)
    assert sequences.waiting == 0
    return ends


@pytest.mark.parametrize("chunk", [None, 1, 4, 11, 30])
def test_sequences_are_those_of_the_model(chunk: int | None) -> None:
    ends = drive(Sequences("a", deployed(chunk=chunk)), range(5))
    assert sorted(ends) == [0, 1, 2, 3, 4]
    for sample, (record, outputs) in ends.items():
        run = Sequences("a", deployed()).arrive("s", sample, 0.0)
        assert run is not None
        _, inputs = run
        prompt = inputs["input_ids"][0].tolist()
        assert len(prompt) == 11
        assert outputs[TOKENS].tolist() == continued(MODEL, prompt, 6)[0]
        assert (record.created_s, record.tokens, record.status) == (float(sample), 6, "completed")


@pytest.mark.parametrize("decode", [{}, {"chunk": 4}, {"next": "sample", "temperature": 2.0}])
@pytest.mark.parametrize("seed", range(3))
def test_lost_state_costs_no_token(decode: dict[str, Any], seed: int) -> None:
    whole = drive(Sequences("a", deployed(**decode)), range(4))
    again = drive(Sequences("a", deployed(**decode)), range(4), lost=0.15, seed=seed)
    assert {k: end[1][TOKENS].tolist() for k, end in again.items() if end[0].status == "completed"} == {
        k: end[1][TOKENS].tolist() for k, end in whole.items() if again[k][0].status == "completed"
    }
    assert sum(end[0].status == "completed" for end in again.values()) >= 3


def test_a_stop_token_ends_a_sequence() -> None:
    tokens = drive(Sequences("a", deployed()), range(1))[0][1][TOKENS].tolist()
    stopped = drive(Sequences("a", deployed(stop=(tokens[2],))), range(1))[0][1][TOKENS].tolist()
    assert stopped == tokens[: tokens.index(tokens[2]) + 1]


def test_a_sequence_fails_when_it_is_lost_again_and_again() -> None:
    sequences = Sequences("a", deployed())
    run = sequences.arrive("s", 7, 1.0)
    assert run is not None
    arrived, _ = run
    states = {arrived.sequence}
    for _ in range(MAX_RESTARTS):
        begun = SampleKey("s", arrived.sample + RUN_STRIDE, 0)  # by the worker of the last block, as far as it got
        after = sequences.after(Fail(SampleKey("s", arrived.sample, 0), 1.0, "gone"), {}, 2.0)
        assert after is not None
        following = after[0]
        assert isinstance(following, Arrived)
        assert following.sample > begun.sample
        assert sequences.after(Complete(begun, 1.0), {TOKENS: np.array([7])}, 2.0) is None
        arrived = following
        states.add(arrived.sequence)
        assert arrived.sample % RUN_STRIDE == 7
    assert len(states) == 1 + MAX_RESTARTS
    after = sequences.after(Fail(SampleKey("s", arrived.sample, 0), 1.0, "gone"), {}, 3.0)
    assert after is not None
    ended, outputs = after
    assert isinstance(ended, SampleRecord)
    assert (ended.sample, ended.created_s, ended.status, ended.reason, outputs) == (7, 1.0, "failed", "gone", {})


def test_only_a_source_at_home_has_sequences() -> None:
    assert "s" in Sequences("a", deployed())
    assert "s" not in Sequences("b", deployed())
    assert "s" not in Sequences("a", deployed().model_copy(update={"live": True}))


@pytest.mark.parametrize("news", [[11, 1, 1], [4, 4, 3, 1, 1], [1, 1, 1], [2, 30, 1]])
@pytest.mark.parametrize("first", [0, 2])
def test_a_worker_counts_the_tokens_of_runs(news: list[int], first: int) -> None:
    """Also at an inner cut, of interleaved sequences; and it does not know what it has not seen from the beginning."""
    runner, seen = loaded(MODEL), SequenceRuns()
    model = deployed().models["llama"]
    for runs, new in enumerate(news):
        past = sum(news[:runs])
        for number in (5, 6):
            tensors: Tensors = {
                "input_ids": np.ones((1, new), np.int64),
                "attention_mask": np.ones((1, past + new), np.int64),
                SEQUENCE.name: np.array([number, runs], np.int64),
            }
            for block in range(first, BLOCKS):
                at = runner.run_segment(0, block - 1, tensors) if block == first and block > 0 else tensors
                tensors = at
                assert seen.of(model, block, tensors) == Run(new, past)
                tensors = runner.run_block(block, tensors) if block < BLOCKS - 1 else tensors
    unknown = {**tensors, SEQUENCE.name: np.array([9, 4], np.int64)}
    assert seen.of(model, BLOCKS - 1, unknown) is None
    assert seen.of(model, BLOCKS - 1, {}) is None


@pytest.mark.parametrize("new", [1, 40, 400])
def test_a_paced_block_takes_the_time_of_its_run_and_is_no_slowness(new: int) -> None:
    deploy = deployed(paced=True)
    times = BlockTimes("a", deploy)
    inputs: Tensors = {
        "input_ids": np.ones((1, new), np.int64),
        "attention_mask": np.ones((1, new), np.int64),
        SEQUENCE.name: np.array([5, 0], np.int64),
    }
    run = RunBlock(SampleKey("s", 0, 0), "llama", 0, begins_stage=False)
    lasts_s = times.begin(run, inputs)
    by_hand_s = 2e-3 + 1e-6 if new == 1 else 1e-3 + 2e-4 * new + 1e-7 * new * new
    assert lasts_s is not None
    assert lasts_s == pytest.approx((by_hand_s / 0.5,))
    (once_s,) = lasts_s
    took = [BlockTime(0, 1.0, 1.0 + once_s, late=False), BlockTime(0, 2.0, 2.0 + 3 * once_s, late=False)]
    assert times.as_typical("llama", took) == pytest.approx([0.002 / 0.5, 3 * 0.002 / 0.5])
