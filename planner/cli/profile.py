"""``planner profile``: what each block of a model costs on a device class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from planner.cli import INTERRUPTED
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import file_to_write, picture_to_write
from planner.cli.shape import MAX_BLOCKS_OPTION, SHAPE_OPTION, parse_shapes
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.model.load import ChainModel
    from planner.profiling.sampling import Progress
    from planner.profiling.types import OperatingPoint, Profile

BAR = 24
"""Characters of the longest bar in a table."""


class _MeasureByDefault(TyperGroup):
    """``planner profile MODEL`` is ``planner profile measure MODEL``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args.insert(0, "measure")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MeasureByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What each block of a model costs on a device class. `profile MODEL` is short for `profile measure MODEL`.",
)


@app.command()
def measure(
    model: Annotated[Path | None, typer.Argument(help="ONNX model; not with --scale-from.")] = None,
    *,
    device_class: Annotated[
        str | None, typer.Option(help="What to call the device with its provider and threads.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write.",
            show_default="profiles/DEVICE-CLASS/MODEL.json",
            callback=file_to_write,
        ),
    ] = None,
    provider: Annotated[str, typer.Option(help="cpu, cuda, tensorrt or tensorrt-fp16.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads that a block may use.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often each block is timed, at most.")] = 40,
    budget: Annotated[str, typer.Option(help="Time for the whole, as in 10s or 2min.")] = "60s",
    power_mode: Annotated[str | None, typer.Option(help="The device's power mode, recorded as given.")] = None,
    max_blocks: int = MAX_BLOCKS_OPTION,
    shape: list[str] | None = SHAPE_OPTION,
    estimate: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Do not measure: estimate from this class's published figures."),
    ] = None,
    import_from: Annotated[
        Path | None,
        typer.Option("--import", help="Do not measure: read onnxruntime's profile, or trtexec's --exportProfile."),
    ] = None,
    scale_from: Annotated[Path | None, typer.Option(help="Do not measure: scale this profile.")] = None,
    by: Annotated[float | None, typer.Option(help="With --scale-from: how many times as long it takes.")] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Also find accuracy and early exits on labelled samples: .npz with `label`."),
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option(help="With --calibrate: confidences to try at each exit, as in 0.5,0.9.")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --calibrate: also write what the model says of each sample, to replay it.",
            callback=file_to_write,
        ),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Measure a model's blocks on this device, or make its profile in another way."""
    ways = {"--estimate": estimate, "--import": import_from, "--scale-from": scale_from}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError("more than one way to make a profile", value=" ".join(chosen), expected="one of them")
    _refuse("MODEL", model, "is not needed with --scale-from", unless=scale_from is None)
    _refuse("--by", by, "goes with --scale-from only", unless=scale_from is not None)
    _refuse("--device-class", device_class, "is what --estimate names", unless=estimate is None)
    _refuse("--calibrate", calibrate, "needs a model, not --scale-from", unless=scale_from is None)
    _refuse("--thresholds", thresholds, "goes with --calibrate only", unless=calibrate is not None)
    _refuse("--answers", answers, "goes with --calibrate only", unless=calibrate is not None)
    if scale_from is not None:
        profile = _scaled(scale_from, by, device_class)
    else:
        if model is None:
            raise UsageError("no model given", where="MODEL", expected="an ONNX file")
        chain_model = _load(model, max_blocks, shape)
        points = _calibrated(chain_model, calibrate, thresholds, answers) if calibrate is not None else ()
        if estimate is not None:
            profile = _estimated(chain_model, estimate, points)
        elif import_from is not None:
            profile = _imported(chain_model, import_from, device_class, points)
        else:
            profile = _measured(
                chain_model,
                budget=budget,
                device_class=_needed(device_class),
                provider=provider,
                threads=threads,
                rounds=rounds,
                power_mode=power_mode,
                operating_points=points,
            )
    _finish(profile, output, json=json)


def _load(model: Path, max_blocks: int, shape: list[str] | None) -> ChainModel:
    from planner.model.load import load_chain

    return load_chain(model, max_blocks=max_blocks, shape=parse_shapes(shape))


