"""``planner probe``: measure the network between running agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.members import CERT_DIR_OPTION, CONNECT_OPTION, INSECURE_OPTION, LISTEN_OPTION, WAIT_OPTION, inquirer
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import file_to_write, picture_to_write
from planner.tables import milliseconds

if TYPE_CHECKING:
    from planner.execution.probe.survey import Survey


def command(
    workers: Annotated[list[str] | None, typer.Argument(metavar="WORKER", help="Agents; all by default.")] = None,
    *,
    connect: list[str] | None = CONNECT_OPTION,
    listen: str | None = LISTEN_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    wait: str = WAIT_OPTION,
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long each way is loaded.")] = "1.5 s",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="YAML to write: a scenario's `networks:` section.",
            callback=file_to_write,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Picture to write, .svg or .png: who reaches whom, and how fast.",
            callback=picture_to_write,
        ),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Measure bandwidth and latency between running agents, and which of their ways share a medium.

    Loads the network while it measures; agents that are in a run refuse.
    """
    from planner.execution.probe.networks import networks_yaml
    from planner.execution.probe.survey import survey
    from planner.files import write_text_atomic
    from planner.units import read_quantity

    duration_s = read_quantity(duration, "time")
    with inquirer(connect, listen, cert_dir, insecure=insecure) as asking, progress_bar() as progress:
        names = asking.find(workers or (), read_quantity(wait, "time"))
        task = progress.add_task("measure links", total=None)
        found = survey(
            asking,
            names,
            duration_s=duration_s,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if output is not None:
        write_text_atomic(output, networks_yaml(found))
    if picture is not None:
        from planner.report.links import draw_links

        draw_links(found.workers, found.bytes_per_s, found.latency_s, picture)
    if json:
        print_json(_document(found))
        return
    _print(found)
    if output is None:
        typer.echo(networks_yaml(found), nl=False)


def _document(found: Survey) -> dict[str, object]:
    return {
        "workers": list(found.workers),
        "ways": [
            {"from": a, "to": b, "bandwidth_bytes_per_s": rate, "latency_s": found.latency_s[a, b]}
            for (a, b), rate in found.bytes_per_s.items()
        ],
        "media": [{"shared": medium.shared, "pairs": [list(pair) for pair in medium.pairs]} for medium in found.media],
    }


def _print(found: Survey) -> None:
    print_table(
        "Between each two agents",
        ("from", "to", ">bandwidth", ">latency"),
        [
            (a, b, f"{rate * 8 / 1e6:.4g} Mbit/s", milliseconds(found.latency_s[a, b]))
            for (a, b), rate in found.bytes_per_s.items()
        ],
    )
    for medium in found.media:
        what = "share one medium" if medium.shared else "have a link whose directions are independent"
        typer.echo(f"{', '.join(medium.members)} {what}")
