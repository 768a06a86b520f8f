"""The documentation: generated pages are today's, names and files that it mentions exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import planner
from tests.docs.cli_page import PAGE, cli_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def test_the_page_of_commands_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == cli_page(), "write it with: python -m tests.docs.cli_page"


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: (\S+)$", (DOCS / "reference/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {f"{module}.{name}" for name, module in planner._MODULES.items() if name != "policies"}
    assert set(listed) == wanted | {"planner.api.policies"}
    assert len(listed) == len(set(listed))


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = text[text.index("\nnav:") :]
    listed = {ROOT / "docs" / name for name in re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)}
    assert listed == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
