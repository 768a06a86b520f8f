"""The documentation: generated pages are today's, names and files that it mentions exist."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from ruamel.yaml import YAML

import planner
from planner.scenario.load import load_instance
from planner.scenario.reference import keys_of
from tests.docs import cli_page, example_page, formats_page, worker_page, worker_states

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

DECODE = {"sources.decode", *(f"sources.decode.{key.name}" for key in keys_of("sources.decode"))}
BATCHES = {f"{section}.{key}" for section in ("sources", "workers") for key in ("max_batch", "max_batch_wait")}
COMMENTS = {"models.axes", "models.layer_assignment", "models.state", *DECODE, *BATCHES}
"""Keys that the annotated scenario shows as comments only: its model has no state, named axes or layers, but exits."""


@pytest.mark.parametrize(
    ("path", "made"),
    [
        (cli_page.PAGE, cli_page.cli_page),
        (formats_page.PAGE, formats_page.formats_page),
        (example_page.PAGE, example_page.example_page),
        (worker_page.PAGE, worker_page.worker_page),
        (worker_page.PICTURE, worker_page.worker_picture),
        (worker_page.STATES, worker_states.states_picture),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_generated_pages_are_up_to_date(path: Path, made: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == made(), "write it with: make golden"


def test_the_annotated_scenario_can_be_loaded_and_uses_every_key() -> None:
    load_instance(example_page.SCENARIO)
    document = YAML(typ="safe").load(example_page.SCENARIO.read_text(encoding="utf-8"))
    assert set(_schema_keys()) - set(_keys(document, "")) == COMMENTS


def _schema_keys(section: str = "") -> Iterator[str]:
    """Yield each key of a scenario file, as ``section.key``."""
    for key in keys_of(section):
        path = f"{section}.{key.name}".lstrip(".")
        yield path
        if "keys below" in key.type:
            yield from _schema_keys(path)


def _keys(value: object, section: str) -> Iterator[str]:
    """Yield the keys of a scenario file likewise, without the names of workers, sources and so on."""
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        if section in {"models", "workers", "networks", "sources"}:
            for inner in entry.values():
                for key, below in inner.items():
                    yield f"{section}.{key}"
                    yield from _keys(below, f"{section}.{key}")
            continue
        for key, below in entry.items():
            path = f"{section}.{key}".lstrip(".")
            yield path
            yield from _keys(below, path)


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


def test_equations_become_mathml_and_dollars_in_code_stay() -> None:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    for path in PAGES:
        page, text = SimpleNamespace(meta={}), path.read_text(encoding="utf-8")
        markdown = hooks.on_page_markdown(text, page=page)
        for equation in page.meta["equations"]:
            assert ElementTree.fromstring(equation).tag.endswith("math")  # noqa: S314 - our own
            assert "\\" not in equation, equation  # a command that is not known stays as it is
        outside_code = re.sub(r"^```.*?^```$|^ {4}.*?$|`[^`\n]+`", "", markdown, flags=re.MULTILINE | re.DOTALL)
        assert "$$" not in outside_code, path
        assert not re.search(r"\$.+\$", outside_code), path
        assert hooks.on_page_content(markdown, page=page).count("<math") == len(page.meta["equations"])
        assert bool(page.meta["equations"]) == (path.name == "program.md")
