"""The metrics of a service in the format of Prometheus, read from its counts whenever they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from planner.serve.about import metadata_version
from planner.serve.gateway import Gateway
from planner.serve.traffic import Traffic
from planner.serve.watch import BUCKETS_S, SourceCount


def registry_of(gateway: Gateway, traffic: Traffic) -> CollectorRegistry:
    """Return a registry of its own with the metrics of a service and of its process."""
    registry = CollectorRegistry()
    registry.register(_ServiceCollector(gateway, traffic))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class _ServiceCollector(Collector):
    """Reads the counts of a service."""

    def __init__(self, gateway: Gateway, traffic: Traffic) -> None:
        self._gateway = gateway
        self._traffic = traffic

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics are those that :meth:`collect` returns."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return all metrics at this moment."""
        version = InfoMetricFamily("planner_build", "Version of the service")
        version.add_metric((), {"version": metadata_version()})
        requests = CounterMetricFamily(
            "planner_requests", "Requests by what became of them", labels=("source", "protocol", "code")
        )
        for (model, protocol, code), count in self._traffic.requests.items():
            requests.add_metric((model, protocol, code), count)
        with self._gateway.watch.lock:
            return [version, requests, *self._of_sources(), *self._of_workers(), *self._of_run()]

    def _of_sources(self) -> Iterator[Metric]:
        watch = self._gateway.watch
        samples = CounterMetricFamily("planner_samples", "Samples that have ended", labels=("source", "outcome"))
        waiting = GaugeMetricFamily("planner_samples_in_flight", "Samples without a result", labels=("source",))
        predicted = GaugeMetricFamily(
            "planner_predicted_delay_seconds", "Mean delay by the plan that applies", labels=("source",)
        )
        delays = HistogramMetricFamily("planner_delay_seconds", "Delays of completed samples", labels=("source",))
        ready = GaugeMetricFamily("planner_source_ready", "1 if requests are taken, else 0", labels=("source",))
        for name, count in watch.counts.sources.items():
            for outcome in ("completed", "failed", "dropped"):
                samples.add_metric((name, outcome), getattr(count, outcome))
            if name in self._gateway.models:
                waiting.add_metric((name,), len(self._gateway.models[name].handle.pending))
            if name in watch.plan.sources:
                predicted.add_metric((name,), watch.plan.sources[name].delay_s)
            delays.add_metric((name,), _buckets(count), count.sum_s)
            ready.add_metric((name,), self._gateway.is_ready(name))
        yield from (samples, waiting, predicted, delays, ready)

    def _of_workers(self) -> Iterator[Metric]:
        present = GaugeMetricFamily("planner_worker_present", "1 if the worker is in the run", labels=("worker",))
        left = CounterMetricFamily("planner_worker_left", "How often the worker left", labels=("worker",))
        utilisation = GaugeMetricFamily(
            "planner_worker_utilisation", "Share of the last half second spent computing", labels=("worker",)
        )
        busy = CounterMetricFamily("planner_worker_busy_seconds", "Computing time since it joined", labels=("worker",))
        blocks = CounterMetricFamily("planner_worker_blocks", "Blocks computed since it joined", labels=("worker",))
        queue = GaugeMetricFamily("planner_worker_queue", "Tasks that wait at the worker", labels=("worker",))
        slowness = GaugeMetricFamily(
            "planner_worker_slowness", "How many times slower than profiled the worker is", labels=("worker",)
        )
        temperature = GaugeMetricFamily(
            "planner_worker_temperature_celsius", "Highest temperature of the device", labels=("worker",)
        )
        power = GaugeMetricFamily("planner_worker_power_watts", "Power that the device draws", labels=("worker",))
        link = CounterMetricFamily(
            "planner_link_bytes", "Tensors of samples sent from a worker to another", labels=("sender", "receiver")
        )
        for name, count in self._gateway.watch.counts.workers.items():
            present.add_metric((name,), count.present)
            left.add_metric((name,), count.left)
            if count.utilisation is not None:
                utilisation.add_metric((name,), count.utilisation)
            if (load := count.load) is None:
                continue
            busy.add_metric((name,), load.busy_s)
            blocks.add_metric((name,), load.blocks)
            queue.add_metric((name,), load.queued)
            slowness.add_metric((name,), load.slowness)
            if load.temperature_celsius is not None:
                temperature.add_metric((name,), load.temperature_celsius)
            if load.power_w is not None:
                power.add_metric((name,), load.power_w)
            for sender, size in load.received_bytes.items():
                link.add_metric((sender, name), size)
        yield from (present, left, utilisation, busy, blocks, queue, slowness, temperature, power, link)

    def _of_run(self) -> Iterator[Metric]:
        counts = self._gateway.watch.counts
        yield CounterMetricFamily("planner_replans", "Plans that have replaced the one before", value=counts.replans)
        incidents = CounterMetricFamily("planner_incidents", "Faults, and recoveries from them", labels=("severity",))
        for severity in ("info", "warning", "error"):
            incidents.add_metric((severity,), counts.incident_count[severity])
        yield incidents


def _buckets(count: SourceCount) -> list[tuple[str, float]]:
    ends = [*(f"{end_s:g}" for end_s in BUCKETS_S), "+Inf"]
    return list(zip(ends, accumulate(count.buckets), strict=True))
