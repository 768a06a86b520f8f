"""What an agent's process loads: a Jetson has neither solvers nor onnx."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import planner
from planner.cli import EXTRAS

HEAVY = ("pyomo", "highspy", "cvxpy", "onnx", "matplotlib", "pint", "joblib", "ruamel")
LIBRARIES = (*HEAVY, "numpy", "scipy", "pydantic", "typer", "rich", "zenoh", "onnxruntime")
HELP = """
from planner.cli import main
try:
    main(["agent", "--help"])
except SystemExit as end:
    assert not end.code
"""


def loaded_by(code: str) -> set[str]:
    """Top-level modules in ``sys.modules`` after running ``code`` in a fresh process."""
    show = "\nimport sys\nprint('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    finished = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(finished.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "code",
    ["import planner", "import planner.execution.agent.agent, planner.execution.wire.zenoh", HELP],
    ids=["import planner", "agent", "planner agent --help"],
)
def test_an_agent_loads_nothing_heavy(code: str) -> None:
    loaded = loaded_by(code)
    assert "planner" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_check_can_fail() -> None:
    assert "joblib" in loaded_by("import planner.scenario.paths as p, joblib")


def test_the_package_itself_loads_no_library() -> None:
    assert loaded_by("import planner; dir(planner)").isdisjoint(LIBRARIES)
    assert "numpy" in loaded_by("import planner; planner.simulate")


def test_public_names_are_there() -> None:
    for name in dir(planner):
        assert getattr(planner, name).__name__ in {name, f"planner.api.{name}"}
    with pytest.raises(AttributeError, match="no attribute 'solver'"):
        _ = planner.solver


def test_public_names_have_a_docstring_and_are_typed() -> None:
    assert sorted(planner.__all__) == dir(planner)
    for name in dir(planner):
        assert (getattr(planner, name).__doc__ or "").strip(), name


def test_the_base_install_has_all_names_and_their_help() -> None:
    """Only what is called needs an extra: names can be listed, looked up and read about without."""
    code = f"""
import sys
from importlib import metadata
sys.modules.update(dict.fromkeys({tuple(EXTRAS)}))  # none of them can be imported
import planner
print(*(name for name in dir(planner) if getattr(planner, name)))
help(planner)
try:
    planner.load_chain("model.onnx")
except ModuleNotFoundError as error:
    print(error)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, _, told = finished.stdout.partition("\n")
    assert names.split() == dir(planner)
    assert all(f"{name}(" in told for name in names.split() if name != "policies")
    assert "onnx" in told.splitlines()[-1]


def test_the_version_is_there() -> None:
    assert planner.__version__ == metadata.version("mdi-planner")
