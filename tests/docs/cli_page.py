"""The page of all commands and options, made from the commands: ``python -m tests.docs.cli_page``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from planner.cli import COMMANDS, _build
from planner.files import write_text_atomic

PAGE: Final = Path(__file__).parents[2] / "docs/reference/cli.md"

_HEAD: Final = """# Command line

Commands are listed in the order of a typical workflow. `planner COMMAND --help` shows the same. With `--json`, a
command prints JSON alone on stdout; messages go to stderr.

| exit code | meaning |
| --- | --- |
| 0 | success |
| 1 | the answer is no: no plan was found, or a check failed |
| 2 | invalid input, one message per error |
| 130 | interrupted |

`planner --install-completion` sets up the completion of commands and options in bash, zsh or fish. `planner --debug
COMMAND` shows tracebacks of errors.
"""


def cli_page() -> str:
    """Return the page as Markdown."""
    root: Any = get_command(_build([]))
    parts = [_HEAD]
    for name in COMMANDS:
        parts += _sections(f"planner {name}", root.commands[name], 2)
    return "\n".join(parts)


def _sections(name: str, command: Any, level: int) -> Iterator[str]:
    """Yield the section of a command, then those of its sub-commands."""
    yield f"{'#' * level} `{name}`\n"
    yield _paragraphs(command.help or "")
    yield from _table("argument", [item for item in command.params if not item.opts[0].startswith("-")])
    yield from _table("option", [item for item in command.params if item.opts[0].startswith("-")])
    lines = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("planner ")]
    if lines:
        yield "".join(f"    {line}\n" for line in lines)
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _sections(f"{name} {inner}", subcommand, level + 1)


def _paragraphs(text: str) -> str:
    """Return the text of a docstring with one line for each paragraph."""
    return (
        "".join(f"{' '.join(paragraph.split())}\n\n" for paragraph in text.replace("\b", "").split("\n\n")).rstrip("\n")
        + "\n"
    )


def _table(kind: str, items: list[Any]) -> Iterator[str]:
    items = [item for item in items if item.name != "help"]
    if items:
        rows = [f"| {kind} | default | meaning |", "| --- | --- | --- |"]
        rows += [f"| {_spelling(item)} | {_default(item)} | {_cell(item.help or '')} |" for item in items]
        yield "\n".join(rows) + "\n"


def _spelling(item: Any) -> str:
    if not item.opts[0].startswith("-"):
        return f"`{(item.metavar or item.name).upper()}`"
    words = ", ".join(f"`{word}`" for word in [*item.opts, *item.secondary_opts])
    return words if getattr(item, "is_flag", False) else f"{words} `{item.metavar}`" if item.metavar else words


def _default(item: Any) -> str:
    if item.required:
        return "required"
    if isinstance(item.show_default, str):
        return item.show_default
    if item.default in {None, False, ""} or callable(item.default) or getattr(item, "is_flag", False):
        return ""
    return f"`{item.default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def main() -> None:
    """Write the page."""
    write_text_atomic(PAGE, cli_page())


if __name__ == "__main__":
    main()
