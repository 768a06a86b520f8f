"""Costs of runs of sequences: the fit of curves, and the measurement of a real decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import PlannerError
from planner.model.decoders import build_decoder
from planner.model.load import load_chain
from planner.profiling.measure import measure
from planner.profiling.sequences import Run, RunCurve, basis, fit_curve, fit_size
from planner.profiling.store import load_profile, save_profile
from planner.profiling.types import Profile
from planner.scenario.decode import DecodeSpec
from planner.scenario.document import document_of
from planner.scenario.load import build_instance
from tests.instances import make_profile, with_sequences

seconds = st.just(0.0) | st.floats(1e-6, 1e-2)
RUNS = [*(Run(length, 0) for length in (2, 4, 8, 32, 128)), Run(4, 10), Run(16, 34), Run(64, 130)]
STEPS = [Run(1, past) for past in (2, 5, 9, 33, 130)]


@given(fixed_s=st.floats(1e-6, 1e-2), token_s=seconds, context_s=seconds, pair_s=seconds)
@settings(max_examples=50, deadline=None)
def test_a_fit_returns_the_curve_that_made_the_times(
    fixed_s: float, token_s: float, context_s: float, pair_s: float
) -> None:
    curve = RunCurve(fixed_s=fixed_s, token_s=token_s, context_s=context_s, pair_s=pair_s)
    times_s = dict(zip(RUNS, (basis(RUNS) @ curve.coefficients).tolist(), strict=True))
    found = fit_curve(times_s)
    others = [Run(3, 0), Run(100, 0), Run(50, 70)]
    assert basis(others) @ found.coefficients == pytest.approx(basis(others) @ curve.coefficients, rel=1e-3)


def test_a_fit_of_noise_has_no_negative_part() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = fit_curve({run: float(rng.uniform(1e-3, 2e-3)) for run in STEPS})
        assert (found.coefficients >= 0).all()
        assert (found.token_s, found.pair_s) == (0.0, 0.0)


def test_sizes_are_exact() -> None:
    found = fit_size({run: 16 + 500 * run.new + 8 * sum(run) for run in [*RUNS, *STEPS]})
    assert (found.fixed_bytes, found.token_bytes, found.context_bytes) == (16, 500, 8)


@given(prompt=st.integers(1, 300), max_new=st.integers(1, 50), chunk=st.none() | st.integers(1, 400))
def test_runs_cover_a_sequence(prompt: int, max_new: int, chunk: int | None) -> None:
    spec = DecodeSpec(prompt=prompt, max_new=max_new, chunk=chunk)
    assert sum(run.new for run in spec.prompt_runs) == prompt
    assert len(spec.steps) == max_new - 1
    seen = 0
    for run in spec.runs:
        assert run.past == seen
        assert 1 <= run.new <= (chunk or prompt)
        seen += run.new
    assert seen == spec.context - 1


def test_the_costs_of_a_real_decoder(tmp_path: Path) -> None:
    path = build_decoder("gpt2-small-cache", tmp_path / "decoder.onnx")
    model = load_chain(path, max_blocks=4, axes={"sequence_length": 1, "past_sequence_length": 8})
    profile = measure(model, device_class="here", rounds=3, budget_s=4.0)
    costs = profile.sequences
    assert costs is not None
    assert (costs.max_context, costs.vocabulary) == (1024, 1000)
    # 3 layers with keys and values of 128 numbers of 4 bytes each
    assert sum(block.state_token_bytes for block in costs.blocks) == 3 * 2 * 128 * 4
    first, last = costs.cuts[0], costs.cuts[-1]
    assert (first.fixed_bytes, first.token_bytes, first.context_bytes) == (16, 16, 8)
    assert (last.fixed_bytes, last.token_bytes, last.context_bytes) == (0, 4000, 0)
    for run in (Run(1, 8), Run(1, 100)):
        computed = 552 + 8 * (run.past - 64)
        assert costs.cut_bytes([run])[0][0] == computed
    long_s, short_s = costs.block_s([Run(64, 0), Run(1, 64)]).sum(axis=1)
    assert long_s > short_s
    save_profile(profile, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == profile
    assert any("Sequences" in str(part) for part in profile.contents())


def test_a_profile_of_an_earlier_version_knows_no_sequences(tmp_path: Path) -> None:
    profile = make_profile()
    save_profile(profile, tmp_path / "profile.json")
    text = (tmp_path / "profile.json").read_text(encoding="utf-8")
    (tmp_path / "profile.json").write_text(text.replace(',\n "sequences": null', ""), encoding="utf-8")
    assert "sequences" not in (tmp_path / "profile.json").read_text(encoding="utf-8")
    assert load_profile(tmp_path / "profile.json") == profile


def test_sequences_of_another_chain_are_refused() -> None:
    short, long = with_sequences(make_profile()), make_profile(block_s=[0.01] * 3)
    with pytest.raises(ValidationError, match="expected 3 and 4"):
        Profile.model_validate({**long.model_dump(), "sequences": short.model_dump()["sequences"]})


@pytest.mark.parametrize(
    ("decode", "decoder", "message"),
    [
        ({"prompt": 100, "max_new": 30}, True, "a sequence is longer than m can take.*130 tokens.*at most 128"),
        (
            {"prompt": 10, "max_new": 5, "stop": [7, 1000]},
            True,
            "stop token outside the vocabulary of m.*1000.*0 to 999",
        ),
        ({"prompt": 10, "max_new": 5}, False, "the profile of m on reference knows no sequences"),
    ],
)
def test_what_a_model_cannot_do_is_said(tmp_path: Path, decode: dict[str, object], *, decoder: bool, message: str) -> None:
    profile = make_profile()
    save_profile(with_sequences(profile, max_context=128) if decoder else profile, tmp_path / "reference" / "m.json")
    scenario = {
        "schema": "planner/scenario/v1",
        "profiles": ["."],
        "models": {"m": {"profile": "m"}},
        "workers": {"desk": {"device_class": "reference", "memory": "1 GiB"}},
        "sources": {"a": {"worker": "desk", "models": ["m"], "rate": "1 /s", "decode": decode}},
    }
    with pytest.raises(PlannerError, match=message):
        build_instance(document_of(scenario), tmp_path)
