"""Time limits and Ctrl-C of each method: used over asked time, and seconds from Ctrl-C to the end of the search.

Every figure is measured in a process of its own, as a user sees it: from the call of ``solve``, with the imports of
libraries, the construction of the program and the evaluation of plans.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from time import monotonic
from typing import Final

from planner.cli.output import print_table

LIMIT_S: Final = 6.0
INTERRUPTS_S: Final = (0.5, 2.0, 5.0)
"""When Ctrl-C comes: while programs are built, early in a search, and late."""
CASES: Final = (
    ("milp", (8, 16, 20)),
    ("milp", (16, 32, 20)),
    ("convex", (8, 16, 20)),
    ("colgen", (64, 64, 53)),
    ("search", (16, 32, 53)),
    ("auto", (8, 16, 20)),
    ("auto", (16, 32, 20)),
    ("dp", (1, 16, 48)),
)


def run() -> None:
    """Print the figures next to their goals."""
    rows = []
    for method, size in CASES:
        used_s, status = _measured(method, size, LIMIT_S, None)
        text = f"{used_s / LIMIT_S:.3f}, {status}"
        rows.append((f"{method}: used over asked", _text(size), text, f"<= {1.05 + 0.2 / LIMIT_S:.3f}"))
        for at_s in INTERRUPTS_S:
            late_s, status = _measured(method, size, 10 * LIMIT_S, at_s)
            rows.append((f"  after Ctrl-C at {at_s:g} s", _text(size), f"{late_s:.2f} s, {status}", "<= 0.5 s"))
    print_table("Limits", ("what", ">size", ">measured", ">goal"), rows)


def _text(size: tuple[int, int, int]) -> str:
    return " × ".join(map(str, size))


def _measured(method: str, size: tuple[int, int, int], limit_s: float, interrupt_s: float | None) -> tuple[float, str]:
    """Return the seconds that a search took, or those after Ctrl-C if it was still running, and its status."""
    words = [method, *map(str, size), str(limit_s), str(interrupt_s or 0.0)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_limits", *words], check=True, capture_output=True, text=True
    )
    seconds, status = done.stdout.split(maxsplit=1)
    return float(seconds), status.strip()


def _child(method: str, size: tuple[int, int, int], limit_s: float, interrupt_s: float) -> None:
    import planner.solvers
    from tests.instances import random_instance

    sources, workers, blocks = size
    partition = method == "dp"
    goal = "throughput" if partition else "delay"
    instance = random_instance(0, sources=sources, workers=workers, blocks=blocks, load=0.3, goal=goal)
    status: str
    begin_s = monotonic()
    if interrupt_s:
        threading.Timer(interrupt_s, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        visits = 1 if partition else None
        status = planner.solvers.solve(instance, method=method, time_limit_s=limit_s, max_visits=visits).status
    except KeyboardInterrupt:
        status = "interrupted before the search"
    sys.stdout.write(f"{monotonic() - begin_s - interrupt_s} {status}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    name, sources, workers, blocks, limit, interrupt = sys.argv[1:]
    _child(name, (int(sources), int(workers), int(blocks)), float(limit), float(interrupt))
