"""``planner certs``: create certificates for agents and coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.output import JSON_OPTION, print_json


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the certificate authority; created if missing.")
    ],
    workers: Annotated[list[str], typer.Argument(metavar="WORKER", help="Names of the workers.")],
    *,
    days: Annotated[
        int, typer.Option(min=1, max=36500, metavar="N", help="Number of days that new certificates are valid.")
    ] = 730,
    json: bool = JSON_OPTION,
) -> None:
    """Create a private certificate authority, and a folder of certificates for each worker and for the coordinator.

    Existing files are kept, so workers can be added later. Copy all folders to their devices again afterwards, because
    each holds the names of all members.
    """
    from datetime import timedelta

    from planner.execution.wire.certificates import make_certificates

    members = make_certificates(folder, workers, life=timedelta(days=days))
    if json:
        print_json({"members": {member: str(folder / member) for member in members}})
        return
    typer.echo(f"copy to each device its own folder and nothing else; keep {folder / 'ca.key'} on this machine:")
    for member in members[1:]:
        typer.echo(f"  {folder / member}  ->  planner agent --name {member} --cert-dir ...")
    typer.echo(f"  {folder}  ->  on this machine: planner validate --cert-dir {folder} ...")
