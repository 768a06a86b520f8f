from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.report.policies import draw_policies
from planner.trace.metrics import RunMetrics, SourceMetrics


def metrics(mean_s: float | None) -> RunMetrics:
    p95_s = None if mean_s is None else 3 * mean_s
    source = SourceMetrics(10, 0 if mean_s is None else 10, 0, mean_s, mean_s, p95_s, p95_s, 1.0)
    return RunMetrics(1.0, mean_s, {"gate": source, "yard": source}, {})


@pytest.mark.parametrize("slowest_s", [0.2, 50.0])
def test_each_policy_and_source_is_in_the_picture(tmp_path: Path, slowest_s: float) -> None:
    random = np.random.default_rng(0)
    runs = {
        "local": [metrics(float(mean_s)) for mean_s in random.uniform(0.1, 0.12, 4)],
        "planned": [metrics(slowest_s)],
        "mdi": [metrics(None)],
    }
    path = tmp_path / "delays.svg"
    draw_policies(runs, path)
    picture = path.read_text()
    for text in ("local", "planned", "mdi", "gate", "yard", "Delay [ms]"):
        assert f">{text}<" in picture
    assert (">200 ms<" in picture) == (slowest_s == 0.2)
