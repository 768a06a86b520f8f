"""What the README tells people to type works, in the order in which it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (planner .+)$", README, flags=re.MULTILINE)


def test_the_readme_has_commands() -> None:
    assert [command.split()[1] for command in COMMANDS] == [
        "models", "inspect", "profile", "solve", "compare", "simulate", "validate", "split",
    ]  # fmt: skip


def test_its_commands_work_one_after_the_other(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command in COMMANDS:
        words = [sys.executable, "-m", *shlex.split(command)]
        found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240)
        # On a busy machine delays may be off, and then a validation ends with 1; what must hold is asked below.
        allowed = {0, 1} if "validate" in words else {0}
        assert found.returncode in allowed, f"{command}\n{found.stdout}\n{found.stderr}"
    for made in ("chain.svg", "plan.json", "runs/first/timeline.png", "parts/manifest.json"):
        assert (tmp_path / made).is_file(), made
    result = json.loads((tmp_path / "runs/first/result.json").read_text())
    assert (result["lost"], result["failed"]) == (0, 0)
    assert result["numerics"]["max_rel_error"] <= 1e-4


@pytest.mark.parametrize("target", ["demo", "test"])
def test_its_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_its_table_of_packages_is_whole() -> None:
    named = set(re.findall(r"^\| `(\w+)/` \|", README, flags=re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "planner").glob("*/__init__.py")}
    assert named == there - {"cli"}
