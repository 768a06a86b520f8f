"""Tables and sentences that describe a validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from planner.tables import Table, milliseconds
from planner.units import format_quantity
from planner.validation.numerics import Numerics
from planner.validation.verdict import Validation

WIDE: Final = 1.5
"""Highest divided by lowest value of an interval that is called vague."""


def describe_validation(validation: Validation, tolerance: float) -> Iterator[Table | str]:
    """Yield predicted and measured delays side by side, and the verdict."""
    yield _delays(validation)
    yield from _tokens(validation)
    yield _figures(validation)
    yield from _accuracies(validation)
    numerics = validation.numerics
    compared = [f"{numerics.samples} samples against the whole model"]
    compared += [f"{numerics.tokens} tokens one by one"] if numerics.tokens else []
    compared += [f"largest relative error {numerics.max_rel_error:.1e}"] if numerics.tolerances else []
    yield (
        f"{_outputs(numerics)}: {', '.join(compared)}; lost {validation.lost}, failed {validation.failed}, "
        f"duplicates {validation.duplicates}"
    )
    for (model, _), own in numerics.tolerances.items():
        if own.limit > own.base or own.exact is not None:
            yield f"{model} on {own}"
    yield from validation.faults
    yield from validation.drops
    for incident in validation.measurement.incidents:
        yield str(incident)
    if validation.host_limits:
        yield f"hosts that were temporarily too slow or busy with other work: {', '.join(validation.host_limits)}"
    for name, source in validation.sources.items():
        if source.interval is not None and source.interval.width > WIDE:
            yield (
                f"{name}: the prediction is vague, by errors of profiles and what queues make of them at this load; "
                "less load, a profile from a quieter machine, or a calibration run narrows it"
            )
    failed = [str(check) for check in validation.checks(tolerance) if not check.passed]
    inside = ", or in their intervals" if any(source.interval for source in validation.sources.values()) else ""
    met = f"passed (mean delays within {tolerance * 100:g} %{inside})"
    yield f"NOT PASSED: {', '.join(failed)}" if failed else met


def _outputs(numerics: Numerics) -> str:
    if numerics.equal:
        return "outputs equal"
    return "outputs DIFFER" if numerics.unequal else "outputs not all received"


def describe_times(validation: Validation) -> Iterator[Table | str]:
    """Yield the predicted and measured breakdown of the time, and the explanations of differences."""
    yield Table(
        "Where a sample's time goes, on average, in ms",
        ("source", "stage or transfer", ">predicted wait", ">work", ">measured wait", ">work", ">difference"),
        [
            (
                name,
                str(leg.site),
                *(f"{time_s * 1e3:.1f}" for time_s in (*leg.predicted, *leg.measured)),
                f"{leg.difference_s * 1e3:+.1f}",
            )
            for name, source in validation.sources.items()
            for leg in source.legs
        ],
    )
    if validation.sessions:
        yield Table(
            "Blocks that run as one session, in ms",
            ("source", "blocks", ">predicted", ">measured"),
            [
                (each.source, str(each.site), milliseconds(each.predicted_s), milliseconds(each.measured_s))
                for each in validation.sessions
            ],
        )
    yield Table(
        "Utilisation",
        ("name", ">predicted", ">measured"),
        [
            (name, f"{use.predicted:.1%}", f"{use.measured:.1%}")
            for name, use in {**validation.workers, **validation.networks}.items()
        ],
    )
    if validation.energy is not None:
        predicted_w, measured_w = (
            format_quantity(use.average_power_w, "power")
            for use in (validation.energy.predicted, validation.energy.measured)
        )
        yield f"average power of workers by stated power and computing time: predicted {predicted_w}, run {measured_w}"
    for name, source in validation.sources.items():
        if source.explanation:
            yield f"{name}: {source.explanation}"


def describe_calibration(validation: Validation) -> Iterator[Table | str]:
    """Yield the comparison of in-situ costs with the profiles, if there were calibration runs."""
    calibration = validation.calibration
    if calibration is None:
        return
    yield Table(
        "In-situ times of blocks, relative to the profile",
        ("worker", ">before the run", ">after the run"),
        [
            (worker, f"{before:.2f}", "–" if after is None else f"{after:.2f}")
            for worker, (before, after) in calibration.slowness.items()
        ],
    )
    delays = ", ".join(f"{name} {milliseconds(delay_s)}" for name, delay_s in calibration.by_profile_s.items())
    yield f"mean delays predicted from the profiles: {delays}"


def _delays(validation: Validation) -> Table:
    coverages = [source.interval.coverage for source in validation.sources.values() if source.interval is not None]
    interval = [f">{min(coverages):.0%} interval"] if coverages else []
    return Table(
        "Delay of each source, predicted and measured",
        ("source", ">completed", ">mean predicted", *interval, ">measured", ">error", ">95 % predicted", ">measured"),
        [
            (
                name,
                f"{source.measured.completed} of {source.predicted.offered}",
                milliseconds(source.predicted.mean_delay_s),
                *([str(source.interval or "")] if interval else []),
                milliseconds(source.measured.mean_delay_s),
                "–" if source.error_ratio is None else f"{source.error_ratio:+.1%}",
                milliseconds(source.predicted.p95_delay_s),
                milliseconds(source.measured.p95_delay_s),
            )
            for name, source in validation.sources.items()
        ],
    )


def _tokens(validation: Validation) -> Iterator[Table]:
    """Yield the times of tokens, if there are sequences."""
    sequences = {name: each for name, each in validation.sources.items() if each.predicted.tokens_per_s is not None}
    if not sequences:
        return

    def ratio(error: float | None) -> str:
        return "–" if error is None else f"{error:+.1%}"

    def rate(tokens_per_s: float | None) -> str:
        return "–" if tokens_per_s is None else f"{tokens_per_s:.1f}"

    yield Table(
        "Tokens of each source, predicted and measured",
        (
            "source",
            ">first token predicted",
            ">measured",
            ">error",
            ">per token predicted",
            ">measured",
            ">error",
            ">tokens/s predicted",
            ">measured",
        ),
        [
            (
                name,
                milliseconds(source.predicted.ttft_s),
                milliseconds(source.measured.ttft_s),
                ratio(source.ttft_error_ratio),
                milliseconds(source.predicted.tpot_s),
                milliseconds(source.measured.tpot_s),
                ratio(source.tpot_error_ratio),
                rate(source.predicted.tokens_per_s),
                rate(source.measured.tokens_per_s),
            )
            for name, source in sequences.items()
        ],
    )


def _figures(validation: Validation) -> Table:
    def text(name: str, value: float) -> str:
        return milliseconds(value) if name.endswith("_s") else f"{value:.1%}"

    return Table(
        "Percentiles of delays and other figures, with the 95 % interval of what was measured",
        ("source", "figure", ">predicted", ">measured", ">interval", "prediction"),
        [
            (
                name,
                _FIGURES[figure.name],
                text(figure.name, figure.predicted),
                text(figure.name, figure.measured),
                f"{text(figure.name, figure.interval.low)} to {text(figure.name, figure.interval.high)}",
                "within" if figure.within else "outside",
            )
            for name, source in validation.sources.items()
            for figure in source.figures
        ],
    )


_FIGURES: Final = {
    "p50_delay_s": "p50",
    "p95_delay_s": "p95",
    "p99_delay_s": "p99",
    "ttft_s": "mean time to first token",
    "tpot_s": "mean time per token",
    "miss_share": "late or dropped",
    "drop_share": "dropped",
}


def _accuracies(validation: Validation) -> Iterator[str]:
    for name, source in validation.sources.items():
        predicted, measured = source.predicted.accuracy, source.measured.measured_accuracy
        bounds = source.accuracy_interval
        if predicted is not None and bounds is not None:
            less = "" if source.accurate else ": LESS THAN PREDICTED"
            interval = f"95 % interval {bounds.low:.1%} to {bounds.high:.1%}"
            yield f"accuracy of {name}: predicted {predicted:.1%}, measured {measured:.1%} ({interval}){less}"
