"""Chat templates: how the messages of a conversation become the prompt of a model.

A template is Jinja, in ``chat_template.jinja`` or in ``tokenizer_config.json`` beside ``tokenizer.json``, as Hugging
Face's libraries write them; it is rendered as these do, without access to anything but what it is given.

References
----------
Hugging Face, "Writing a chat template", documentation of Transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from planner.errors import UsageError
from planner.execution.session.text import TokenizerCodec
from planner.files import read_bounded

TEMPLATE_FILE: Final = "chat_template.jinja"
CONFIG_FILE: Final = "tokenizer_config.json"
_SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatError(Exception):
    """Messages of which a template makes no prompt."""


class ChatTemplate:
    """A template, and the special tokens that it may name.

    Parameters
    ----------
    text
        The template.
    special
        Special tokens by their name in the template, such as ``bos_token``.
    where
        File of the template, for errors.

    Raises
    ------
    UsageError
        If the template is not one.
    """

    def __init__(self, text: str, special: Mapping[str, str], where: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        environment.filters["tojson"] = _to_json
        self._special = dict(special)
        try:
            self._template = environment.from_string(text)
        except TemplateError as error:
            raise UsageError(f"not a Jinja template ({error})", where=where, expected="a chat template") from error

    @property
    def end(self) -> str | None:
        """The token that ends a message of the model, if the tokenizer has one."""
        return self._special.get("eos_token")

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt after which the model's answer follows.

        Raises
        ------
        ChatError
            If the template refuses the messages.
        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except Exception as error:  # a template may do with messages what fails in any way
            raise ChatError(f"the chat template refuses the messages: {error}") from error


@dataclass(frozen=True)
class Tokenizer:
    """How a source turns text into tokens, and conversations into text.

    Parameters
    ----------
    template
        None where the tokenizer has no chat template.
    """

    codec: TokenizerCodec
    template: ChatTemplate | None = None

    @classmethod
    def read(cls, file: Path, where: str) -> Tokenizer:
        """Return that of a ``tokenizer.json``, with the template beside it.

        Raises
        ------
        UsageError
            If one of these files is not what it should be, or the package ``tokenizers`` is not installed.
        """
        return cls(TokenizerCodec(file, where), template_beside(file, where))


def template_beside(tokenizer: Path, where: str) -> ChatTemplate | None:
    """Return the template in the folder of a ``tokenizer.json``; None without one.

    Raises
    ------
    UsageError
        If a file there is not what it should be.
    """
    config_file, template_file = tokenizer.parent / CONFIG_FILE, tokenizer.parent / TEMPLATE_FILE
    config = _read_object(config_file, where) if config_file.is_file() else {}
    source = template_file if template_file.is_file() else config_file
    text = _read(template_file, where) if template_file.is_file() else _default(config.get("chat_template"))
    if text is None:
        return None
    special = {name: token for name in _SPECIAL if (token := _token(config.get(name))) is not None}
    return ChatTemplate(text, special, f"{where}, {source}")


def _read(path: Path, where: str) -> str:
    try:
        return read_bounded(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read ({error})", where=where, value=str(path), expected="text in UTF-8") from error


def _read_object(path: Path, where: str) -> dict[str, Any]:
    """Return an object of a JSON file; special tokens may be any characters."""
    try:
        document = json.loads(_read(path, where))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON ({error})", where=where, value=str(path), expected="JSON") from error
    if not isinstance(document, dict):
        raise UsageError("not an object", where=where, value=str(path), expected="the configuration of a tokenizer")
    return document


def _default(stated: Any) -> str | None:
    """Return the template of a configuration that has one, or several by name of which one is the default."""
    if isinstance(stated, list):
        named = {entry.get("name"): entry.get("template") for entry in stated if isinstance(entry, dict)}
        stated = named.get("default")
    return stated if isinstance(stated, str) else None


def _token(stated: Any) -> str | None:
    """Return the text of a special token, which may be an object with more of it."""
    content = stated.get("content") if isinstance(stated, dict) else stated
    return content if isinstance(content, str) else None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON as it is: Jinja's own filter makes it safe for HTML, which a prompt is not."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
