"""The commands and the programs of the README and of the guide work, in the order in which they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ProfileError
from planner.execution.wire.certificates import make_certificates
from planner.execution.wire.zenoh import free_port
from planner.scenario.load import load_instance, load_scenario
from tests.cli.command import parse, planner
from tests.docs.formats_page import RESULT, result_paths
from tests.docs.pages import commands, quick_program, quick_words

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
POLICIES = (ROOT / "docs/policies.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PAGES = [
    page.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "examples/*/README.md", "profiles/README.md", "models/README.md")
    for page in sorted(ROOT.glob(pattern))
]
DEVICE = "192.0.2.7:7447"
_SOME = ("miss_share", "drop_share", "ttft_s", "tpot_s")
MAY_BE_EMPTY = ("faults", "incidents", "host_limits", *(f"sources.NAME.intervals.{figure}" for figure in _SOME))
"""Lists of a result that say what went wrong."""


def program(text: str) -> str:
    """Return the only program of a page."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def run_command(command: str, folder: Path) -> None:
    """Run a command of a page; a validation may end with 1, since delays may be off on a busy machine."""
    words = quick_words(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = planner(*words)
    allowed = {0, 1} if words[0] == "validate" else {0}
    assert ended.returncode in allowed, f"{command}\n{ended.stdout}\n{ended.stderr}"


def run_program(text: str, folder: Path) -> str:
    """Run a program of a page and return what it prints."""
    words = [sys.executable, "-c", quick_program(text)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the examples, some samples, and all that the commands of the README have made."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("examples", "profiles", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "this-machine"))
    (folder / "frames").mkdir()
    for index in range(3):
        np.save(folder / "frames" / f"{index}.npy", np.zeros((3, 224, 224), np.float32))
    for command in commands(README):
        run_command(command, folder)
    return folder


@pytest.fixture
def agents(folder: Path) -> Iterator[str]:
    """Address of one of the agents of the scenario's three workers, on this machine, with certificates."""
    make_certificates(folder / "certs", ["camera-box", "cabinet", "office"], life=timedelta(days=2))
    address = f"127.0.0.1:{free_port()}"
    common = [sys.executable, "-m", "planner", "agent", "--cache", str(folder / "blocks"), "--until-stdin-closes"]
    started = [
        subprocess.Popen(
            [*common, "--name", name, option, address, "--cert-dir", str(folder / "certs" / name)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for name, option in (("camera-box", "--listen"), ("cabinet", "--connect"), ("office", "--connect"))
    ]
    yield address
    for process in started:
        process.communicate(timeout=20)


def test_the_readme_has_the_main_commands() -> None:
    assert [command.split()[1] for command in commands(README)] == [
        "models",
        "profile",
        "solve",
        "simulate",
        "validate",
    ]
    assert len(README.splitlines()) <= 120


def test_the_commands_of_the_readme_work(folder: Path) -> None:
    for made in ("models/mobilenetv2.onnx", "plan.json", "plan.svg", "runs/first/timeline.png"):
        assert (folder / made).is_file(), made
    result = json.loads((folder / "runs/first/result.json").read_text())
    assert (result["lost"], result["failed"]) == (0, 0)
    assert {path for path in RESULT if not path.startswith(MAY_BE_EMPTY)} <= set(result_paths(result)) <= set(RESULT)
    assert result["numerics"]["max_rel_error"] <= 1e-4


def test_the_program_of_the_readme_works(folder: Path) -> None:
    printed = run_program(program(README), folder)
    assert re.search(r"^class \d+ after \d+\.\d{3} s$", printed, flags=re.MULTILINE), printed
    assert "gate-camera" in printed


@pytest.mark.timeout(600)  # about ten commands, each of which may take several times as long on a busy machine
def test_the_commands_and_the_program_of_the_guide_work(folder: Path, agents: str) -> None:
    done = commands(README)
    for command in commands(GUIDE):
        if command not in done:
            run_command(command.replace(DEVICE, agents), folder)
    for made in ("chain.svg", "parts/manifest.json", "front.svg", "results/gate-camera/2.npz"):
        assert (folder / made).is_file(), made
    printed = run_program(program(GUIDE).replace(DEVICE, agents), folder)
    assert re.fullmatch(r"(\d+: class \d+ after \d+\.\d{3} s\n){20}", printed), printed


def test_the_policy_of_the_page_on_policies_works(folder: Path) -> None:
    assert "gate-camera" in run_program(program(POLICIES), folder)


def test_the_scenario_of_the_guide_is_valid_and_names_the_command_that_makes_its_profile(tmp_path: Path) -> None:
    (text,) = re.findall(r"^    profiles: .*\n(?:    .+\n)+", GUIDE, flags=re.MULTILINE)
    path = tmp_path / "scenario.yaml"
    path.write_text(textwrap.dedent(text))
    assert load_scenario(path).sources["door"].priority == 3
    with pytest.raises(ProfileError, match=r"planner profile measure .*detector\.onnx --device-class this-machine"):
        load_instance(path)


def test_type_checkers_may_use_its_annotations() -> None:
    assert resources.files("planner").joinpath("py.typed").is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+(?:-(?:newest|oldest))?)\b(?!\.)", README))))
def test_the_make_commands_of_the_readme_are_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_commands_of_every_page_can_be_read(page: Path) -> None:
    for command in commands((ROOT / page).read_text(encoding="utf-8")):
        assert parse(command) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_links_of_every_page_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link, heading in re.findall(r"\]\((?!\w+:)([^)#]*)#?([^)]*)\)", text):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], link


def test_the_tables_of_packages_are_whole() -> None:
    named = set(re.findall(r"^\| `([\w/]+)/` \|", ARCHITECTURE, flags=re.MULTILINE))
    package = ROOT / "planner"
    there = {init.parent.name for init in package.glob("*/__init__.py")}
    for divided in ("execution", "solvers"):
        there |= {f"{divided}/{init.parent.name}" for init in (package / divided).glob("*/__init__.py")}
    assert named == there


def test_the_import_order_is_the_one_that_is_enforced() -> None:
    (line,) = re.findall(r"^    (cli > .+)$", ARCHITECTURE, flags=re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert line.split(" > ") == contracts[0]["layers"]
