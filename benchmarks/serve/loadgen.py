"""MLPerf LoadGen as driver of a client: SingleStream, Server and Offline.

LoadGen fixes the number of queries of SingleStream and Offline beforehand, from the latency and the rate that it is
told to expect: it is told what was measured, with some reserve, since a quicker system ends early and is INVALID. For
the 99th percentile of Server, it needs 459 queries, and more for each that is late.
"""

from __future__ import annotations

import array
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import mlperf_loadgen
import numpy as np

from benchmarks.serve.clients import Client

DURATION_S: Final = 4.0
SCENARIOS: Final = ("SingleStream", "Server", "Offline")
_KEPT: Final = ("90", "95", "99", "per second", "result is", "Result is", "percentile latency", "Mean latency")
_LATENCY_BOUND_S: Final = 0.5
_SAMPLES: Final = 1024
SERVER_SHARE: Final = 0.6
"""Share of the rate with all slots in use that Server asks for."""
_SERVER_QUERIES: Final = 800
_RESERVE: Final = 1.5


class _Driver:
    """Gives LoadGen's queries to a client, and keeps the delays itself, too."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.delays_s: list[float] = []
        self.errors: list[Exception] = []
        self.first_s = self.last_s = 0.0

    def issue(self, queries: Sequence[Any]) -> None:
        for query in queries:
            began_s = time.monotonic()
            self.first_s = self.first_s or began_s
            self._client.submit(partial(self._end, query.id, began_s))

    def _end(self, number: int, began_s: float, output: Any) -> None:
        self.last_s = time.monotonic()
        self.delays_s.append(self.last_s - began_s)
        if isinstance(output, Exception):
            self.errors.append(output)
        data = array.array("B", np.argmax(np.zeros(1) if isinstance(output, Exception) else output).tobytes())
        address, size = data.buffer_info()
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(number, address, size)])


def run(
    client: Client, scenario: str, *, delay_s: float, rate_per_s: float, duration_s: float = DURATION_S
) -> tuple[list[str], str]:
    """Run a scenario; return lines of LoadGen's summary, and ours in one.

    Parameters
    ----------
    delay_s, rate_per_s
        What was measured before: the delay of one sample at a time, and the rate with all slots in use.
    duration_s
        The least duration, in seconds.
    """
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = getattr(mlperf_loadgen.TestScenario, scenario)
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(duration_s * 1e3)
    settings.min_query_count = _SERVER_QUERIES if scenario == "Server" and duration_s == DURATION_S else 1
    settings.single_stream_expected_latency_ns = round(delay_s / _RESERVE * 1e9)
    settings.server_target_qps = SERVER_SHARE * rate_per_s
    settings.server_target_latency_ns = round(_LATENCY_BOUND_S * 1e9)
    settings.offline_expected_qps = _RESERVE * rate_per_s
    driver = _Driver(client)
    with tempfile.TemporaryDirectory(prefix="planner-loadgen-") as folder:
        logs = mlperf_loadgen.LogSettings()
        output = mlperf_loadgen.LogOutputSettings()
        output.outdir = folder
        output.copy_summary_to_stdout = False
        logs.log_output = output
        logs.enable_trace = False
        tested = mlperf_loadgen.ConstructSUT(driver.issue, lambda: None)
        library = mlperf_loadgen.ConstructQSL(_SAMPLES, _SAMPLES, lambda _numbers: None, lambda _numbers: None)
        try:
            mlperf_loadgen.StartTestWithLogSettings(tested, library, settings, logs)
        finally:
            mlperf_loadgen.DestroyQSL(library)
            mlperf_loadgen.DestroySUT(tested)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text().splitlines()
    if driver.errors:
        raise driver.errors[0]
    p50, p90, p99 = np.percentile(driver.delays_s, (50, 90, 99)) * 1e3
    rate = len(driver.delays_s) / (driver.last_s - driver.first_s)
    ours = f"{len(driver.delays_s)} samples, {rate:.1f} /s, delay p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f} ms"
    kept = [line.strip() for line in summary[: summary.index("")] if any(word in line for word in _KEPT)]
    return kept or [line.strip() for line in summary[:12]], ours
