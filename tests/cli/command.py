"""The ``planner`` command as a process."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from planner.cli import _build


def planner(*words: str | Path, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run ``planner`` with these words and give exit code, stdout and stderr."""
    command = [sys.executable, "-m", "planner", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


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
