"""Chat templates as Hugging Face's libraries write and render them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import UsageError
from planner.serve.chat_template import ChatError, ChatTemplate, template_beside

MESSAGES = [{"role": "user", "content": "How <much>?"}, {"role": "assistant", "content": "Enough."}]
CHATML = """\
{% for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def beside(folder: Path, config: Any = None, template: str | None = None) -> ChatTemplate | None:
    if config is not None:
        (folder / "tokenizer_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return template_beside(folder / "tokenizer.json", "tokenizers.chat")


def test_blocks_leave_no_space_and_nothing_is_escaped() -> None:
    expected = (
        "<|im_start|>user\nHow <much>?<|im_end|>\n<|im_start|>assistant\nEnough.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate(CHATML, {}, "here").prompt(MESSAGES) == expected


def test_what_templates_use_is_there() -> None:
    first = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    prompt = ChatTemplate(first + "{{ strftime_now('%Y') | length }}", {}, "here").prompt(MESSAGES)
    assert prompt == '{"role": "user", "content": "How <much>?"}4'


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 // 0 }}",
        "{{ messages[9].content.strip() }}",
    ],
)
def test_a_template_reaches_and_changes_nothing_else(template: str) -> None:
    with pytest.raises(ChatError, match="the chat template refuses the messages"):
        ChatTemplate(template, {}, "here").prompt(MESSAGES)


def test_it_stands_in_either_file(tmp_path: Path) -> None:
    assert beside(tmp_path) is None
    assert beside(tmp_path, {"eos_token": "</s>"}) is None
    special = {"eos_token": {"content": "</s>", "special": True}, "bos_token": "<s>", "model_max_length": 10**30}
    one = beside(tmp_path, {**special, "chat_template": "{{ bos_token }}one"})
    assert one is not None
    assert (one.prompt(MESSAGES), one.end) == ("<s>one", "</s>")
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}]
    two = beside(tmp_path, {**special, "chat_template": named})
    assert two is not None
    assert two.prompt(MESSAGES) == "two"
    three = beside(tmp_path, template="three{{ eos_token }}")
    assert three is not None
    assert three.prompt(MESSAGES) == "three</s>"


@pytest.mark.parametrize(
    ("config", "template", "message"),
    [
        ("{", None, "not JSON"),
        ("[]", None, "not an object"),
        (None, "{% for %}", "not a Jinja template"),
        ({"chat_template": "{{ a b }}"}, None, "not a Jinja template"),
    ],
)
def test_files_that_are_no_templates_are_named(tmp_path: Path, config: Any, template: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        beside(tmp_path, config, template)
    assert str(tmp_path) in str(caught.value)