def _measured(chain_model: ChainModel, *, budget: str, **options: Any) -> Profile:
    from planner.profiling.measure import measure as measure_chain

    budget_s = _seconds(budget)
    try:
        with _progress(f"measuring {chain_model.chain.name}") as progress:
            return measure_chain(chain_model, budget_s=budget_s, progress=progress, **options)
    except KeyboardInterrupt:
        typer.echo("planner: interrupted: too little was measured for a profile, none is written", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _calibrated(
    chain_model: ChainModel, data: Path, thresholds: str | None, output: Path | None
) -> tuple[OperatingPoint, ...]:
    from planner.profiling.operating_points import check_thresholds, load_samples, operating_points, predict
    from planner.profiling.recorded_predictions import save_predictions

    chain = chain_model.chain
    tried = None if thresholds is None else _numbers(thresholds)
    check_thresholds(chain, tried)
    with _progress(f"calibrating {chain.name}") as progress:
        answers = predict(chain_model, load_samples(data, chain), progress=progress)
    if output is not None:
        save_predictions(answers, output)
    return operating_points(chain, answers, tried)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError("no numbers", where="--thresholds", value=text, expected="as in 0.5,0.9") from error


def _estimated(chain_model: ChainModel, name: str, points: Sequence[OperatingPoint]) -> Profile:
    from planner.profiling.device_classes import load_class
    from planner.profiling.estimate import estimate

    return estimate(chain_model, load_class(name), operating_points=points)


def _imported(
    chain_model: ChainModel, path: Path, device_class: str | None, points: Sequence[OperatingPoint]
) -> Profile:
    from planner.profiling.importers import import_profile

    return import_profile(chain_model, path, device_class=_needed(device_class), operating_points=points)


def _scaled(path: Path, by: float | None, device_class: str | None) -> Profile:
    from planner.profiling.estimate import scale
    from planner.profiling.store import load_profile

    if by is None:
        raise UsageError("--scale-from needs a ratio", where="--by", expected="how many times as long it takes")
    return scale(load_profile(path), by, _needed(device_class))


def _refuse(option: str, value: object, why: str, *, unless: bool) -> None:
    """Refuse an option that would have no effect."""
    if value is not None and not unless:
        raise UsageError(why, where=option, value=str(value), expected="nothing")


def _needed(device_class: str | None) -> str:
    if not device_class:
        raise UsageError("no device class given", where="--device-class", expected="a name, as in jetson-nano")
    return device_class


def _finish(profile: Profile, output: Path | None, *, json: bool) -> None:
    """Write and print a new profile; warn of what it says against itself."""
    from planner.profiling.store import profile_path, save_profile

    path = output or profile_path(Path("profiles"), profile.device_class, profile.model.name)
    save_profile(profile, path)
    if json:
        print_json(profile.model_dump(mode="json", by_alias=True))
    else:
        _print_profile(profile)
        typer.echo(f"wrote {path}")
    for warning in profile.environment.get("warnings", ()):
        typer.echo(f"planner: warning: {warning}", err=True)
    if profile.environment.get("partial"):
        typer.echo("planner: interrupted: the profile is partial", err=True)
        raise typer.Exit(INTERRUPTED)


@app.command()
def show(
    profile: Annotated[Path, typer.Argument(help="Profile to show.")],
    *,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw costs along the chain, .svg or .png.", callback=picture_to_write)
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Show a profile: its costs along the chain, and how far they may be believed."""
    from planner.profiling.store import load_profile

    found = load_profile(profile)
    if picture is not None:
        from planner.report.profile import draw_profile

        draw_profile(found, picture)
    if json:
        print_json(found.model_dump(mode="json", by_alias=True))
        return
    _print_profile(found)
    for key, value in found.environment.items():
        if key != "warnings":
            typer.echo(f"{key}: {value}")
    for warning in found.environment.get("warnings", ()):
        typer.echo(f"warning: {warning}")


@app.command()
def diff(
    before: Annotated[Path, typer.Argument(help="A profile.")],
    after: Annotated[Path, typer.Argument(help="Another profile of the same chain.")],
    *,
    json: bool = JSON_OPTION,
) -> None:
    """Show what changed between two profiles of one chain."""
    from planner.profiling.diff import compare
    from planner.profiling.store import load_profile

    found = compare(load_profile(before), load_profile(after))
    rows = list(zip(found.names, found.before_s, found.after_s, strict=True))
    if json:
        print_json(
            {
                "ratio": found.ratio,
                "stage_overhead_s": found.stage_overhead_s,
                "blocks": [{"name": name, "before_s": old_s, "after_s": new_s} for name, old_s, new_s in rows],
                "environment": {key: list(pair) for key, pair in found.environment.items()},
            }
        )
        return
    rows.append(("whole chain", sum(found.before_s), sum(found.after_s)))
    print_table(
        f"{before} and {after}",
        ("block", ">before ms", ">after ms", ">after / before"),
        ((name, f"{1e3 * old_s:.3f}", f"{1e3 * new_s:.3f}", f"{new_s / old_s:.2f}") for name, old_s, new_s in rows),
    )
    for key, (old, new) in found.environment.items():
        typer.echo(f"{key}: {old} -> {new}")


def _print_profile(profile: Profile) -> None:
    longest_s = max(block.mean_s for block in profile.blocks)
    rows = [
        (
            index,
            block.name,
            f"{1e3 * block.mean_s:.3f}",
            f"{1e3 * block.std_s:.3f}",
            "█" * max(round(BAR * block.mean_s / longest_s), 1),
            f"{block.weight_bytes / 2**20:.2f}",
            f"{block.activation_bytes / 2**20:.2f}",
            f"{1e3 * block.load_s:.0f}",
            f"{cut_bytes / 2**10:.1f}",
        )
        for index, (block, cut_bytes) in enumerate(zip(profile.blocks, profile.cut_bytes[1:], strict=True))
    ]
    print_table(
        f"{profile.model.name} on {profile.device_class} ({profile.provenance})",
        (">block", "name", ">ms", ">± ms", "", ">weights MiB", ">peak MiB", ">load ms", ">out KiB"),
        rows,
    )
    total_s = sum(block.mean_s for block in profile.blocks)
    typer.echo(f"whole chain {1e3 * total_s:.2f} ms; each stage adds {1e3 * profile.stage_overhead_s:.3f} ms")
    if profile.fusion_saving_s:
        typer.echo(f"one session in place of all would save about {1e3 * sum(profile.fusion_saving_s):.2f} ms")
    if profile.operating_points:
        best, least = profile.operating_points[0], profile.operating_points[-1]
        typer.echo(
            f"{len(profile.operating_points)} operating points: accuracy {best.accuracy:.1%} ({best.name}) to "
            f"{least.accuracy:.1%} ({least.name}), mean time {1e3 * _mean_s(profile, best):.2f} ms to "
            f"{1e3 * _mean_s(profile, least):.2f} ms"
        )
    error, fit = profile.segment_error, profile.environment.get("fit")
    if error is not None:
        typer.echo(
            f"error on {error.segments} segments not used: median {error.median:.1%}, 95th percentile {error.p95:.1%}"
        )
    if fit:
        typer.echo(
            f"estimated from {fit['figures']} published figures; each, predicted from the others, is missed by "
            f"{fit['median_error']:.0%} (median) to {fit['worst_error']:.0%}"
        )


def _mean_s(profile: Profile, point: OperatingPoint) -> float:
    return sum(reach * block.mean_s for reach, block in zip(point.reach, profile.blocks, strict=True))


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    with progress_bar() as bar:
        task = bar.add_task(title, total=100)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _seconds(text: str) -> float:
    """Read a time such as ``10s`` or ``2 min``; a device that only profiles has no library of units."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min)\s*", text)
    if found is None:
        raise UsageError("not a time", where="--budget", value=text, expected="a time in s or min, as in 60s")
    return float(found[1]) * (60 if found[2] == "min" else 1)
