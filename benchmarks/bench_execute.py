"""Measurements of real agents, links and whole runs against their goals.

Each goal is a function without arguments in ``benchmarks/execution``, listed here by a short name; it measures and
prints its figures. A goal whose requirements the machine does not meet (root, for network namespaces) prints why and
returns. The environment variable ``PLANNER_BENCH=hop,idle`` selects goals.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.execution import faults, hop, idle, leaving, pipeline, prediction, urgent

GOALS: dict[str, Callable[[], None]] = {
    "overhead": hop.measure_overhead,
    "hop": hop.measure_hop,
    "idle": idle.measure_idle,
    "urgent": urgent.measure_urgent,
    "kills": faults.kills,
    "silence": faults.silence,
    "leaving": leaving.leaving,
    "two-stages": pipeline.two_stages,
    "four-stages": pipeline.four_stages,
    "prediction": prediction.prediction,
}
"""The goals by name."""


def run() -> None:
    """Measure the selected goals, by default all of them."""
    selected = os.environ.get("PLANNER_BENCH", "")
    for name in selected.split(",") if selected else GOALS:
        GOALS[name]()
