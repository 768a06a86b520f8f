"""What all commands that meet agents have in common: addresses, and how links are secured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from planner.execution.probe.survey import Inquirer

CONNECT_OPTION = typer.Option(
    None, "--connect", metavar="HOST:PORT", help="An agent; the others are found through it. Repeatable."
)
LISTEN_OPTION = typer.Option(
    None,
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen, for agents that connect.",
    show_default="loopback, a free port",
)
WAIT_OPTION = typer.Option("3 s", "--wait", metavar="TIME", help="How long to wait for agents.")
CERT_DIR_OPTION = typer.Option(
    None, "--cert-dir", metavar="FOLDER", help="By `planner certs`: links are mutual TLS, and members known by name."
)
INSECURE_OPTION = typer.Option(
    False, "--insecure", help="Use addresses off the loopback interface without certificates: on a network you trust."
)
LATER_OPTION = typer.Option(
    None,
    "--later",
    metavar="WORKER",
    help="With --connect: a worker that need not be there at the start and joins when it comes. Repeatable.",
)


def inquirer(connect: list[str] | None, listen: str | None, cert_dir: Path | None, *, insecure: bool) -> Inquirer:
    """Join agents, to ask them about themselves and their links.

    Raises
    ------
    UsageError
        Neither whom to connect to nor where to listen is said.
    """
    from planner.errors import UsageError
    from planner.execution.probe.survey import Inquirer
    from planner.execution.wire.messages import COORDINATOR
    from planner.execution.wire.zenoh import zenoh_connect

    if not connect and listen is None:
        raise UsageError("where the agents are is not said", where="planner", expected="--connect HOST:PORT")
    return Inquirer(
        zenoh_connect(COORDINATOR, listen=listen, connect=connect or [], cert_dir=cert_dir, insecure=insecure)
    )
