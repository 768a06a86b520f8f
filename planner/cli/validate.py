"""``planner validate``: run a plan on real agents and compare with its prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import planner
from planner.cli.live import RunView
from planner.cli.members import (
    CERT_DIR_OPTION,
    HOME_TIMEOUT_OPTION,
    INSECURE_OPTION,
    LATER_OPTION,
    SHARE_OPTION,
    TAKE_OVER_OPTION,
    read_share,
)
from planner.cli.names import POLICIES
from planner.cli.output import JSON_OPTION, echo_faults, print_json, print_summary, print_table
from planner.cli.places import folder_to_write
from planner.cli.quantities import read_option
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.api.progress import Progress


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Run on agents on this machine, with workers and network paced as in the scenario."
        ),
    ] = False,
    netns: Annotated[
        bool,
        typer.Option(
            "--netns", help="Run on agents on this machine, connected by real links with the scenario's bandwidths."
        ),
    ] = False,
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", help="Run on agents that are already running: address of one of them. Repeatable."
        ),
    ] = None,
    unpaced: Annotated[
        bool,
        typer.Option("--unpaced", help="With --local or --netns: run at this machine's own speed, not the scenario's."),
    ] = False,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Samples of a source: .npz file with inputs by name. With `label`, accuracy is measured. "
            "For sequences a JSON list of prompts, each a list of tokens. Repeatable.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of samples per source.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run only the samples that arrive within TIME, such as 30s.")
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help=f"One of {POLICIES}.")] = "planned",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of arrivals and random inputs.")] = 0,
    tolerance: Annotated[
        str, typer.Option(metavar="SHARE", help="Maximum relative error of predicted mean delays.")
    ] = "15 %",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write traces, logs, verdict and pictures to.",
            callback=folder_to_write,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Calibrate for TIME before and after the run and predict from what it measures."
        ),
    ] = None,
    later: list[str] | None = LATER_OPTION,
    share: str | None = SHARE_OPTION,
    take_over: bool = TAKE_OVER_OPTION,
    home_timeout: str = HOME_TIMEOUT_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Run a plan on real agents; check that outputs are equal and delays as predicted.

    Exit code 0: the run passed; 1: it did not, or another run took the agents over; 2: invalid input.
    """
    from planner.execution.launch.setting import shortened
    from planner.execution.wire.claims import TakenOverError

    if (local, netns, bool(connect)).count(True) != 1:
        raise UsageError(
            "where to run is not said, or said twice",
            where="planner validate",
            expected="--local, --netns or --connect",
        )
    allowed = read_option(tolerance, "fraction", "--tolerance")
    duration_s = read_option(duration, "time", "--duration") if duration is not None else None
    loaded = planner.load_plan(plan, scenario)
    instance = shortened(loaded.scenario.instance, seed=seed, max_samples=samples, duration_s=duration_s)
    view = RunView({name: instance.samples(name) for name in instance.sources})
    try:
        with view:
            verdict = planner.validate(
                loaded,
                place="remote" if connect else "netns" if netns else "local",
                paced=not unpaced,
                connect=connect or (),
                cert_dir=cert_dir,
                insecure=insecure,
                samples=_files(source or ()),
                max_samples=samples,
                duration_s=duration_s,
                policy=policy,
                seed=seed,
                tolerance=allowed,
                calibrate_s=read_option(calibrate, "time", "--calibrate") if calibrate is not None else 0.0,
                later=later or (),
                share=read_share(share),
                take_over=take_over,
                home_timeout_s=read_option(home_timeout, "time", "--home-timeout"),
                progress=shown_by(view),
                observer=view,
            )
    except (KeyboardInterrupt, TakenOverError) as error:
        if view.started and not json:
            print_table("Samples, without a verdict", *view.tally())
        if isinstance(error, TakenOverError):
            echo_faults(error)
            raise typer.Exit(1) from None
        raise
    with _printed(verdict, json=json):  # even if it cannot be saved
        if output is not None:
            pictures = verdict.save(output)
            if not json:
                print_folder(output, pictures)
    if not verdict.passed:
        raise typer.Exit(1)


@contextmanager
def _printed(verdict: planner.Verdict, *, json: bool) -> Iterator[None]:
    """Print a verdict at the end, also after an error."""
    try:
        yield
    finally:
        if json:
            print_json(verdict.to_dict())
        else:
            print_summary(verdict)


def _files(words: Sequence[str]) -> dict[str, str]:
    """Read the samples of sources given as ``NAME=FILE``."""
    files: dict[str, str] = {}
    for word in words:
        name, _, file = word.partition("=")
        if not name or not file or name in files:
            expected = "NAME=FILE.npz, each NAME once"
            raise UsageError("not the samples of a source", where="--source", value=word, expected=expected)
        files[name] = file
    return files


def shown_by(view: RunView) -> Progress:
    """Return a callback that shows the progress of a run's steps on its view."""
    steps: dict[str, Callable[[int, int], None]] = {}

    def progress(step: str, done: float, total: float | None) -> None:
        if step not in steps:
            steps[step] = view.say(step)
        if total is not None:
            steps[step](int(done), int(total))

    return progress


def print_folder(folder: Path, pictures: Mapping[str, Path]) -> None:
    """Print which files were written."""
    typer.echo(f"pictures: {', '.join(map(str, pictures.values()))}")
    typer.echo(f"all else: {folder}")
