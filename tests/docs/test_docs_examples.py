"""What the documentation shows is what happens: examples in docstrings, programs, messages."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from functools import cache
from pathlib import Path

import pytest

import planner

ROOT = Path(__file__).parents[2]
PACKAGE = Path(planner.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
PROGRAMS = [
    (page.relative_to(ROOT), program)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for program in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
TROUBLE = [ROOT / "docs/guides/troubleshooting.md", ROOT / "docs/start/own-model.md"]
MESSAGES = [
    message
    for page in TROUBLE
    for message in re.findall(r"^\| `([^`]+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
]


def test_there_are_examples_messages_and_programs() -> None:
    assert len(MODULES) > 5
    assert len(MESSAGES) > 40
    assert PROGRAMS


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0, f"python -m doctest -v {name.replace('.', '/')}.py"


@pytest.mark.parametrize(("page", "program"), PROGRAMS, ids=lambda value: str(value) if isinstance(value, Path) else "")
def test_the_programs_of_every_page_can_be_compiled(page: Path, program: str) -> None:
    compile(program, str(page), "exec")


@pytest.mark.parametrize("message", MESSAGES)
def test_the_messages_of_the_page_on_troubles_are_those_of_the_code(message: str) -> None:
    texts = _texts()
    for part in filter(None, (part.strip(" .") for part in message.split("…"))):
        assert part in texts, part


@cache
def _texts() -> str:
    """Return all texts in the code, a line each; what an f-string inserts is left out."""
    texts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)
