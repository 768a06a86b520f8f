"""``planner generate``: tokens and text as prompts, JSON, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import planner as library
from planner.profiling.store import save_profile
from tests.cli.command import planner
from tests.model.decoder_models import EXPECTED, EXPORTS

LLAMA = EXPORTS / "llama-fp32" / "model.onnx"
AXES = {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 8}
CASE = EXPECTED["llama-fp32"][0]
SCENARIO = """
profiles: [profiles]
models:
  llama: {path: MODEL, max_blocks: 2, axes: {batch_size: 1, sequence_length: 1, past_sequence_length: 8}}
workers:
  a: {device_class: here, memory: 1 GiB}
sources:
  chat: {worker: a, models: [llama], rate: 1 /s, samples: 5}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "scenario.yaml").write_text(SCENARIO.replace("MODEL", str(LLAMA)), encoding="utf-8")
    model = library.load_chain(LLAMA, max_blocks=2, axes=AXES)
    profile = library.profile(model, device_class="here", rounds=3, progress=None)
    save_profile(profile, folder / "profiles" / "here" / "model.json")
    return library.solve(folder / "scenario.yaml", progress=None).save(folder / "plan.json")


def test_the_tokens_of_a_prompt(plan: Path) -> None:
    prompt = ",".join(map(str, CASE["prompt"]))
    done = planner("generate", str(plan), "--source", "chat", "--tokens", prompt, "--max-new", "10", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["tokens"] == CASE["tokens"][:10]
    assert (found["source"], found["prompt"], found["restarts"]) == ("chat", CASE["prompt"], 0)
    assert found["ttft_s"] > 0 < found["tpot_s"]


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_text_is_bytes_by_default(plan: Path, stream: list[str]) -> None:
    done = planner("generate", str(plan), "--source", "chat", "--text", "gate", "--max-new", "3", *stream)
    assert done.returncode == 0, done.stderr
    by_tokens = planner("generate", str(plan), "--source", "chat", "--tokens", "103,97,116,101", "--max-new", "3")
    tokens = [int(word) for word in by_tokens.stdout.split(",")]
    assert (
        done.stdout.rstrip("\n").encode()
        == b"".join(bytes([token]) for token in tokens).decode(errors="replace").encode()
    )
    assert done.stderr.startswith("3 tokens, the first after ")


def test_a_text_by_a_tokenizer(plan: Path) -> None:
    pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    file = str(EXPORTS / "llama-fp32" / "tokenizer.json")
    command = (
        "generate",
        str(plan),
        "--source",
        "chat",
        "--text",
        "a b",
        "--tokenizer",
        file,
        "--max-new",
        "2",
        "--json",
    )
    done = planner(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one prompt is needed; expected --tokens LIST or --text TEXT"),
        (("--tokens", "1", "--text", "x"), "one prompt is needed"),
        (("--tokens", "1;2"), "--tokens: not a list of tokens; found '1;2'"),
        (("--tokens", "1,300"), "chat: the prompt has a token outside the vocabulary; found 300; expected 0 to 255"),
        (("--tokens", "1", "--stop", "256"), "chat: the stop has a token outside the vocabulary; found 256"),
        (("--tokens", "1", "--tokenizer", "t.json"), "--tokenizer: nothing to tokenize"),
    ],
)
def test_bad_prompts(plan: Path, words: tuple[str, ...], message: str) -> None:
    done = planner("generate", str(plan), "--source", "chat", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_a_model_without_state_generates_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    scenario = root / "examples" / "exits" / "scenario.yaml"
    plan = library.solve(scenario, method="search", time_limit_s=1.0, progress=None).save(tmp_path / "p.json")
    done = planner("generate", str(plan), "--source", "gate-camera", "--tokens", "1")
    assert done.returncode == 2
    assert "gate-camera: the model keeps no state" in done.stderr


def test_single_samples_of_a_source_of_sequences_are_refused(plan: Path, tmp_path: Path) -> None:
    text = (plan.parent / "scenario.yaml").read_text(encoding="utf-8")
    (plan.parent / "sequences.yaml").write_text(
        text.replace("samples: 5", "samples: 5, decode: {prompt: 3, max_new: 4}"), encoding="utf-8"
    )
    own = library.solve(plan.parent / "sequences.yaml", progress=None).save(plan.parent / "sequences.json")
    done = planner("run", str(own), "--source", f"chat={tmp_path}")
    assert done.returncode == 2
    assert "--source: the source produces sequences of tokens, not single samples; found 'chat'" in done.stderr
    assert "planner generate PLAN --source chat --tokens LIST" in done.stderr
