"""The notebook example runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "notebook" / "two_cameras.py"


def test_every_cell_runs_and_shows_what_it_found(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
    finished = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr
    for shown in ("Sources", "Routes", "yard-first", "10 results; class", "outputs equal"):
        assert shown in finished.stdout
    assert not finished.stderr
    assert {file.name for file in (tmp_path / "runs" / "notebook").iterdir()} >= {"plan.json", "plan.svg"}
