"""``planner profile``: what each block of a model costs on a device class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli import INTERRUPTED
from planner.cli.examples import epilog
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import file_to_write, picture_to_write
from planner.cli.provider import OPTIONS_OPTION, PROVIDER_OPTION, chosen
from planner.cli.shape import (
    AXIS_OPTION,
    INPUTS_OPTION,
    LAYER_OPTION,
    MAX_BLOCKS_OPTION,
    SHAPE_OPTION,
    STATE_OPTION,
    parse_axes,
    parse_shapes,
    parse_state,
    print_axes,
)
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.model.load import ChainModel
    from planner.profiling.types import OperatingPoint, Profile

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Determine what each block of a model costs on a device class.",
)

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX model.")]
DeviceClass = Annotated[
    str, typer.Option(metavar="NAME", help="Name for the combination of device, provider and number of threads.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Profile file to write.",
        show_default="profiles/DEVICE-CLASS/MODEL.json",
        callback=file_to_write,
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA", help="Also determine accuracy and early exits, on labelled samples: .npz file with `label`."
    ),
]
Thresholds = Annotated[
    str | None, typer.Option(metavar="LIST", help="With --calibrate: confidences to try at each exit, such as 0.5,0.9.")
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With --calibrate: also write the model's prediction for each sample, for simulations to replay.",
        callback=file_to_write,
    ),
]


@app.command(epilog=epilog("profile", "measure"))
def measure(
    model: Model,
    *,
    device_class: DeviceClass,
    output: Output = None,
    provider: Annotated[str, PROVIDER_OPTION] = "cpu",
    provider_option: Annotated[list[str] | None, OPTIONS_OPTION] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Number of threads that a block may use.")] = 1,
    rounds: Annotated[int, typer.Option(metavar="N", help="Maximum number of times to time each block.")] = 40,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Time limit for the whole measurement, such as 10s or 2min.")
    ] = "60s",
    power_mode: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Power mode of the device, recorded as given.")
    ] = None,
    beside: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Also measure, for as long again, blocks in an agent: alone, and while N other agents compute on this "
            "host. Each has its own processors.",
        ),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Also measure batches of these sizes, such as 1,2,4,8, if the first axis of the model's inputs is "
            "open.",
        ),
    ] = None,
    max_blocks: int = MAX_BLOCKS_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    axis: list[str] | None = AXIS_OPTION,
    layer_assignment: str = LAYER_OPTION,
    state: list[str] | None = STATE_OPTION,
    inputs: Path | None = INPUTS_OPTION,
    calibrate: Calibrate = None,
    thresholds: Thresholds = None,
    predictions: Predictions = None,
    json: bool = JSON_OPTION,
) -> None:
    """Measure the blocks of a model on this device.

    Ctrl-C ends the measurement early: if 3 rounds are complete, a partial profile is written. The exit code is then
    130.
    """
    from planner.api.profiles import profile

    budget_s, sizes = seconds(budget), whole_numbers(batches, "--batches")
    chain_model, points = _load(
        model,
        max_blocks,
        (shape, axis, layer_assignment, state),
        calibrate,
        thresholds,
        predictions,
        batch=bool(sizes),
    )
    try:
        measured = profile(
            chain_model,
            device_class=device_class,
            provider=chosen(provider, provider_option),
            threads=threads,
            rounds=rounds,
            budget_s=budget_s,
            power_mode=power_mode,
            inputs=inputs,
            operating_points=points,
            beside=beside,
            batches=sizes,
        )
    except KeyboardInterrupt:
        typer.echo("planner: interrupted before the measurement was complete enough; no profile written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _finish(measured, output, json=json)


@app.command(epilog=epilog("profile", "estimate"))
def estimate(
    model: Model,
    *,
    device_class: Annotated[
        str,
        typer.Option(
            metavar="CLASS",
            help="Device class with published figures, or a .yaml file of them; with --adapt any device class.",
        ),
    ],
    adapt: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Fit the class to measurements instead: a measured profile of another model, a file by `planner "
            "probe-device`, or a folder of such files. Repeat the option for several; from 3 models on, the error of "
            "whole models is known.",
        ),
    ] = None,
    output: Output = None,
    max_blocks: int = MAX_BLOCKS_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    axis: list[str] | None = AXIS_OPTION,
    layer_assignment: str = LAYER_OPTION,
    state: list[str] | None = STATE_OPTION,
    calibrate: Calibrate = None,
    thresholds: Thresholds = None,
    predictions: Predictions = None,
    json: bool = JSON_OPTION,
) -> None:
    """Estimate costs from published figures, or from measurements of other models.

    An estimate states its error, and the interval in which 90 % of the times lie.
    """
    from planner.api.profiles import estimate as estimate_profile

    chain_model, points = _load(
        model, max_blocks, (shape, axis, layer_assignment, state), calibrate, thresholds, predictions
    )
    estimated = estimate_profile(chain_model, device_class=device_class, adapt=adapt or (), operating_points=points)
    _finish(estimated, output, json=json)


@app.command("import", epilog=epilog("profile", "import"))
def import_times(
    model: Model,
    times: Annotated[
        Path,
        typer.Argument(metavar="TIMES", help="Profile written by onnxruntime, or by `trtexec --exportProfile`."),
    ],
    *,
    device_class: DeviceClass,
    output: Output = None,
    max_blocks: int = MAX_BLOCKS_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    axis: list[str] | None = AXIS_OPTION,
    layer_assignment: str = LAYER_OPTION,
    state: list[str] | None = STATE_OPTION,
    calibrate: Calibrate = None,
    thresholds: Thresholds = None,
    predictions: Predictions = None,
    json: bool = JSON_OPTION,
) -> None:
    """Import times that another tool measured."""
    from planner.api.profiles import import_profile

    chain_model, points = _load(
        model, max_blocks, (shape, axis, layer_assignment, state), calibrate, thresholds, predictions
    )
    imported = import_profile(chain_model, times, device_class=device_class, operating_points=points)
    _finish(imported, output, json=json)


@app.command(epilog=epilog("profile", "scale"))
def scale(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="Profile to scale.")],
    *,
    by: Annotated[float, typer.Option(metavar="RATIO", help="Time on the new device, divided by that in PROFILE.")],
    device_class: Annotated[str, typer.Option(metavar="NAME", help="Name for the new device class.")],
    output: Output = None,
    json: bool = JSON_OPTION,
) -> None:
    """Scale the profile of another device class."""
    from planner.api.profiles import scale as scale_profile

    _finish(scale_profile(profile, by, device_class=device_class), output, json=json)


@app.command(epilog=epilog("profile", "show"))
def show(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="Profile to show.")],
    *,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also draw the costs along the chain, .svg or .png.", callback=picture_to_write
        ),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Show the costs in a profile and their error."""
    from planner.profiling.store import load_profile

    loaded = load_profile(profile)
    if picture is not None:
        from planner.report.profile import draw_profile

        draw_profile(loaded, picture)
    if json:
        print_json(loaded.model_dump(mode="json", by_alias=True))
        return
    print_summary(loaded)
    for key, value in loaded.environment.items():
        if key != "warnings":
            typer.echo(f"{key}: {value}")
    for warning in loaded.environment.get("warnings", ()):
        typer.echo(f"warning: {warning}")


