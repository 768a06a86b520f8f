"""The example of tokens runs, and draws its picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[1] / "examples" / "tokens" / "run.py"


def test_the_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "-o", str(tmp_path), "--prompt", "40", "--tokens", "6", "--budget", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if line.startswith("│")
    ]
    assert [(row[0], row[1]) for row in rows] == [
        (label, source) for label in ("prompts whole", "prompts in chunks of 16") for source in ("assistant", "digest")
    ]
    assert [row[2] for row in rows if row[1] == "assistant"] == ["18", "18"]  # three answers of six tokens
    assert (tmp_path / "tokens.png").read_bytes().startswith(b"\x89PNG")
