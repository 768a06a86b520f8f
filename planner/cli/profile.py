"""``planner profile``: what each block of a model costs on a device class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.profile.sampling import Progress
    from planner.profile.types import Profile

INTERRUPTED = 130


class _MeasureByDefault(TyperGroup):
    """``planner profile MODEL`` is ``planner profile measure MODEL``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
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
    model: Annotated[Path, typer.Argument(help="ONNX model.")],
    *,
    device_class: Annotated[str, typer.Option(help="What to call this device with its provider and threads.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.  [profiles/DEVICE-CLASS/MODEL.json]")
    ] = None,
    provider: Annotated[str, typer.Option(help="cpu, cuda or tensorrt.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads that a block may use.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often each block is timed, at most.")] = 40,
    budget: Annotated[str, typer.Option(help="Time for the whole, as in 10s or 2min.")] = "60s",
    power_mode: Annotated[str | None, typer.Option(help="The device's power mode, recorded as given.")] = None,
    max_blocks: Annotated[int, typer.Option(help="How many blocks the model is seen as, at most.")] = 8,
    shape: Annotated[
        list[str] | None, typer.Option(help="Shape of an input with open axes, as in input=1,3,224,224.")
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Measure a model's blocks on this device."""
    from planner.model.load import load_chain
    from planner.profile.measure import measure as measure_chain

    budget_s = _seconds(budget)
    chain_model = load_chain(model, max_blocks=max_blocks, shape=_shapes(shape or ()))
    with _progress(f"measuring {chain_model.chain.name}") as progress:
        profile = measure_chain(
            chain_model,
            device_class=device_class,
            provider=provider,
            threads=threads,
            rounds=rounds,
            budget_s=budget_s,
            power_mode=power_mode,
            progress=progress,
        )
    _finish(profile, output, json=json)


def _finish(profile: Profile, output: Path | None, *, json: bool) -> None:
    """Write and print a new profile; warn of what it says against itself."""
    from planner.profile.store import profile_path, save_profile

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


def _print_profile(profile: Profile) -> None:
    rows = [
        (
            index,
            block.name,
            f"{1e3 * block.mean_s:.3f}",
            f"{1e3 * block.std_s:.3f}",
            f"{block.weight_bytes / 2**20:.2f}",
            f"{block.activation_bytes / 2**20:.2f}",
            f"{1e3 * block.load_s:.0f}",
            f"{cut_bytes / 2**10:.1f}",
        )
        for index, (block, cut_bytes) in enumerate(zip(profile.blocks, profile.cut_bytes[1:], strict=True))
    ]
    print_table(
        f"{profile.model.name} on {profile.device_class} ({profile.provenance})",
        (">block", "name", ">ms", ">± ms", ">weights MiB", ">peak MiB", ">load ms", ">out KiB"),
        rows,
    )
    total_s = sum(block.mean_s for block in profile.blocks)
    typer.echo(f"whole chain {1e3 * total_s:.2f} ms; each stage adds {1e3 * profile.stage_overhead_s:.3f} ms")
    if profile.segment_error:
        error = profile.segment_error
        typer.echo(
            f"error on {error.segments} segments not used: median {error.median:.1%}, 95th percentile {error.p95:.1%}"
        )


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


def _shapes(options: Sequence[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for option in options:
        found = re.fullmatch(r"(.+)=(\d+(?:,\d+)*)", option.replace(" ", ""))
        if found is None:
            raise UsageError("not a shape", where="--shape", value=option, expected="NAME=1,3,224,224")
        shapes[found[1]] = tuple(map(int, found[2].split(",")))
    return shapes
