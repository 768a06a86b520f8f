"""What a validation found: its tables, its verdict, its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.cli.output import milliseconds, print_table

if TYPE_CHECKING:
    from planner.validation.validate import Validation


def print_folder(folder: Path, pictures: Mapping[str, Path]) -> None:
    """Say what was written where."""
    typer.echo(f"pictures: {', '.join(map(str, pictures.values()))}")
    typer.echo(f"all else: {folder}")


def print_validation(validation: Validation, tolerance: float) -> None:
    """Print predicted and measured delays side by side, and the verdict."""
    rows = []
    for name, own in validation.sources.items():
        ratio = own.error_ratio
        rows.append(
            (
                name,
                f"{own.measured.completed} of {own.predicted.offered}",
                milliseconds(own.predicted.mean_delay_s),
                milliseconds(own.measured.mean_delay_s),
                "–" if ratio is None else f"{ratio:+.1%}",
                milliseconds(own.predicted.p95_delay_s),
                milliseconds(own.measured.p95_delay_s),
            )
        )
    print_table(
        "Delay of each source, predicted and measured",
        ("source", ">completed", ">mean predicted", ">measured", ">error", ">95 % predicted", ">measured"),
        rows,
    )
    for name, own in validation.sources.items():
        predicted, measured, bounds = own.predicted.accuracy, own.measured.measured_accuracy, own.accuracy_interval
        if predicted is not None and bounds is not None:
            less = "" if own.accurate else ": LESS THAN PREDICTED"
            interval = f"95 % interval {bounds.low:.1%} to {bounds.high:.1%}"
            typer.echo(f"accuracy of {name}: predicted {predicted:.1%}, measured {measured:.1%} ({interval}){less}")
    numerics = validation.numerics
    typer.echo(
        f"outputs {'equal' if numerics.equal else 'DIFFER'}: {numerics.samples} samples against the whole model, "
        f"largest relative error {numerics.max_rel_error:.1e}; lost {validation.lost}, failed {validation.failed}, "
        f"duplicates {validation.duplicates}"
    )
    for fault in validation.faults:
        typer.echo(fault)
    for incident in validation.measurement.incidents:
        typer.echo(f"at {incident.at_s:.2f} s: {incident.worker} {incident.what}".replace(":  ", ": "))
    if validation.host_limits:
        typer.echo(
            f"too slow or too busy with something else at times: the host of {', '.join(validation.host_limits)}"
        )
    typer.echo(f"{'passed' if validation.passed(tolerance) else 'NOT PASSED'} (mean delays within {tolerance:.0%})")


def print_rehearsed(validation: Validation) -> None:
    """Print how far the profiles hold in place, and what they would have predicted."""
    found = validation.calibration
    if found is None:
        return
    print_table(
        "Times of blocks in place, by the profile",
        ("worker", ">before the run", ">after it"),
        (
            (worker, f"{before:.2f}", "–" if after is None else f"{after:.2f}")
            for worker, (before, after) in found.slowness.items()
        ),
    )
    by_profile = ", ".join(f"{name} {milliseconds(delay_s)}" for name, delay_s in found.by_profile_s.items())
    typer.echo(f"mean delays predicted from the profiles as they are: {by_profile}")


def print_where(validation: Validation) -> None:
    """Print where the time went, predicted and measured, and what explains differences."""
    rows = [
        (
            name,
            str(leg.place),
            *(f"{time_s * 1e3:.1f}" for time_s in (*leg.predicted, *leg.measured)),
            f"{leg.difference_s * 1e3:+.1f}",
        )
        for name, own in validation.sources.items()
        for leg in own.legs
    ]
    print_table(
        "Where a sample's time goes, on average, in ms",
        ("source", "stage or transfer", ">predicted wait", ">work", ">measured wait", ">work", ">difference"),
        rows,
    )
    used = {**validation.workers, **validation.networks}
    print_table(
        "Utilisation",
        ("name", ">predicted", ">measured"),
        ((name, f"{found.predicted:.1%}", f"{found.measured:.1%}") for name, found in used.items()),
    )
    for name, own in validation.sources.items():
        if own.explanation:
            typer.echo(f"{name}: {own.explanation}")