@app.command(epilog=epilog("profile", "diff"))
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Profile.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another profile of the same chain.")],
    *,
    json: bool = JSON_OPTION,
) -> None:
    """Show the differences between two profiles of a chain."""
    from planner.api.profiles import diff as compare_profiles

    differences = compare_profiles(before, after)
    if json:
        print_json(differences.to_dict())
    else:
        print_summary(differences)


def _load(
    model: Path,
    max_blocks: int,
    described: tuple[Sequence[str] | None, Sequence[str] | None, str, Sequence[str] | None],
    data: Path | None,
    thresholds: str | None,
    predictions: Path | None,
    *,
    batch: bool = False,
) -> tuple[ChainModel, tuple[OperatingPoint, ...]]:
    """Return the model, and its operating points if there is data to calibrate them on.

    ``described`` are the options ``--shape``, ``--axis``, ``--layer-assignment`` and ``--state``.
    """
    from planner.api.profiles import calibrate
    from planner.model.load import load_chain, load_for_batches

    for option, value in (("--thresholds", thresholds), ("--predictions", predictions)):
        if value is not None and data is None:
            raise UsageError("requires --calibrate", where=option, value=str(value), expected="--calibrate DATA")
    confidences = None if thresholds is None else _numbers(thresholds)
    shape, axes = parse_shapes(described[0]), parse_axes(described[1])
    load = load_for_batches if batch else load_chain
    chain_model = load(
        model,
        max_blocks=max_blocks,
        shape=shape,
        axes=axes,
        layer_assignment=described[2],
        state=parse_state(described[3]),
    )
    print_axes(chain_model)
    if data is None:
        return chain_model, ()
    return chain_model, calibrate(chain_model, data, thresholds=confidences, predictions=predictions)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(
            "not a list of numbers", where="--thresholds", value=text, expected="numbers such as 0.5,0.9"
        ) from error


def whole_numbers(text: str | None, where: str) -> list[int]:
    """Read whole numbers such as ``1,2,4``; none for no text."""
    try:
        return [int(word) for word in text.split(",")] if text is not None else []
    except ValueError as error:
        expected = "whole numbers such as 1,2,4,8"
        raise UsageError("not a list of whole numbers", where=where, value=text, expected=expected) from error


def seconds(text: str) -> float:
    """Read a time such as ``10s`` or ``2 min``, without pint, which a device that only profiles does not have."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min)\s*", text)
    if match is None:
        raise UsageError("not a time", where="--budget", value=text, expected="a time in s or min, such as 60s")
    return float(match[1]) * (60 if match[2] == "min" else 1)


def _finish(profile: Profile, output: Path | None, *, json: bool) -> None:
    """Write and print a new profile, with its warnings on stderr."""
    from planner.profiling.store import profile_path, save_profile

    path = output or profile_path("profiles", profile.device_class, profile.model.name)
    save_profile(profile, path)
    if json:
        print_json(profile.model_dump(mode="json", by_alias=True))
    else:
        print_summary(profile)
        typer.echo(f"wrote {path}")
    for warning in profile.environment.get("warnings", ()):
        typer.echo(f"planner: warning: {warning}", err=True)
    if profile.environment.get("partial"):
        typer.echo("planner: interrupted: the profile is partial", err=True)
        raise typer.Exit(INTERRUPTED)
