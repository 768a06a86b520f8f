"""``planner agent``: run the worker agent on this device."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal

import typer

from planner.cli.logs import LEVELS, log_to_stderr
from planner.cli.members import CERT_DIR_OPTION, INSECURE_OPTION
from planner.cli.provider import OPTIONS_OPTION, PROVIDER_OPTION, chosen
from planner.errors import UsageError

SWITCH_S: Final = 5e-4
"""Time in seconds after which a thread yields the interpreter to another. Python's default is ten times as long, which
would delay the start of the next block."""


def command(
    name: Annotated[str, typer.Option(metavar="NAME", help="This worker's name in the scenario.")],
    connect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT", help="Address of the coordinator or of another agent; it may start later. Repeatable."
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address to listen on.", show_default="loopback, a free port"),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder to cache block models in.", show_default="~/.cache/mdi-planner/blocks"
        ),
    ] = None,
    provider: Annotated[str, PROVIDER_OPTION] = "cpu",
    provider_option: Annotated[list[str] | None, OPTIONS_OPTION] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of threads that a block may use.", show_default="as deployed"),
    ] = None,
    processors: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="CPUs to compute blocks on, such as 2-5.", show_default="all"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help=f"Lowest level to log on stderr: {', '.join(LEVELS)}.", show_default="info"),
    ] = None,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    discover: Annotated[
        bool,
        typer.Option(
            "--discover",
            help="Announce this agent on the local network by multicast, and connect to those that do likewise.",
        ),
    ] = False,
    install_service: Annotated[
        str | None,
        typer.Option(
            metavar="SCOPE",
            help="Write a systemd unit that runs this agent with these options: `user` or `system`. `print` shows that "
            "of the system. Starts nothing.",
        ),
    ] = None,
    remove_service: Annotated[
        str | None,
        typer.Option(metavar="SCOPE", help="Remove the unit that --install-service has written: `user` or `system`."),
    ] = None,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Run the worker agent on this device: compute blocks for a coordinator until interrupted.

    With --install-service or --remove-service, write or remove the systemd unit that runs it, and run nothing.
    """
    from planner.execution.agent.agent import Agent
    from planner.execution.agent.block_cache import BlockCache
    from planner.execution.wire.security import Credentials, check_worker_name
    from planner.execution.wire.threads import start_thread
    from planner.execution.wire.zenoh import zenoh_connect
    from planner.files import cache_folder
    from planner.runtime.processors import parse_cpu_list
    from planner.runtime.providers import find_provider

    if install_service is not None or remove_service is not None:
        check_worker_name(name, where="--name")
        options = {
            "--name": name, "--connect": connect, "--listen": listen, "--cache": cache, "--provider": provider,
            "--provider-option": provider_option,
            "--threads": threads, "--processors": processors, "--log-level": log_level, "--cert-dir": cert_dir,
            "--insecure": insecure, "--discover": discover,
        }  # fmt: skip
        _keep_service(name, _service_command(options), install_service, remove_service)
        return
    # An agent started by another command logs problems only.
    log_to_stderr(log_level or ("warning" if until_stdin_closes else "info"))
    check_worker_name(name, where="--name")
    provider = chosen(provider, provider_option)
    if provider != "cpu":
        find_provider(provider)  # reports at once what is missing on this device; the CPU is always available
    agent: Agent | None = None
    told_to_leave = False

    def stop() -> None:
        nonlocal told_to_leave
        told_to_leave = True
        if agent is not None:
            agent.close()

    # Before the agent opens its transport: an exception there would leave the library's threads behind.
    with _on_signals(stop):
        agent = Agent(
            name,
            zenoh_connect(
                name,
                listen=listen,
                connect=connect or [],
                cert_dir=cert_dir,
                insecure=insecure,
                discover=discover,
            ),
            BlockCache(cache or cache_folder() / "blocks"),
            provider=provider,
            threads=threads,
            processors=parse_cpu_list(processors, where="--processors") if processors is not None else (),
            certificate_ends_unix_s=(
                Credentials.read(cert_dir, name).own.ends_unix_s if cert_dir is not None else None
            ),
        )
        if told_to_leave:
            agent.close()
        sys.setswitchinterval(SWITCH_S)
        gc.freeze()  # a collection that looks at all that was imported stops every thread for tens of milliseconds
        if until_stdin_closes:
            start_thread("stdin", partial(_close_with_stdin, agent.close), lambda _error: agent.close())
        agent.serve()


def _keep_service(name: str, command: Sequence[str], install: str | None, remove: str | None) -> None:
    """Write, print or remove the unit of this agent."""
    from planner.execution.launch.systemd import (
        install_unit,
        manage,
        remove_unit,
        unit_name,
        unit_path,
        unit_text,
    )

    if install is not None and remove is not None:
        raise UsageError("installed and removed at once", where="planner agent", expected="one of the two options")
    if remove is not None:
        scope = _scope(remove, "--remove-service")
        path = unit_path(name, scope)
        typer.echo(f"removed {path}; now: {manage(scope)} daemon-reload" if remove_unit(name, scope) else f"no {path}")
        return
    scope = "system" if install == "print" else _scope(str(install), "--install-service", "print")
    text = unit_text(name, command, scope)
    if install == "print":
        typer.echo(text, nl=False)
        return
    written, path = install_unit(name, text, scope), unit_path(name, scope)
    typer.echo(f"wrote {path}" if written else f"{path} is as it should be")
    typer.echo(f"start it: {manage(scope)} daemon-reload && {manage(scope)} enable --now {unit_name(name)}")
    if scope == "user":
        typer.echo("let it start with the device, not with your first login: loginctl enable-linger")


def _scope(text: str, where: str, *others: str) -> Literal["system", "user"]:
    if text == "system":
        return "system"
    if text == "user":
        return "user"
    raise UsageError("no such scope", where=where, value=text, expected=" | ".join(("user", "system", *others)))


def _service_command(options: Mapping[str, object]) -> list[str]:
    """Return the command of a service, with absolute paths."""
    words = [sys.executable, "-m", "planner", "agent"]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:
                words += [option, str(one.absolute() if isinstance(one, Path) else one)]
    return words


@contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on Ctrl-C and on a request to end, inside the context."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _close_with_stdin(close: Callable[[], None]) -> None:
    """Stop when the process that started this agent has ended, which closes the other end of the pipe."""
    while os.read(
        sys.stdin.fileno(), 1
    ):  # unbuffered: the interpreter aborts at exit if a thread is in a buffered read
        pass
    close()
