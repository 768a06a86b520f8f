"""The verdict on a run as JSON data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from planner.runtime.difference import json_number
from planner.trace.metrics import SourceMetrics
from planner.validation.legs import LegComparison
from planner.validation.numerics import Numerics
from planner.validation.verdict import Validation


def validation_document(validation: Validation, tolerance: float) -> dict[str, Any]:
    """Return the verdict as JSON data."""
    return {
        "passed": validation.passed(tolerance),
        "checks": [asdict(check) for check in validation.checks(tolerance)],
        "lost": validation.lost,
        "failed": validation.failed,
        "duplicates": validation.duplicates,
        "faults": list(validation.faults),
        "drops": list(validation.drops),
        "incidents": [asdict(incident) for incident in validation.measurement.incidents],
        "host_limited": validation.host_limited,
        "host_limits": list(validation.host_limits),
        "numerics": _numerics(validation.numerics),
        "sources": {
            name: {
                "predicted": _metrics(comparison.predicted, comparison.predicted.accuracy),
                "measured": _metrics(comparison.measured, comparison.measured.measured_accuracy),
                "error_ratio": comparison.error_ratio,
                "prediction_interval_s": comparison.interval and comparison.interval[:2],
                "inside": comparison.inside if comparison.interval is not None else None,
                "accuracy_interval": comparison.accuracy_interval,
                "intervals": {figure.name: figure.interval for figure in comparison.figures},
                "explanation": comparison.explanation,
                "legs": [_leg(leg) for leg in comparison.legs],
            }
            for name, comparison in validation.sources.items()
        },
        "workers": {name: asdict(shares) for name, shares in validation.workers.items()},
        "networks": {name: asdict(shares) for name, shares in validation.networks.items()},
        "energy": validation.energy.document() if validation.energy is not None else None,
        "calibration": asdict(validation.calibration) if validation.calibration is not None else None,
    }


def _numerics(numerics: Numerics) -> dict[str, Any]:
    return {
        "samples": numerics.samples,
        "tokens": numerics.tokens,
        "not_received": numerics.not_received,
        "max_abs_error": json_number(numerics.max_abs_error),
        "max_rel_error": json_number(numerics.max_rel_error),
        "tolerances": [
            {
                "model": model,
                "provider": provider,
                "precision": tolerance.precision,
                "whole_error": None if tolerance.whole_error is None else json_number(tolerance.whole_error),
                "tolerance": tolerance.limit,
                "exact_provider": tolerance.exact,
                "exact_time_ratio": tolerance.exact_time_ratio,
            }
            for (model, provider), tolerance in numerics.tolerances.items()
        ],
    }


def _leg(leg: LegComparison) -> dict[str, Any]:
    return {
        "place": str(leg.site),
        "predicted": leg.predicted._asdict(),
        "measured": leg.measured._asdict(),
    }


def _metrics(metrics: SourceMetrics, accuracy: float | None) -> dict[str, float | None]:
    return {
        "mean_delay_s": metrics.mean_delay_s,
        "p50_delay_s": metrics.p50_delay_s,
        "p95_delay_s": metrics.p95_delay_s,
        "p99_delay_s": metrics.p99_delay_s,
        "dropped": metrics.dropped,
        "miss_share": metrics.miss_share,
        "throughput_per_s": metrics.throughput_per_s,
        "ttft_s": metrics.ttft_s,
        "tpot_s": metrics.tpot_s,
        "tokens_per_s": metrics.tokens_per_s,
        "accuracy": accuracy,
    }
