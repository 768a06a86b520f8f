"""What ``planner serve`` adds to a session at 100 KB in and out, over HTTP and gRPC; then MLPerf LoadGen on all three.

The service runs in a process of its own with agents of its own; requests go in turns to all three, and to bare servers
of HTTP and gRPC, which show what the protocols and the clients cost by themselves.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import planner
from benchmarks.serve.case import LIMIT, serving, write_case
from benchmarks.serve.clients import Client, GrpcClient, HttpClient, clients
from benchmarks.serve.floor import floor
from planner.cli.output import print_table

ROUNDS: Final = 200
WARM: Final = 30
TURNS: Final = 3
AT_ONCE: Final = 150
"""Samples in each turn of the measurement of rates."""


def run() -> None:
    """Measure, and print delays and rates beside the goals."""
    with tempfile.TemporaryDirectory(prefix="planner-bench-") as folder:
        plan = write_case(Path(folder))
        with (
            planner.Session(plan, limit=LIMIT) as session,
            serving(plan) as (http, grpc, _),
            floor() as (bare_http, bare_grpc),
        ):
            found = clients(session, http, grpc)
            bare: dict[str, Client] = {"HTTP": HttpClient(bare_http), "gRPC": GrpcClient(bare_grpc)}
            delays_s, bare_s = _delays_s(found, bare)
            rates = _rates_per_s(found)
            base_s, base_rate = delays_s["session"], rates["session"]
            rows = [
                (
                    name,
                    f"{delays_s[name] * 1e3:.2f} ms",
                    f"{(delays_s[name] - base_s) * 1e3:+.2f} ms",
                    f"{bare_s[name] * 1e3:.2f} ms" if name in bare_s else "",
                    f"{rates[name]:.1f} /s",
                    f"{rates[name] / base_rate:.0%}",
                )
                for name in found
            ]
            columns = (
                "by",
                ">median delay",
                ">added (goal: 1.0)",
                ">bare server",
                ">rate",
                ">of the session's (goal: 90 %)",
            )
            print_table(f"100 KB in and out; one at a time, then {LIMIT} in flight", columns, rows)
            if importlib.util.find_spec("mlperf_loadgen") is None:
                print("MLPerf LoadGen is not installed: pip install mlcommons-loadgen")
            else:
                _loadgen(found, delays_s, rates)
            for client in (*found.values(), *bare.values()):
                client.close()


def _delays_s(*groups: Mapping[str, Client]) -> list[dict[str, float]]:
    """Return the median delay of each client, of whose samples one at a time is in flight."""
    times: list[dict[str, list[float]]] = [{name: [] for name in group} for group in groups]
    for _ in range(ROUNDS):
        for group, taken in zip(groups, times, strict=True):
            for name, client in group.items():
                began_s = time.monotonic()
                client.infer()
                taken[name].append(time.monotonic() - began_s)
    return [{name: statistics.median(values[WARM:]) for name, values in taken.items()} for taken in times]


def _rates_per_s(found: Mapping[str, Client]) -> dict[str, float]:
    rates: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(TURNS):
        for name, client in found.items():
            rates[name].append(_rate_per_s(client))
    return {name: statistics.median(values) for name, values in rates.items()}


def _rate_per_s(client: Client) -> float:
    ended = threading.Semaphore(0)
    began_s = time.monotonic()
    for _ in range(AT_ONCE):
        client.submit(lambda _output: ended.release())
    for _ in range(AT_ONCE):
        ended.acquire()
    return AT_ONCE / (time.monotonic() - began_s)


def _loadgen(found: Mapping[str, Client], delays_s: dict[str, float], rates: dict[str, float]) -> None:
    from benchmarks.serve import loadgen

    for scenario in loadgen.SCENARIOS:
        for name, client in found.items():
            theirs, ours = loadgen.run(client, scenario, delay_s=delays_s[name], rate_per_s=rates[name])
            print(f"\nMLPerf LoadGen, {scenario}, {name}; ours: {ours}")
            print("\n".join(f"    {line}" for line in theirs))
