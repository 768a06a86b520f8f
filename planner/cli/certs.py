"""``planner certs``: certificates for agents and coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.output import JSON_OPTION, print_json


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the certificate authority; made if need be.")
    ],
    workers: Annotated[list[str], typer.Argument(metavar="WORKER", help="Names of the workers.")],
    *,
    days: Annotated[int, typer.Option(min=1, help="How long new certificates hold.")] = 730,
    json: bool = JSON_OPTION,
) -> None:
    """Make a private certificate authority, and a folder of certificates for each worker and for the coordinator.

    What is there already stays, so that workers can be added later; all folders are to be copied again then, since
    each holds the names of all members.
    """
    from datetime import timedelta

    from planner.execution.wire.certificates import make_certificates

    members = make_certificates(folder, workers, life=timedelta(days=days))
    if json:
        print_json({"members": {member: str(folder / member) for member in members}})
        return
    typer.echo(f"copy to each device its own folder, and nothing else; {folder / 'ca.key'} stays here:")
    for member in members[1:]:
        typer.echo(f"  {folder / member}  ->  planner agent --name {member} --cert-dir ...")
    typer.echo(f"  {folder}  ->  here: planner validate --cert-dir {folder} ...")
