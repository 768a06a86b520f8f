"""The search for assumptions of the MS-MDI example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "ms-mdi"


@pytest.mark.slow
def test_a_search_prints_the_nearest_and_repeats_itself() -> None:
    command = [sys.executable, str(EXAMPLE / "search.py"), "--count", "2", "--share", "0.002", "--confirm", "0.003"]
    one, two = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert one == two
    assert "of 2 have all six figures" in " ".join(one.split())
    assert one.count("Mbit/s") == 2
