"""Validated sequences whose blocks are away from home: predicted times and every token, wherever these are fed back."""

from __future__ import annotations

from pathlib import Path

import pytest

import planner
from planner.profiling.store import save_profile
from planner.trace.records import TransferRecord
from planner.validation.document import validation_document
from planner.worker.events import ResultMessage, Send
from tests.validation.test_validation_tokens import AXES, MODEL

SCENARIO = f"""
schema: planner/scenario/v1
profiles: [profiles]
models:
  llama:
    path: {MODEL}
    max_blocks: 4
    axes: {{batch_size: 1, sequence_length: 1, past_sequence_length: 8}}
workers:
  home: {{device_class: here, memory: 1 GiB, speed: 0.05}}
  a: {{device_class: here, memory: 1 GiB, speed: 0.05}}
  b: {{device_class: here, memory: 1 GiB, speed: 0.05}}
networks:
  lan: {{kind: shared, members: [home, a, b], bandwidth: 100 Mbit/s, latency: 15 ms}}
sources:
  likeliest: {{worker: home, models: [llama], rate: 2 /s, samples: 5, decode: {{prompt: 9, max_new: 7, loop: LOOP}}}}
  drawn:
    worker: home
    models: [llama]
    rate: 2 /s
    samples: 5
    decode: {{prompt: 20, max_new: 5, chunk: 8, next: sample, temperature: 1.5, loop: LOOP}}
policy: {{pace: {{slow: 1000}}}}
"""
STEPS = 5 * (6 + 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loops")
    model = planner.load_chain(MODEL, max_blocks=4, axes=AXES)
    save_profile(
        planner.profile(model, device_class="here", rounds=3, progress=None),
        folder / "profiles" / "here" / "model.json",
    )
    return folder


def solved(folder: Path, loop: str, blocks: str) -> planner.Plan:
    (folder / f"{loop}.yaml").write_text(SCENARIO.replace("LOOP", loop), encoding="utf-8")
    pins = {source: dict(enumerate(blocks)) for source in ("likeliest", "drawn")}
    return planner.solve(planner.load_scenario(folder / f"{loop}.yaml"), pins=pins, progress=None)


@pytest.mark.parametrize("blocks", ["aabb", "bbbb"])
def test_a_plan_that_may_choose_leaves_out_the_way_home(folder: Path, blocks: str) -> None:
    plans = {loop: solved(folder, loop, blocks).spec for loop in ("auto", "home", "last")}
    for source in ("likeliest", "drawn"):
        own = {loop: plan.sources[source] for loop, plan in plans.items()}
        assert {loop: it.routes[0].loop for loop, it in own.items()} == {"auto": "last", "home": "home", "last": "last"}
        assert own["auto"] == own["last"]
        saved_s = (own["home"].tpot_s or 0.0) - (own["last"].tpot_s or 0.0)
        assert saved_s == pytest.approx(0.015 * (2 if blocks == "bbbb" else 1), rel=0.1)
    assert "fed back at" in str(solved(folder, "auto", blocks))


@pytest.mark.parametrize("loop", ["home", "last"])
def test_tokens_and_their_ways_are_those_predicted(folder: Path, loop: str) -> None:
    verdict = planner.validate(solved(folder, loop, "aabb"), progress=None)
    validation = verdict.validation
    assert validation.numerics.tokens == 5 * (7 + 5)
    assert (validation.numerics.unequal, validation.failed, validation.lost) == (0, 0, 0)
    document = validation_document(validation, 0.15)
    for source in ("likeliest", "drawn"):
        found = document["sources"][source]
        for which in ("measured", "predicted"):  # a busy host makes it slower, and nothing faster than its ways
            assert found[which]["tpot_s"] > 0.015 * (3 if loop == "home" else 2)
            assert found[which]["ttft_s"] > 0.015 * 3
    begun = [
        effect.message.goes_on
        for steps in validation.measurement.steps.values()
        for effect in (effect for step in steps for effect in step.effects)
        if isinstance(effect, Send) and isinstance(effect.message, ResultMessage)
    ]
    assert sum(begun) == (0 if loop == "home" else STEPS)
    home = [it for it in validation.measurement.records if isinstance(it, TransferRecord) and it.receiver == "home"]
    assert {it.size_bytes for it in home} == {8}
    assert len(home) == 5 * (1 + 3) + STEPS

    def sizes(records: object) -> set[tuple[str, str, int, int]]:
        return {
            (it.sender, it.receiver, it.cut, it.size_bytes)
            for it in records  # type: ignore[attr-defined]
            if isinstance(it, TransferRecord)
        }

    assert sizes(validation.measurement.records) == sizes(validation.predicted)
