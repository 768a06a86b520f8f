"""What is published: a wheel that works in an empty folder, and a source distribution that builds the same wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from planner.api.new import EXAMPLE_NAMES

ROOT = Path(__file__).parents[1]


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a wheel or a source distribution, without network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "planner").is_dir():
        pytest.skip("these are the tests of an installed wheel")
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)

    def run(*words: str) -> str:
        found = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, *words], cwd=work, env=found, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import planner; print(planner.__file__)").strip() == str(site / "planner/__init__.py")
    for example in EXAMPLE_NAMES:
        run("-m", "planner", "new", example, "--from", example)
    solved = run("-m", "planner", "solve", "exits/scenario.yaml", "--method", "two-part", "-o", "plan.json")
    assert "wrote plan.json" in solved
    assert "jetson-nano" in run("-c", "import planner.profiling.device_classes as d; print(*d.known_classes())")


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build("wheel", source, tmp_path / "again")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())
    # Everything that the tests need is there, so they can run against an installed wheel.
    for needed in ("tests/conftest.py", "examples/two-cameras/scenario.yaml", "models/README.md", "Makefile"):
        assert (source / needed).is_file()
