"""Agents, links and whole runs for real, against what they should cost.

Each goal is one function without arguments in a file of ``benchmarks/execution``, listed here with a word to ask for it
by; it measures and prints its ratio. One that needs what a machine may lack (root for network namespaces) says so and
returns. ``PLANNER_BENCH=hop,idle`` in the environment runs some of them only.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.execution import faults, hop, idle, pipeline, prediction, urgent

GOALS: dict[str, Callable[[], None]] = {
    "overhead": hop.measure_overhead,
    "hop": hop.measure_hop,
    "idle": idle.measure_idle,
    "urgent": urgent.measure_urgent,
    "kills": faults.kills,
    "silence": faults.silence,
    "two-stages": pipeline.two_stages,
    "four-stages": pipeline.four_stages,
    "prediction": prediction.prediction,
}
"""What there is to measure, by a word."""


def run() -> None:
    """Measure every goal that was asked for, and print it."""
    asked = os.environ.get("PLANNER_BENCH", "")
    for name in asked.split(",") if asked else GOALS:
        GOALS[name]()
