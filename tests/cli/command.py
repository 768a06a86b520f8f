"""The ``planner`` command as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def planner(*words: str | Path, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run ``planner`` with these words and give exit code, stdout and stderr."""
    command = [sys.executable, "-m", "planner", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def start_planner(*words: str | Path) -> subprocess.Popen[bytes]:
    """Start ``planner`` with these words, quietly."""
    command = [sys.executable, "-m", "planner", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
