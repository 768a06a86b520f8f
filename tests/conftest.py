"""Settings of all tests, and what must hold after each: nothing that it started is left."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports numpy. Several processes run tests, so threads for small matrices only take turns; it is also
# set in the processes that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

import planner  # noqa: F401 - before any test imports onnxruntime, which decides then what it sends
from tests.examples import SEARCHING

# A busy machine is no failure, and a run is repeatable; `make nightly` looks for new examples.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40)
settings.register_profile(SEARCHING, deadline=None)
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeatable")
settings.load_profile(_PROFILE)
if _PROFILE != SEARCHING:
    # Hypothesis also draws numbers that stand in modules imported so far, and which those are depends on other tests.
    setattr(providers, "_get_local_constants", lambda: getattr(providers, "_local_constants"))  # noqa: B009, B010

# A shell that runs the tests in the background has Ctrl-C ignored, by them and all they start; some test what it does.
signal.signal(signal.SIGINT, signal.default_int_handler)

_GRACE_S = 20.0
"""How long what was told to end may take, on a busy machine."""

_WITH_AGENTS = (
    "execution",
    "serve",
    "validation",
    "api/test_api_execution.py",
    "cli/test_cli_agent.py",
    "cli/test_cli_demo.py",
    "cli/test_cli_generate.py",
    "cli/test_cli_live.py",
    "cli/test_cli_run.py",
    "cli/test_cli_validate.py",
    "test_example_changing.py",
    "test_example_exits.py",
    "test_example_notebook.py",
    "test_example_tokens.py",
    "test_readme.py",
)
"""What runs agents or whole examples."""

_SLOW = (
    "campaign",
    "fuzz",
    "protocol",
    "solvers",
    "api/test_api_plan.py",
    "cli/test_cli_compare.py",
    "cli/test_cli_extras.py",
    "cli/test_cli_json.py",
    "cli/test_cli_simulate.py",
    "cli/test_cli_solve.py",
    "docs",
    "interchange",
    "simulation/test_simulation_invariants.py",
    "simulation/test_simulation_theory.py",
    "test_cluster.py",
    "test_example_ms_mdi.py",
    "test_example_pa_mdi.py",
    "test_example_random.py",
    "test_example_sizing.py",
    "test_lazy_imports.py",
    "test_packaging.py",
    "test_silent.py",
)
"""What starts processes in almost all of its tests, or searches for long. Single tests have the marker themselves."""

_MARKED = {"agents": _WITH_AGENTS, "slow": _SLOW}

_FIRST = (
    "cli/test_cli_demo.py",
    "docs/test_docs_commands.py",
    "test_readme.py",
    "execution/test_execution_apply.py",
    "execution/test_execution_faults.py",
    "solvers/test_solvers_dominance.py",
    "solvers/test_solvers_memory.py",
    "serve/test_serve_service.py",
    "validation/test_validation_late.py",
    "test_example_random.py",
    "test_example_changing.py",
    "cli/test_cli_profile.py",
    "validation/test_validation_tokens.py",
    "execution/test_execution_generate.py",
    "execution/test_execution_namesakes.py",
    "serve/test_serve_completions.py",
    "validation/test_validation_exits.py",
    "test_example_tokens.py",
    "test_example_notebook.py",
    "test_example_ms_mdi.py",
)
"""What takes longest, so that no process is left alone with it at the end."""

_LASTING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Python's own helpers, which it ends with the process."""

_SOLVERS = "planner.solvers.replan.solver_process"
"""It keeps a process for its next user."""


def pytest_configure(config: pytest.Config) -> None:
    """Fail a test that leaves files or processes to the garbage collector, or whose thread dies of an error."""
    for warning in (
        "ResourceWarning",
        "pytest.PytestUnraisableExceptionWarning",
        "pytest.PytestUnhandledThreadExceptionWarning",
    ):
        config.addinivalue_line("filterwarnings", f"error::{warning}")
    if "not slow" in config.option.markexpr and config.getoption("dist", "no") == "no":  # else workers run the tests
        sys.addaudithook(_refuse_processes)


def _refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test of `make test-fast` that starts Python."""
    if event == "subprocess.Popen" and sys.executable in (arguments[0], *arguments[1][:1]):
        raise RuntimeError("a test that starts a process has the marker slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file all of whose tests are left out: in `make test-fast` these are most of them."""
    wanted = config.option.markexpr.split(" and ")
    return True if any(f"not {marker}" in wanted for marker in _markers(collection_path)) else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that run agents, and those that `make test-fast` leaves out."""
    for marker in _markers(item.path):
        item.add_marker(marker)


def _markers(path: Path) -> list[str]:
    """Return the markers of all tests of a file or folder."""
    place = path.relative_to(Path(__file__).parent)
    return [
        marker for marker, places in _MARKED.items() if place.as_posix() in places or {*place.parts[:1]} & {*places}
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; each stays whole, and the others in their order."""
    folder = Path(__file__).parent
    place = {folder / name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """Leave what all modules and tests have made so far out of later collections of garbage, which it makes long."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail a test that leaves threads of ours; what fixtures of a wider scope hold was there before."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + _GRACE_S
    left = [thread for thread in threading.enumerate() if thread not in before and _is_ours(thread)]
    for thread in left:
        thread.join(max(deadline_s - time.monotonic(), 0.0))
    if names := [repr(thread.name) for thread in left if thread.is_alive()]:
        pytest.fail(f"threads left behind: {', '.join(names)}")


@pytest.fixture(autouse=True)
def signals_are_handled_as_before() -> Iterator[None]:
    """Fail a test after which Ctrl-C, or a request to end, does something else than before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fail a module that leaves processes; a single test may leave one to a fixture that is the module's."""
    before = _children().keys()
    yield
    deadline_s = time.monotonic() + _GRACE_S
    while (left := {number: how for number, how in _children().items() if number not in before}) and (
        time.monotonic() < deadline_s
    ):
        time.sleep(0.02)
    if left:
        pytest.fail(f"processes left behind: {'; '.join(f'{number} {how}' for number, how in left.items())}")


def _is_ours(thread: threading.Thread) -> bool:
    """Tell whether a thread runs this project's code, or keeps the process from ending."""
    module = getattr(getattr(thread, "_target", None), "__module__", None) or ""
    return not thread.daemon or module.partition(".")[0] in {"planner", "tests"}


def _children() -> dict[int, str]:
    """Give the processes that this one has started and not awaited, with their commands."""
    numbers = {int(one) for path in Path("/proc/self/task").glob("*/children") for one in _read(path).split()}
    if _SOLVERS in sys.modules and (spare := sys.modules[_SOLVERS].spare_process()):
        numbers -= {spare.pid}
    found = {number: _read(Path(f"/proc/{number}/cmdline")).replace("\0", " ") for number in numbers}
    return {number: command for number, command in found.items() if not any(own in command for own in _LASTING)}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""
