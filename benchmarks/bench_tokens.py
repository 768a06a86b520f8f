"""Measurements of token generation by real agents against their goals.

Each goal is a function without arguments in ``benchmarks/tokens``, listed here by a short name; it measures and prints
its figures. The environment variable ``PLANNER_BENCH=overhead,urgent`` selects goals.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.tokens import kills, loops, memory, overhead, throughput, urgent

GOALS: dict[str, Callable[[], None]] = {
    "step": overhead.overhead,
    "urgent": urgent.urgent,
    "loops": loops.loops,
    "two-workers": throughput.two_workers,
    "memory": memory.memory,
    "token-kills": kills.kills,
}
"""The goals by name."""


def run() -> None:
    """Measure the selected goals, by default all of them."""
    selected = os.environ.get("PLANNER_BENCH", "")
    for name in selected.split(",") if selected else GOALS:
        GOALS[name]()
