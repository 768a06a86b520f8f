"""``planner certs``: create, renew and revoke certificates of agents and coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.output import JSON_OPTION, print_json
from planner.errors import UsageError


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the certificate authority; created if missing.")
    ],
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="WORKER", help="Names of the workers.", show_default=False)
    ] = None,
    *,
    revoke: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Member whose certificate is no longer valid; if NAME is also a WORKER, it gets another. Repeatable.",
        ),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace existing certificates of these workers, which end soon.")
    ] = False,
    days: Annotated[
        int, typer.Option(min=1, max=36500, metavar="N", help="Number of days that new certificates are valid.")
    ] = 730,
    json: bool = JSON_OPTION,
) -> None:
    """Create a private certificate authority, and a folder of certificates for each worker and for the coordinator.

    Existing files are kept, so workers can be added later. Copy all folders to their devices again afterwards, because
    each holds the names of all members. This also holds after --revoke: an agent refuses the certificate once it has
    been started with the new list. The coordinator's certificate is called _coordinator.
    """
    from datetime import timedelta

    from planner.execution.wire.certificates import make_certificates

    if not workers and not revoke:
        raise UsageError("nothing to do", where="planner certs", expected="a WORKER, or --revoke NAME")
    members = make_certificates(folder, workers or (), life=timedelta(days=days), revoke=revoke or (), renew=renew)
    if json:
        print_json({"members": {member: str(folder / member) for member in members}})
        return
    if revoke:
        typer.echo(
            f"revoked: {', '.join(revoke)}; valid on each device until its agent has been started with the new list"
        )
    typer.echo(f"copy to each device its own folder and nothing else; keep {folder / 'ca.key'} on this machine:")
    for member in members[1:]:
        typer.echo(f"  {folder / member}  ->  planner agent --name {member} --cert-dir ...")
    typer.echo(f"  {folder}  ->  on this machine: planner validate --cert-dir {folder} ...")
