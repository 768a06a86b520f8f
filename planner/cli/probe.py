"""``planner probe``: measure the network between running agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.members import (
    CERT_DIR_OPTION,
    CONNECT_OPTION,
    INSECURE_OPTION,
    LISTEN_OPTION,
    TAKE_OVER_OPTION,
    WAIT_OPTION,
    inquirer,
)
from planner.cli.output import JSON_OPTION, print_json, print_table, progress_bar
from planner.cli.places import file_to_write, picture_to_write
from planner.cli.quantities import read_option
from planner.tables import milliseconds

if TYPE_CHECKING:
    from planner.execution.probe.survey import Survey


def command(
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="WORKER", help="Agents to measure.", show_default="all")
    ] = None,
    *,
    connect: list[str] | None = CONNECT_OPTION,
    listen: str | None = LISTEN_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    wait: str = WAIT_OPTION,
    take_over: bool = TAKE_OVER_OPTION,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Time to load each direction of a link.")] = "1.5 s",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="YAML file to write: the `networks:` section of a scenario.",
            callback=file_to_write,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw the links with their bandwidths and latencies, .svg or .png.",
            callback=picture_to_write,
        ),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Measure bandwidth and latency between running agents, and which links share a medium.

    The measurement loads the network. Agents that are in a run refuse to take part, and no run may begin meanwhile.
    """
    from planner.execution.probe.networks import networks_yaml
    from planner.execution.probe.survey import survey
    from planner.files import write_text_atomic

    duration_s = read_option(duration, "time", "--duration")
    with inquirer(connect, listen, cert_dir, insecure=insecure) as agents, progress_bar() as progress:
        names = agents.find(workers or (), read_option(wait, "time", "--wait"))
        task = progress.add_task("measuring links", total=None)
        links = survey(
            agents,
            names,
            duration_s=duration_s,
            take_over=take_over,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if output is not None:
        write_text_atomic(output, networks_yaml(links))
    if picture is not None:
        from planner.report.links import draw_links

        draw_links(links.workers, links.bytes_per_s, links.latency_s, picture)
    if json:
        print_json(_document(links))
        return
    _print(links)
    if output is None:
        typer.echo(networks_yaml(links), nl=False)


def _document(links: Survey) -> dict[str, object]:
    return {
        "workers": list(links.workers),
        "ways": [
            {"from": a, "to": b, "bandwidth_bytes_per_s": rate, "latency_s": links.latency_s[a, b]}
            for (a, b), rate in links.bytes_per_s.items()
        ],
        "media": [{"shared": medium.shared, "pairs": [list(pair) for pair in medium.pairs]} for medium in links.media],
    }


def _print(links: Survey) -> None:
    print_table(
        "Links between agents",
        ("from", "to", ">bandwidth", ">latency"),
        [
            (a, b, f"{rate * 8 / 1e6:.4g} Mbit/s", milliseconds(links.latency_s[a, b]))
            for (a, b), rate in links.bytes_per_s.items()
        ],
    )
    for medium in links.media:
        what = "share one medium" if medium.shared else "have a link with independent directions"
        typer.echo(f"{', '.join(medium.members)} {what}")
