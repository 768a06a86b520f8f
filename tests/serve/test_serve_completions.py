"""Completions of a decoder by a service, asked for by OpenAI's own client; and plans that the service is given."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import openai
import pytest
from tokenizers import Tokenizer

import planner
from planner.api.applying import apply_at
from planner.api.scenario import refuse_paths_outside
from planner.errors import ScenarioError, UsageError
from planner.profiling.store import save_profile
from tests.model.decoder_models import EXPECTED, EXPORTS

LLAMA = EXPORTS / "llama-fp32" / "model.onnx"
AXES = {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 8}
CASES = EXPECTED["llama-fp32"]
SCENARIO = """
schema: planner/scenario/v1
profiles: [profiles]
models:
  llama: {path: MODEL, max_blocks: 4, axes: {batch_size: 1, sequence_length: 1, past_sequence_length: 8}}
workers:
  a: {device_class: here, memory: 1 GiB}
  b: {device_class: here, memory: 1 GiB}
networks:
  lan: {kind: shared, members: [a, b], bandwidth: 100 Mbit/s, latency: 1 ms}
sources:
  chat: {worker: a, models: [llama], rate: 1 /s, samples: 5}
"""
TEMPLATE = """\
{{- bos_token }}
{%- if messages[-1].role != "user" %}
    {{- raise_exception("no question") }}
{%- endif %}
{%- for message in messages %}
    {{- message.role + ":" + message.content + "\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "assistant:" }}
{%- endif %}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completions")
    (folder / "scenario.yaml").write_text(SCENARIO.replace("MODEL", str(LLAMA)), encoding="utf-8")
    model = planner.load_chain(LLAMA, max_blocks=4, axes=AXES)
    save_profile(
        planner.profile(model, device_class="here", rounds=3, progress=None), folder / "profiles/here/model.json"
    )
    over_both = {"chat": {0: "a", 1: "a", 2: "b", 3: "b"}}
    planner.solve(folder / "scenario.yaml", method="milp", pins=over_both, progress=None).save(folder / "plan.json")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[planner.Service]:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((EXPORTS / "llama-fp32" / name).read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizers = {"chat": folder / "tokenizer.json"}
    with planner.Service(folder / "plan.json", listen="127.0.0.1:0", tokenizers=tokenizers) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: planner.Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def text_of(tokens: list[int]) -> str:
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    return str(tokenizers.Tokenizer.from_file(str(EXPORTS / "llama-fp32" / "tokenizer.json")).decode(tokens))


def test_models_that_generate_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["chat"]


def test_a_completion_has_the_right_tokens(client: openai.OpenAI) -> None:
    for case in CASES:
        found = client.completions.create(
            model="chat", prompt=list(case["prompt"]), max_tokens=len(case["tokens"]), temperature=0
        )
        assert found.choices[0].text == text_of(list(case["tokens"]))
        assert found.choices[0].finish_reason == "length"
        assert found.usage is not None
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(case["prompt"]), len(case["tokens"]))


def test_a_streamed_completion_is_the_same(client: openai.OpenAI) -> None:
    case = CASES[0]
    options: dict[str, Any] = {"model": "chat", "prompt": list(case["prompt"]), "max_tokens": 12, "temperature": 0}
    events = [*client.completions.create(**options, stream=True)]
    assert "".join(event.choices[0].text for event in events) == text_of(list(case["tokens"][:12]))
    assert [event.choices[0].finish_reason for event in events if event.choices[0].finish_reason] == ["length"]
    assert len({event.id for event in events}) == 1


def test_a_completion_ends_at_a_stop(client: openai.OpenAI) -> None:
    case = CASES[0]
    whole = text_of(list(case["tokens"]))
    stop = whole[5:8]
    options: dict[str, Any] = {"model": "chat", "prompt": list(case["prompt"]), "max_tokens": 24, "temperature": 0}
    found = client.completions.create(**options, stop=stop)
    assert (found.choices[0].text, found.choices[0].finish_reason) == (whole[: whole.index(stop)], "stop")
    events = client.completions.create(**options, stop=[stop, "never"], stream=True)
    assert "".join(event.choices[0].text for event in events) == whole[: whole.index(stop)]


def test_drawn_tokens_follow_their_seed(client: openai.OpenAI) -> None:
    texts = [
        client.completions.create(model="chat", prompt="a", max_tokens=8, seed=seed).choices[0].text
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_what_a_request_does_not_say_is_as_the_protocol_has_it(client: openai.OpenAI) -> None:
    found = client.completions.create(model="chat", prompt="a")
    assert found.usage is not None
    assert found.usage.completion_tokens == 16
    explicit = client.completions.create(model="chat", prompt="a", max_tokens=16, temperature=1.0)
    likeliest = client.completions.create(model="chat", prompt="a", max_tokens=16, temperature=0.0)
    assert found.choices[0].text == explicit.choices[0].text != likeliest.choices[0].text


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "camera"}, openai.NotFoundError, "no such model; found 'camera'; expected one of chat"),
        ({"prompt": [5, 256]}, openai.BadRequestError, "the prompt has a token outside the vocabulary; found 256"),
        ({"prompt": []}, openai.BadRequestError, "a prompt needs a token"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"n": 2}, openai.BadRequestError, "n:"),
        ({"logprobs": 5}, openai.BadRequestError, "logprobs"),
    ],
)
def test_what_is_refused(
    client: openai.OpenAI, options: dict[str, Any], kind: type[openai.APIStatusError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        client.completions.create(**{"model": "chat", "prompt": [5], **options})
    assert message in caught.value.message


def test_an_answer_follows_the_conversation_as_its_template_has_it(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "c"}]},
    ]
    options: dict[str, Any] = {"max_completion_tokens": 6, "temperature": 0}
    found = client.chat.completions.create(model="chat", messages=messages, **options)
    tokenizer = Tokenizer.from_file(str(EXPORTS / "llama-fp32" / "tokenizer.json"))
    prompt = tokenizer.encode("\x01system:b\nuser:ac\nassistant:", add_special_tokens=False).ids
    expected = client.completions.create(model="chat", prompt=prompt, max_tokens=6, temperature=0)
    assert found.choices[0].message.content == expected.choices[0].text
    assert (found.choices[0].message.role, found.choices[0].finish_reason) == ("assistant", "length")
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(prompt)
    events = [
        *client.chat.completions.create(
            model="chat", messages=messages, stream=True, stream_options={"include_usage": True}, **options
        )
    ]
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in events[:-1]) == expected.choices[0].text
    assert [event.choices[0].finish_reason for event in events[:-1] if event.choices[0].finish_reason] == ["length"]
    assert events[-1].usage == found.usage


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "assistant", "content": "a"}], "the chat template refuses the messages: no question"),
        ([], "messages"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "image_url"),
    ],
)
def test_what_is_no_conversation_is_refused(client: openai.OpenAI, messages: list[Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=messages)
    assert message in caught.value.message


def test_a_tokenizer_without_a_template_answers_no_chats(folder: Path) -> None:
    plain = {"chat": EXPORTS / "llama-fp32" / "tokenizer.json"}
    with (
        planner.Service(folder / "plan.json", listen="127.0.0.1:0", tokenizers=plain) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as asking,
        pytest.raises(openai.APIStatusError, match=r"chat has no chat template; use /v1/completions") as caught,
    ):
        asking.chat.completions.create(model="chat", messages=[{"role": "user", "content": "a"}])
    assert caught.value.status_code == 501


def test_the_page_is_that_of_reports(service: planner.Service) -> None:
    with urllib.request.urlopen(f"{service.url}/", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"<!doctype html>" in answer.read(200).lower()


def test_a_service_follows_another_scenario(folder: Path) -> None:
    scenario = (folder / "scenario.yaml").read_text(encoding="utf-8")
    (folder / "more.yaml").write_text(
        scenario + "  digest: {worker: b, models: [llama], rate: 1 /s, samples: 5, decode: {prompt: 8, max_new: 6}}\n",
        encoding="utf-8",
    )
    tokens = list(CASES[1]["tokens"][:8])
    with (
        planner.Service(folder / "plan.json", listen="127.0.0.1:0") as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        assert apply_at(service.url, folder / "more.yaml")
        assert [model.id for model in client.models.list()] == ["chat", "digest"]
        for source in ("chat", "digest"):
            found = client.completions.create(
                model=source, prompt=list(CASES[1]["prompt"]), max_tokens=8, temperature=0
            )
            assert found.choices[0].text == bytes(tokens).decode(errors="replace")
        as_in_scenario = client.completions.create(model="digest", prompt=list(CASES[1]["prompt"]))
        assert as_in_scenario.choices[0].text == bytes(tokens[:6]).decode(errors="replace")
        with urllib.request.urlopen(f"{service.url}/state", timeout=60) as answer:
            state = json.load(answer)
        assert set(state["sources"]) == {"chat", "digest"}
        assert state["changes"]
        apply_at(service.url, folder / "plan.json")
        assert [model.id for model in client.models.list()] == ["chat"]


JSON = {"Content-Type": "application/json"}


def status_of_apply(service: planner.Service, folder: Path, headers: dict[str, str], **scenario: object) -> int:
    """Return the status with which a service answers a request to change it, which changes nothing."""
    document = planner.load_scenario(folder / "scenario.yaml").to_dict() | scenario
    body = json.dumps({"scenario": document, "dry_run": True}).encode()
    request = urllib.request.Request(f"{service.url}/apply", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def test_who_may_change_a_service_is_up_to_it(folder: Path) -> None:
    outside = {"models": {"llama": {"path": "/etc/model.onnx"}}}
    with planner.Service(folder / "plan.json", listen="127.0.0.1:0") as local:
        assert status_of_apply(local, folder, JSON) == 200
        assert status_of_apply(local, folder, JSON | {"Origin": local.url}) == 403
        assert status_of_apply(local, folder, JSON | {"Host": "page.example"}) == 403
        assert status_of_apply(local, folder, {"Content-Type": "text/plain"}) == 415
        for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP"):
            assert status_of_apply(local, folder, JSON | {name: "127.0.0.1"}) == 403
    with planner.Service(folder / "plan.json", listen="127.0.0.1:0", appliers="anyone") as anyone:
        assert status_of_apply(anyone, folder, JSON | {"X-Forwarded-For": "192.0.2.7"}) == 200
        assert status_of_apply(anyone, folder, JSON | {"Origin": "http://page.example"}) == 403
        assert status_of_apply(anyone, folder, JSON, **outside) == 400
    with planner.Service(folder / "plan.json", listen="127.0.0.1:0", appliers="none") as closed:
        assert status_of_apply(closed, folder, JSON) == 403
    with pytest.raises(UsageError, match=r"local \| anyone \| none"):
        planner.Service(folder / "plan.json", appliers="friends")


def test_a_scenario_from_elsewhere_names_files_of_the_service_only(folder: Path) -> None:
    known = planner.load_scenario(folder / "scenario.yaml")
    (folder / "link").symlink_to("/etc")
    for path, allowed in (
        ("other.onnx", True), ("deep/../other.onnx", True), (str(LLAMA), True), ("../other.onnx", False),
        ("/etc/passwd", False), ("deep/../../other.onnx", False), ("link", False), ("link/passwd", False),
    ):  # fmt: skip
        data = known.to_dict()
        data["models"]["more"] = {"path": path}
        for document in (data, {**known.to_dict(), "profiles": [path]}):
            with nullcontext() if allowed else pytest.raises(ScenarioError, match="outside the folder"):
                refuse_paths_outside(document, known)
    refuse_paths_outside(known.to_dict(), known)
