"""Steps that follow one another at the home of their source: the same tokens, in fewer samples; and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.agent.feedback import Feedback
from planner.execution.agent.outbox import Outbox
from planner.execution.coordinator.deployment import Deployment, deploy
from planner.execution.coordinator.run_result import Observer
from planner.execution.session import generation
from planner.execution.session.session import LiveSession
from planner.execution.wire.checks import check_fits, check_live_result
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import (
    COORDINATOR,
    MAX_FURTHER,
    TIMES,
    TOKENS,
    Data,
    Deploy,
    Ended,
    Further,
    Submit,
)
from planner.model.chain import SEQUENCE
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.types import RUN_STRIDE, SampleKey
from planner.trace.records import Origin, SampleRecord
from planner.worker.events import ResultMessage
from tests.execution.rig import SPLIT, agents_in_threads, small_deployment, small_instance
from tests.instances import make_instance, make_profile
from tests.model.decoder_models import EXPECTED, export, loaded, step_inputs

BLOCKS = 4
MODEL = export("llama-fp32", BLOCKS)
CASES = EXPECTED["llama-fp32"]
COUNT = len(CASES[0]["tokens"])
INSTANCE = make_instance(
    profiles=[make_profile("llama", block_s=[0.001] * BLOCKS, cut_bytes=[cut.bytes for cut in MODEL.chain.cuts])],
    workers={"a": 1.0, "b": 1.0},
    sources={name: {"rate_per_s": 5.0, "priority": 1.0, "worker": "a"} for name in ("s", "t")},
)


def _deployment() -> Deployment:
    stages = (Stage(worker="a", first_block=0, last_block=1), Stage(worker="b", first_block=2, last_block=3))
    own = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(share=1.0, model="llama", stages=stages),)
    )
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"s": own, "t": own}, workers={}, networks={},
    )  # fmt: skip
    return deploy(INSTANCE, plan, {"llama": MODEL}, policy="planned", live=True)


class _Ends(Observer):
    """Keeps the ends of samples."""

    def __init__(self) -> None:
        self.ended: list[tuple[SampleRecord, Tensors]] = []

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        self.ended.append((sample, outputs))


@contextmanager
def _session(folder: Path, monkeypatch: pytest.MonkeyPatch, together_s: float) -> Iterator[tuple[LiveSession, _Ends]]:
    monkeypatch.setattr(generation, "AHEAD_S", together_s)
    ends = _Ends()
    with LiveSession(_deployment(), agents_in_threads(("a", "b"), folder), observer=ends) as session:
        yield session, ends


def test_steps_that_follow_one_another_give_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _session(tmp_path, monkeypatch, 1e3) as (session, ends):
        found = session.source("s").generate(CASES[0]["prompt"], max_new=COUNT)
        assert list(found) == CASES[0]["tokens"]
    assert found.restarts == 0
    assert len(ends.ended) == 1 + -(-(COUNT - 1) // MAX_FURTHER)  # the prompt, and the steps
    assert [record.sample for record, _ in ends.ended] == list(range(len(ends.ended)))
    assert 2 <= sum(len(outputs[TOKENS]) for _, outputs in ends.ended) <= COUNT  # others came meanwhile
    assert found.times_s == sorted(found.times_s)
    assert len(set(found.times_s)) == COUNT


@pytest.mark.parametrize("together_s", [0.0, 0.02, 1e3])
def test_sequences_side_by_side_are_exact_however_many_steps_follow(
    together_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _session(tmp_path, monkeypatch, together_s) as (session, ends):
        running = [
            session.source(name).generate(case["prompt"], max_new=COUNT - number)
            for number, case in enumerate(CASES)
            for name in ("s", "t")
        ]
        threads = [threading.Thread(target=list, args=(one,)) for one in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, case in enumerate(CASES):
        for one in running[2 * number : 2 * number + 2]:
            assert one.tokens == case["tokens"][: COUNT - number]
            assert one.restarts == 0
    if together_s == 0:
        assert all(len(outputs[TOKENS]) == 1 for _, outputs in ends.ended)


def test_a_stop_token_ends_steps_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = CASES[0]["tokens"]
    end = next(place for place, token in enumerate(tokens) if place > 2 and token not in tokens[:place]) + 1
    stop = tokens[end - 1]
    with _session(tmp_path, monkeypatch, 1e3) as (session, ends):
        assert list(session.source("s").generate(CASES[0]["prompt"], stop=[stop])) == tokens[:end]
    assert len(ends.ended) == 2


@pytest.mark.parametrize("together_s", [0.0, 1e3])
def test_drawn_tokens_are_the_same_however_many_steps_follow(
    together_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = CASES[0]["prompt"]
    with _session(tmp_path, monkeypatch, together_s) as (session, ends):
        found = list(session.source("s").generate(prompt, max_new=12, temperature=1.0, seed=5))
    assert len(ends.ended) == (2 if together_s else 12)
    assert found == drawn(prompt, 12, temperature=1.0, seed=[5])


def drawn(prompt: Sequence[int], count: int, *, temperature: float, seed: Sequence[int]) -> list[int]:
    """Draw tokens as anyone would who has the whole model: each by a draw of its own."""
    runner, tokens = loaded(MODEL), list(prompt)
    for runs in range(count):
        inputs = step_inputs(MODEL, tokens, 1 if runs else len(prompt), (3, runs))
        logits = runner.run_segment(0, BLOCKS - 1, inputs)["logits"][0, -1].astype(np.float64) / temperature
        likelihoods = np.exp(logits - logits.max())
        point = np.random.default_rng([*seed, runs]).random()
        tokens.append(int(np.argmax(np.cumsum(likelihoods / likelihoods.sum()) > point)))
    return tokens[len(prompt) :]


def test_a_result_of_another_run_is_not_taken_for_a_step() -> None:
    feedback = Feedback({"s": _deploy().models["llama"]})
    submit = Submit(run="r", source="s", sample=3, further=Further(steps=2, known=2))
    feedback.begin(submit, step_inputs(MODEL, [5, 17], 2, (9, 0)), 0.0)
    token = {TOKENS: np.array([40])}
    first = feedback.next_run(SampleKey("s", 3, 0), token, 0.1)
    assert first is not None
    arrived, inputs = first
    assert (arrived.sample, arrived.sequence) == (3 + RUN_STRIDE, 9)
    assert (inputs["input_ids"].tolist(), inputs[SEQUENCE.name].tolist()) == ([[40]], [9, 1])
    assert inputs["attention_mask"].shape == (1, 3)
    assert feedback.next_run(SampleKey("s", 3, 1), token, 0.2) is None  # the first run once more
    assert feedback.next_run(SampleKey("s", 4, 0), token, 0.2) is None
    assert feedback.next_run(SampleKey("s", 3 + RUN_STRIDE, 0), token, 0.3) is not None
    last = 3 + 2 * RUN_STRIDE
    assert feedback.next_run(SampleKey("s", last, 0), token, 0.4) is None
    record, outputs = feedback.end(SampleRecord("s", last, 0.3, 0.4, "completed"), token)
    assert (record.sample, record.created_s) == (3, 0.0)
    assert outputs[TOKENS].tolist() == [40, 40, 40]
    assert outputs[TIMES].tolist() == [0.1, 0.3, 0.4]


def _deploy() -> Deploy:
    deployment = _deployment()
    return Deploy(
        run="r", instance=deployment.instance, plan=deployment.plan, policy="planned", seed=0,
        models=dict(deployment.models), resident={}, paced=False, live=True,
    )  # fmt: skip


def test_further_steps_need_a_sequence() -> None:
    inputs = step_inputs(MODEL, [5, 17], 2, (9, 0))
    submit = Submit(run="r", source="s", sample=0, further=Further(steps=2, known=2))
    check_fits(_deploy(), Frame(submit, inputs, COORDINATOR))
    without = {name: tensor for name, tensor in inputs.items() if name != SEQUENCE.name}
    with pytest.raises(ExecuteError, match="further steps of no sequence"):
        check_fits(_deploy(), Frame(submit, without, COORDINATOR))
    small = small_deployment(small_instance(), SPLIT)
    deploy_small = Deploy(
        run="r", instance=small.instance, plan=SPLIT, policy="planned", seed=0, models=dict(small.models),
        resident={}, paced=False, live=True,
    )  # fmt: skip
    stateless = submit.model_copy(update={"source": "urgent"})
    with pytest.raises(ExecuteError, match="the model keeps no state"):
        check_fits(deploy_small, Frame(stateless, {}, COORDINATOR))


@pytest.mark.parametrize(
    "changed",
    [
        {TOKENS: np.array([1.0])},
        {TOKENS: np.zeros((1, 1), np.int64)},
        {TIMES: np.array([0.1, 0.2])},
        {TIMES: np.array([np.nan])},
        {TOKENS: np.zeros(0, np.int64), TIMES: np.zeros(0)},
    ],
)
def test_tokens_without_their_times_are_no_result(changed: dict[str, Any]) -> None:
    right = {TOKENS: np.array([7]), TIMES: np.array([0.1])}
    record = SampleRecord("s", 0, 0.0, 0.1, "completed", origin=Origin("llama", 0, None))
    body = Ended(run="r", worker="a", samples=(record,))
    models = _deploy().models
    check_live_result(INSTANCE, models, Frame(body, right, "a"), record)
    with pytest.raises(ExecuteError, match="not tokens and their times"):
        check_live_result(INSTANCE, models, Frame(body, {**right, **changed}, "a"), record)


def test_the_worker_of_the_last_block_sends_home_the_token_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Data] = []
    take_note = Outbox._send_data

    def noting(outbox: Outbox, to: str, data: Data, tensors: Tensors, level: int) -> None:
        if isinstance(data.message, ResultMessage):
            sent.append(data)
            assert data.message.token
            assert {name: (it.dtype.name, it.shape) for name, it in tensors.items()} == {TOKENS: ("int64", (1,))}
        take_note(outbox, to, data, tensors, level)

    monkeypatch.setattr(Outbox, "_send_data", noting)
    with _session(tmp_path, monkeypatch, 0.02) as (session, _):
        found = session.source("s").generate(CASES[0]["prompt"], max_new=COUNT)
        assert list(found) == CASES[0]["tokens"]
        assert len(sent) == COUNT
        list(session.source("s").generate([5], max_new=2, temperature=1.0))
    assert len(sent) == COUNT + 2


@pytest.mark.parametrize(
    "tensors", [{"logits": np.zeros((1, 1, 256), np.float32)}, {TOKENS: np.zeros(2, np.int64)}, {TOKENS: np.zeros(1)}]
)
def test_a_result_that_is_no_token_is_refused(tensors: Tensors) -> None:
    body = Data(
        run="r", sender="b", cut=BLOCKS, size_bytes=8, sent_s=0.1,
        message=ResultMessage(SampleKey("s", 0, 0), BLOCKS, Origin("llama"), token=True),
    )  # fmt: skip
    check_fits(_deploy(), Frame(body, {TOKENS: np.array([7])}, "b"))
    with pytest.raises(ExecuteError, match=r"not a token|no such tensor"):
        check_fits(_deploy(), Frame(body, tensors, "b"))
