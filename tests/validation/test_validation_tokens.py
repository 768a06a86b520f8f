"""Sequences in a validation: predicted and measured times of tokens, and every token against one session's."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import planner
from planner.errors import UsageError
from planner.execution.coordinator.run_result import Observer
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import TOKENS
from planner.policy.types import RUN_STRIDE
from planner.profiling.sequences import Run
from planner.profiling.store import save_profile
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord
from planner.validation.document import validation_document
from planner.validation.numerics import Numerics, joined
from planner.validation.tokens import compare_tokens
from planner.worker.events import BlockEnded
from tests.execution.test_execution_generate import agents
from tests.model.decoder_models import EXPECTED, EXPORTS

MODEL = EXPORTS / "llama-fp32" / "model.onnx"
AXES = {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 8}
SCENARIO = f"""
schema: planner/scenario/v1
profiles: [profiles]
models:
  llama:
    path: {MODEL}
    max_blocks: 4
    axes: {{batch_size: 1, sequence_length: 1, past_sequence_length: 8}}
workers:
  a: {{device_class: here, memory: 1 GiB, speed: 0.05}}
  b: {{device_class: here, memory: 1 GiB, speed: 0.05}}
networks:
  lan: {{kind: shared, members: [a, b], bandwidth: 100 Mbit/s, latency: 1 ms}}
sources:
  urgent: {{worker: a, models: [llama], priority: 4, rate: 2 /s, samples: 6, decode: {{prompt: 9, max_new: 5}}}}
  chunked:
    {{worker: b, models: [llama], priority: 1, rate: 2 /s, samples: 6, decode: {{prompt: 60, max_new: 3, chunk: 25}}}}
  drawn: {{worker: a, models: [llama], rate: 2 /s, samples: 6, decode: {{prompt: 7, max_new: 4, next: sample}}}}
policy: {{pace: {{slow: 1000}}}}  # a busy host is no reason to plan anew, and to send sequences another way
"""
SIZES = {"urgent": (9, 5), "chunked": (60, 3), "drawn": (7, 4)}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> planner.Plan:
    """All sources on one route over both workers."""
    folder = tmp_path_factory.mktemp("sequences")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    model = planner.load_chain(MODEL, max_blocks=4, axes=AXES)
    save_profile(
        planner.profile(model, device_class="here", rounds=3, progress=None),
        folder / "profiles" / "here" / "model.json",
    )
    over_both = {source: {0: "a", 1: "a", 2: "b", 3: "b"} for source in SIZES}
    return planner.solve(planner.load_scenario(folder / "scenario.yaml"), pins=over_both, progress=None)


@pytest.fixture(scope="module")
def verdict(plan: planner.Plan) -> planner.Verdict:
    return planner.validate(plan, progress=None)


def test_every_token_is_that_of_one_session(verdict: planner.Verdict) -> None:
    assert verdict.sound
    numerics = verdict.validation.numerics
    assert (numerics.samples, numerics.tokens) == (18, 6 * (5 + 3 + 4))
    assert "72 tokens one by one" in str(verdict)


def test_times_of_tokens_are_predicted_and_measured(verdict: planner.Verdict) -> None:
    document = validation_document(verdict.validation, 0.15)
    for source in SIZES:
        found = document["sources"][source]
        for which in ("predicted", "measured"):
            assert all(found[which][name] > 0 for name in ("ttft_s", "tpot_s", "tokens_per_s"))
        low, high = found["intervals"]["ttft_s"]
        assert low <= found["measured"]["ttft_s"] <= high
    names = [check["name"] for check in document["checks"]]
    assert {f"{what} of urgent" for what in ("mean delay", "time to first token", "time per token")} <= {*names}


def test_records_are_of_sequences(verdict: planner.Verdict) -> None:
    """Each is a sample, which runs each block once for each piece of its prompt and each token but the last."""
    blocks, cuts = defaultdict[tuple[str, int], int](int), defaultdict[tuple[str, int], int](int)
    for record in verdict.validation.measurement.records:
        if isinstance(record, BlockRecord):
            blocks[record.source, record.sample] += 1
        elif isinstance(record, TransferRecord):
            cuts[record.source, record.sample] += 1
        else:
            assert record.tokens == SIZES[record.source][1]
            assert record.first_s is not None
            assert record.created_s < record.first_s < record.finished_s
    runs = {"urgent": 1 + 4, "chunked": 3 + 2, "drawn": 1 + 3}
    assert blocks == {(source, sample): 4 * count for source, count in runs.items() for sample in range(6)}
    crossings = {"urgent": 2, "chunked": 2, "drawn": 2}  # there and back; that of b begins with a way to a
    assert cuts == {(source, sample): crossings[source] * runs[source] for source in runs for sample in range(6)}


def test_transfers_have_the_sizes_that_are_predicted(verdict: planner.Verdict) -> None:
    def sizes(records: Iterable[Record]) -> set[tuple[str, int, int]]:
        return {(it.source, it.cut, it.size_bytes) for it in records if isinstance(it, TransferRecord)}

    validation = verdict.validation
    assert sizes(validation.measurement.records) == sizes(validation.predicted)


def test_a_long_prompt_is_no_slowness_of_an_agent(verdict: planner.Verdict) -> None:
    """Workers get the times of blocks as those of a typical run: in a paced run just that, except on a slow host."""
    ratios = []
    instance = verdict.instance
    for worker, steps in verdict.validation.measurement.steps.items():
        typical_s = instance.block_s("llama", worker)
        for event in (step.event for step in steps if isinstance(step.event, BlockEnded)):
            if event.key.source == "chunked":
                times_s = np.array([*event.before_s, event.service_s])
                ratios += (times_s / typical_s[event.block + 1 - len(times_s) : event.block + 1]).tolist()
    assert len(ratios) == 6 * 5 * 4
    assert np.median(ratios) < 1.3
    longest = max(instance.run_s("llama", "a", [run])[0].sum() for run in _runs(verdict, "chunked"))
    assert longest > 1.5 * instance.block_s("llama", "a").sum()  # otherwise this shows nothing


def _runs(verdict: planner.Verdict, source: str) -> tuple[Run, ...]:
    decode = verdict.instance.scenario.sources[source].decode
    assert decode is not None
    return decode.runs


class _Kills(Observer):
    """Kills an agent once a sequence has ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:  # noqa: ARG002
        """Kill it."""
        self._process.kill()


