"""``planner run``: run a plan on the user's own samples."""

from __future__ import annotations

import json as json_library
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import planner
from planner.cli.live import RunView
from planner.cli.members import (
    CERT_DIR_OPTION,
    HOME_TIMEOUT_OPTION,
    INSECURE_OPTION,
    LATER_OPTION,
    RUN_ON_OPTION,
    SHARE_OPTION,
    TAKE_OVER_OPTION,
    read_share,
)
from planner.cli.names import POLICIES
from planner.cli.output import echo_faults, print_table
from planner.cli.places import folder_to_write
from planner.cli.quantities import read_option
from planner.errors import PlannerError, UsageError, printable
from planner.tables import milliseconds
from planner.trace.metrics import Distribution

FAILURES_SHOWN: Final = 5

if TYPE_CHECKING:
    from planner.execution.session.feed import SampleOutcome


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    source: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PLACE",
            help="Samples of a source. PLACE is a folder of .npy or .npz files, an .npz file of arrays "
            "with one sample per entry of the first axis, or a command that writes .npy arrays to stdout. "
            "Repeatable.",
        ),
    ],
    connect: list[str] | None = RUN_ON_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help=f"One of {POLICIES}.")] = "planned",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of in-flight samples per source.")] = 4,
    as_they_come: Annotated[
        bool, typer.Option("--as-they-come", help="Return results as they arrive instead of in order.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write results to: SOURCE/SAMPLE.npz, listed in SOURCE.jsonl.",
            callback=folder_to_write,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="With -o: skip samples that already have results.")] = False,
    later: list[str] | None = LATER_OPTION,
    share: str | None = SHARE_OPTION,
    take_over: bool = TAKE_OVER_OPTION,
    home_timeout: str = HOME_TIMEOUT_OPTION,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per sample on stdout.")] = False,
) -> None:
    """Run a plan on your own samples.

    Samples are read as fast as they are processed. With --json and without -o, the printed lines include the results.

    Exit code 0: every sample has a result; 1: some failed, or another run took the agents over; 2: invalid input.
    """
    from planner.execution.session.feed import Feed
    from planner.execution.session.results import folder_of_run
    from planner.execution.session.samples import find_samples, first_inputs
    from planner.execution.wire.claims import TakenOverError

    if resume and output is None:
        raise UsageError("nothing to resume", where="--resume", expected="--output FOLDER")
    places = read_places(source)
    totals: dict[str, int | None] = dict.fromkeys(places)
    view = RunView(totals)
    session = planner.Session(
        plan,
        scenario=scenario,
        connect=connect or (),
        cert_dir=cert_dir,
        insecure=insecure,
        policy=policy,
        limit=limit,
        later=later or (),
        share=read_share(share),
        take_over=take_over,
        home_timeout_s=read_option(home_timeout, "time", "--home-timeout"),
        observer=view,
    )
    _refuse_sequences(places, session.plan)
    samples = {
        own: find_samples(place, own.inputs)
        for own, place in ((session.source(name), place) for name, place in places.items())
    }
    instance = session.plan.scenario.instance
    folder = folder_of_run(output, instance, places, resume=resume) if output is not None else None
    skip = folder.has if folder is not None and resume else None
    for own, found in samples.items():
        if isinstance(found, Sequence):
            own.warm_up(first_inputs(found))
            totals[own.name] = sum(skip is None or not skip(own.name, sample.name) for sample in found)
    tally = {name: _Tally() for name in places}
    feed = Feed(samples, in_order=not as_they_come, skip=skip)
    try:
        with view, session:
            for outcome in feed.outcomes():
                written = folder.write(outcome) if folder is not None else outcome
                tally[written.source].add(written)
                if json:
                    _print_line(written)
    except (KeyboardInterrupt, PlannerError) as error:  # Ctrl-C is how a command that never ends is ended
        if any(feed.submitted.values()):
            _print_tally(tally, json=json, submitted=feed.submitted)
        if isinstance(error, TakenOverError):
            echo_faults(error)
            raise typer.Exit(1) from None
        raise
    _print_tally(tally, json=json)
    _tell_away(view.away, connected=bool(connect))
    if any(own.failed for own in tally.values()):
        raise typer.Exit(1)


def read_places(options: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=PLACE`` options.

    Raises
    ------
    UsageError
        If an option lacks the name or the place, or a source is named twice.
    """
    places: dict[str, str] = {}
    for option in options:
        name, _, place = option.partition("=")
        if not name or not place:
            raise UsageError("not a source's samples", where="--source", value=option, expected="NAME=PLACE")
        if name in places:
            raise UsageError("a source is named twice", where="--source", value=name)
        places[name] = place
    return places


def _refuse_sequences(sources: Iterable[str], plan: planner.Plan) -> None:
    known = plan.scenario.instance.scenario.sources
    for name in sources:
        if name in known and known[name].decode is not None:
            raise UsageError(
                "the source produces sequences of tokens, not single samples",
                where="--source",
                value=name,
                expected=f"planner generate PLAN --source {name} --tokens LIST, or a source without decode:",
            )


def _tell_away(workers: Iterable[str], *, connected: bool) -> None:
    """Tell which workers were not in the run at its end, and what helps."""
    for worker in workers:
        what = f"planner: warning: {worker} was not in the run at its end"
        if connected:
            what += f"; an agent of that name joins as soon as it connects, and --later {worker} starts without it"
        typer.echo(what, err=True)


def _print_line(outcome: SampleOutcome) -> None:
    from planner.execution.session.results import as_json, outcome_line

    line = outcome_line(outcome)
    if outcome.file is not None:
        line["file"] = str(outcome.file)
    elif outcome.result is not None:
        line["outputs"] = {name: as_json(array) for name, array in outcome.result.outputs.items()}
    sys.stdout.write(json_library.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


class _Tally:
    """Numbers and delays of the completed and failed samples of a source."""

    def __init__(self) -> None:
        self.delays = Distribution()
        self.failed = 0
        self.failures: list[str] = []
        """Descriptions of the first failures."""

    def add(self, outcome: SampleOutcome) -> None:
        if outcome.result is not None:
            self.delays.add(outcome.result.delay_s)
            return
        self.failed += 1
        if self.failed <= FAILURES_SHOWN:
            self.failures.append(printable(f"{outcome.source}, {outcome.name}: {outcome.reason}"))


def _print_tally(tally: Mapping[str, _Tally], *, json: bool, submitted: Mapping[str, int] | None = None) -> None:
    """Print what became of the samples; ``submitted`` tells of a run that was ended how many there should be."""
    if json:
        return
    rows = []
    for name, own in tally.items():
        p95_s = own.delays.percentiles((95,))[0] if own.delays.count else None
        mean_s = own.delays.mean if own.delays.count else None
        missing = (submitted[name] - own.delays.count - own.failed,) if submitted is not None else ()
        rows.append((name, own.delays.count, own.failed, *missing, milliseconds(mean_s), milliseconds(p95_s)))
    not_received = (">not received",) if submitted is not None else ()
    print_table("Samples", ("source", ">completed", ">failed", *not_received, ">mean delay", ">95 %"), rows)
    for name, own in tally.items():
        for failure in own.failures:
            typer.echo(failure)
        if own.failed > FAILURES_SHOWN:
            typer.echo(f"{name}: {own.failed - FAILURES_SHOWN} more failed")
