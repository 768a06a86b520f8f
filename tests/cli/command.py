"""The ``planner`` command, within this process or as one of its own; and scripts of the examples."""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn, TextIO

import pytest
from typer.main import get_command

from planner.cli import _build, main
from planner.errors import PlannerWarning


def planner(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``planner`` with these words and give exit code, stdout and stderr.

    It runs within this process, which is much quicker than a new one that imports all libraries; what libraries below
    Python write to descriptors 1 and 2 is in stdout and stderr all the same.
    """
    command = [str(word) for word in words]
    return _ran(command, lambda: main(command))


def script(file: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script of an example as :func:`planner` runs the command, if it starts no processes of itself.

    The modules beside it are its own.
    """
    command = [str(file), *map(str, words)]
    others = set(sys.modules)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command)
            patch.syspath_prepend(file.parent)
            return _ran(command, partial(_run_script, file))
    finally:
        for name, module in list(sys.modules.items()):
            if name not in others and str(getattr(module, "__file__", None)).startswith(str(file.parent)):
                del sys.modules[name]


def _run_script(file: Path) -> NoReturn:
    runpy.run_path(str(file), run_name="__main__")
    sys.exit(0)


def _ran(command: list[str], run: Callable[[], object]) -> subprocess.CompletedProcess[str]:
    """Run what exits, and give exit code, stdout and stderr."""
    with TemporaryFile("w+", encoding="utf-8") as out, TemporaryFile("w+", encoding="utf-8") as err:
        with (
            _written_to(out, 1), _written_to(err, 2), redirect_stdout(out), redirect_stderr(err), _warnings_shown(),
            pytest.raises(SystemExit) as end,
        ):  # fmt: skip
            run()
        told = [_read_all(file) for file in (out, err)]
    return subprocess.CompletedProcess(command, int(end.value.code or 0), *told)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Have the command print the planner's warnings, which are errors in tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PlannerWarning)
        yield


@contextmanager
def _written_to(file: TextIO, descriptor: int) -> Iterator[None]:
    """Have what is written to a descriptor of this process go to a file."""
    kept = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        file.flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def _read_all(file: TextIO) -> str:
    file.flush()
    file.seek(0)
    return file.read()


def planner_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``planner`` with these words as a process and give exit code, stdout and stderr."""
    command = [sys.executable, "-m", "planner", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240.0, check=False)


def start_planner(*words: str | Path) -> subprocess.Popen[bytes]:
    """Start ``planner`` with these words, quietly."""
    command = [sys.executable, "-m", "planner", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def parse(line: str) -> object:
    """Have the command line read a line as it would, and do nothing; give the exit code, 0 for one that can be read."""
    name, *words = shlex.split(line)
    assert name == "planner"
    root = get_command(_build(words))
    _disarm(root)
    with pytest.raises(SystemExit) as end:
        root.main(words)
    return end.value.code


def _disarm(command: Any) -> None:
    command.callback = None
    for below in getattr(command, "commands", {}).values():
        _disarm(below)