def test_sequences_go_on_without_a_worker(plan: planner.Plan, tmp_path: Path) -> None:
    folder = Path(str(plan.scenario.path)).parent
    at_a = "".join(line for line in SCENARIO.splitlines(keepends=True) if "chunk" not in line)
    (folder / "at-a.yaml").write_text(at_a, encoding="utf-8")
    over_both = {source: {0: "a", 1: "a", 2: "b", 3: "b"} for source in ("urgent", "drawn")}
    split = planner.solve(planner.load_scenario(folder / "at-a.yaml"), pins=over_both, progress=None)
    with agents(tmp_path) as (address, running):
        found = planner.validate(
            split, place="remote", connect=[address], observer=_Kills(running["b"]), progress=None
        ).validation
    assert found.measurement.left == ["b"]
    assert (found.lost, found.failed, found.numerics.unequal) == (0, 0, 0)
    assert found.numerics.tokens == 6 * (5 + 4)


def test_a_wrong_token_is_found() -> None:
    records = [SampleRecord("s", k, 0.0, 1.0, "completed", origin=Origin("m"), first_s=0.5, tokens=3) for k in range(4)]
    outputs = {
        ("s", 0): {TOKENS: np.array([1, 2, 3])},
        ("s", 1): {TOKENS: np.array([1, 7, 3])},
        ("s", 2): {TOKENS: np.array([1, 2])},
    }
    found = compare_tokens(outputs, records, {("s", "m"): [(1, 2, 3)]})
    assert (found.samples, found.unequal, found.not_received, found.tokens) == (3, 2, 1, 8)
    assert [str(it) for it in found.differences] == ["token 1 is 7, not 2", "it has 2 tokens, not 3"]
    assert not joined(Numerics(5, 0.0, 0.0), found).equal
    assert joined(Numerics(5, 0.0, 0.0), replace(found, unequal=0, not_received=0)).equal


def test_sequences_begin_with_prompts_of_their_own_in_turn(plan: planner.Plan, tmp_path: Path) -> None:
    prompts = [list(EXPECTED["llama-fp32"][0]["prompt"]), [7] * 40]
    (tmp_path / "own.json").write_text(json.dumps(prompts), encoding="utf-8")
    measured = planner.validate(
        plan, samples={"urgent": tmp_path / "own.json"}, max_samples=3, progress=None
    ).validation.measurement
    wanted = EXPECTED["llama-fp32"][0]["tokens"][:5]
    assert [measured.outputs["urgent", sample][TOKENS].tolist() == wanted for sample in range(3)] == [True, False, True]
    sizes = {it.size_bytes for it in measured.records if isinstance(it, TransferRecord) and it.source == "urgent"}
    assert max(sizes) > 40 * 4 * 64  # the long prompt's activations


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[5, 300]]", r"prompt 0: a token outside the vocabulary; found 300; expected 0 to 255"),
        ("[[5], []]", "no prompts"),
        ("[]", "no prompts"),
        ('[["a"]]', "no prompts"),
        ("[[1.5]]", "no prompts"),
        ("{", "no prompts"),
    ],
)
def test_prompts_that_are_none_are_refused(plan: planner.Plan, tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=fault):
        planner.validate(plan, samples={"urgent": tmp_path / "own.json"}, progress=None)


def test_what_sequences_cannot_be(plan: planner.Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the prompts cannot be read"):
        planner.validate(plan, samples={"urgent": tmp_path / "none.json"}, progress=None)


def test_sequences_are_calibrated(plan: planner.Plan) -> None:
    validation = planner.validate(plan, paced=False, max_samples=3, calibrate_s=0.5, progress=None).validation
    assert validation.calibration is not None
    assert {worker for worker, factors in validation.calibration.slowness.items() if all(factors)} == {"a", "b"}
    assert validation.numerics.equal


def test_numbers_of_runs_never_meet_those_of_samples(verdict: planner.Verdict) -> None:
    numbers = {
        effect.key.sample
        for steps in verdict.validation.measurement.steps.values()
        for step in steps
        for effect in step.effects
        if effect.kind == "run_block"
    }
    assert min(numbers) >= RUN_STRIDE
