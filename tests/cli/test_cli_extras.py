"""A command of which libraries are missing says once how to install all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from planner.cli import COMMANDS, EXTRAS, NEEDS
from planner.version import installation

SOLVERS = ("pyomo", "highspy", "cvxpy", "joblib", "pint", "ruamel")


@pytest.mark.parametrize(
    ("command", "absent", "extras"),
    [
        (("solve", "examples/exits/scenario.yaml"), SOLVERS, "plan"),
        (("solve", "examples/exits/scenario.yaml"), ("ruamel", "matplotlib"), "plan"),
        (("demo", "-o", "FOLDER"), tuple(EXTRAS), "cpu,model,plan,report"),
        (("demo", "-o", "FOLDER"), ("onnx", "onnxruntime"), "cpu,model"),
        (("certs", "FOLDER", "a"), ("cryptography", "onnx"), "certs"),
    ],
)
def test_all_that_is_missing_is_told_at_once(
    tmp_path: Path, command: tuple[str, ...], absent: tuple[str, ...], extras: str
) -> None:
    words = [str(tmp_path) if word == "FOLDER" else word for word in command]
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); from planner.cli import main; main({words})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 2, finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("planner: error: ")]
    assert "this command requires " in line
    assert f"[{extras}]" in line


def test_it_is_installed_from_the_checkout_if_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert installation("cpu", "plan") == '`pip install ".[cpu,plan]"`'
    monkeypatch.setattr("planner.version.__file__", str(tmp_path / "site/planner/version.py"))
    assert installation("plan") == '`pip install "WHEEL[plan]"` with the wheel of planner'


def test_needs_are_of_commands_and_extras_that_exist() -> None:
    assert set(NEEDS) <= set(COMMANDS)
    assert {extra for needed in NEEDS.values() for extra in needed} <= set(EXTRAS.values())
