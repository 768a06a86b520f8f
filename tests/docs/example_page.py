"""The page with a complete scenario, made from its file: ``python -m tests.docs.example_page``."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Final

from planner.files import write_text_atomic

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/reference/scenario-example.md"
SCENARIO: Final = ROOT / "examples/annotated/scenario.yaml"

_HEAD: Final = """# A complete scenario

[`examples/annotated/scenario.yaml`](../../examples/annotated/scenario.yaml) uses every key of a scenario file, and
can be solved:

    planner solve examples/annotated/scenario.yaml --time-limit 10s

A test fails if a key is missing. Keys that this model has no use for are comments. Types, units and
defaults are in the [reference](../scenario.md).

"""


def example_page() -> str:
    """Return the page as Markdown."""
    return _HEAD + indent(SCENARIO.read_text(encoding="utf-8"), "    ")


def main() -> None:
    """Write the page."""
    write_text_atomic(PAGE, example_page())


if __name__ == "__main__":
    main()
