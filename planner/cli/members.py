"""Options of all commands that communicate with agents: addresses, and security of links."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.cli.quantities import read_option

if TYPE_CHECKING:
    from planner.execution.probe.survey import Inquirer

RUN_ON_OPTION = typer.Option(
    None,
    "--connect",
    metavar="HOST:PORT",
    help="Run on agents that are already running: address of one of them. Repeatable.",
    show_default="agents on this machine",
)
CONNECT_OPTION = typer.Option(
    None, "--connect", metavar="HOST:PORT", help="Address of an agent, through which the others are found. Repeatable."
)
LISTEN_OPTION = typer.Option(
    None,
    "--listen",
    metavar="HOST:PORT",
    help="Address to listen on for agents that connect.",
    show_default="loopback, a free port",
)
WAIT_OPTION = typer.Option("3 s", "--wait", metavar="TIME", help="Time to wait for agents.")
CERT_DIR_OPTION = typer.Option(
    None,
    "--cert-dir",
    metavar="FOLDER",
    help="Folder from `planner certs`: links use mutual TLS, and members are identified by name.",
)
INSECURE_OPTION = typer.Option(
    False, "--insecure", help="Allow addresses other than loopback without certificates. Only for networks you trust."
)
TAKE_OVER_OPTION = typer.Option(
    False, "--take-over", help="Take agents over from another run, which then ends with a message."
)
SHARE_OPTION = typer.Option(
    None,
    "--share",
    metavar="PERCENT",
    help="With --connect: share of each agent's memory and processor time that is enough, such as 50 %. Other runs "
    "with --share may use the rest.",
    show_default="no other run",
)
HOME_TIMEOUT_OPTION = typer.Option(
    "30 s",
    "--home-timeout",
    metavar="TIME",
    help="Time for which a source waits for its own worker, if that is away; then its samples fail.",
)
LATER_OPTION = typer.Option(
    None,
    "--later",
    metavar="WORKER",
    help="With --connect: worker that may be absent at the start and joins when it appears. Repeatable.",
)


DISCOVER_OPTION = typer.Option(
    False, "--discover", help="Find agents on the local network that were started with --discover."
)


def read_share(text: str | None) -> float | None:
    """Read ``--share``.

    Raises
    ------
    UsageError
        If it is no percentage.
    """
    return None if text is None else read_option(text, "fraction", "--share")


def inquirer(
    connect: list[str] | None, listen: str | None, cert_dir: Path | None, *, insecure: bool, discover: bool = False
) -> Inquirer:
    """Connect to agents, to query them and to measure their links.

    Raises
    ------
    UsageError
        If there is neither an address to connect to nor one to listen on, and none is to be discovered.
    """
    from planner.errors import UsageError
    from planner.execution.probe.survey import Inquirer
    from planner.execution.wire.messages import COORDINATOR
    from planner.execution.wire.zenoh import zenoh_connect

    if not connect and listen is None and not discover:
        raise UsageError("no address of an agent given", where="planner", expected="--connect HOST:PORT")
    return Inquirer(
        zenoh_connect(
            COORDINATOR, listen=listen, connect=connect or [], cert_dir=cert_dir, insecure=insecure, discover=discover
        )
    )
