"""What is installed for `make demo` and `make test` is locked, within the bounds that pyproject.toml promises."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
AARCH64 = (ROOT / "tests/aarch64/requirements.txt").read_text(encoding="utf-8")
PYTHONS = [
    found[1]
    for classifier in PROJECT["project"]["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
]


def promised() -> list[Requirement]:
    """Everything that pyproject.toml asks for, but for the project's own extras."""
    project = PROJECT["project"]
    lists = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
        PROJECT["build-system"]["requires"],
    ]
    requirements = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in requirements if requirement.name != project["name"]]


def locked(python: str, lock: str = LOCK) -> dict[str, str]:
    """The version of each package on Linux with a version of Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    versions: dict[str, str] = {}
    for line in lock.splitlines():
        if not line.lstrip().startswith(("#", "--hash")):
            pin = Requirement(line.rstrip(" \\"))
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in versions, f"{pin.name} is locked twice on Python {python}"
                (only,) = pin.specifier
                assert only.operator == "==", line
                versions[canonicalize_name(pin.name)] = only.version
    return versions


def test_all_supported_versions_of_python_are_looked_at() -> None:
    assert PYTHONS[0] == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert len(PYTHONS) >= 4


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_locked_within_its_bounds(python: str) -> None:
    """After a change of dependencies: ``make lock``."""
    versions = locked(python)
    for requirement in promised():
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name = canonicalize_name(requirement.name)
            assert name in versions, f"{name} is not locked for Python {python}"
            assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]} is out of bounds"


def test_every_dependency_has_a_lower_bound() -> None:
    """So that ``make test-oldest`` tests what is promised."""
    for requirement in promised():
        assert [bound.operator for bound in requirement.specifier] == [">="], requirement


@pytest.mark.parametrize("python", ["3.10", "3.11"])
def test_an_agent_on_aarch64_is_locked_within_its_bounds(python: str) -> None:
    versions = locked(python, AARCH64)
    project = PROJECT["project"]
    for requirement in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["cpu"]]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert versions["onnxruntime"] == "1.23.2"


def test_the_locks_name_no_place_to_download_from() -> None:
    assert "://" not in LOCK + AARCH64
    assert not re.search(r"^\s*-", LOCK, flags=re.MULTILINE)
    assert "-index" not in AARCH64
