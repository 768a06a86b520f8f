"""``planner agent``: be one worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from planner.cli.logs import LEVELS, log_to_stderr
from planner.cli.members import CERT_DIR_OPTION, INSECURE_OPTION

SWITCH_S: Final = 5e-4
"""How long one thread may keep another waiting for the interpreter; by default ten times as long, in which a block that
has ended could begin no other."""


def command(
    name: Annotated[str, typer.Option(metavar="NAME", help="This worker's name in the scenario.")],
    connect: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="The coordinator or another agent, which may come later. Repeatable."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen.", show_default="loopback, a free port")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where block models are kept.", show_default="~/.cache/mdi-planner/blocks"),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(metavar="NAME", help="Execution provider of the blocks: cpu, cuda, tensorrt or tensorrt-fp16."),
    ] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads that a block runs with.", show_default="as the deployment says"),
    ] = None,
    processors: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Processors that blocks are computed on, e.g. 2-5.", show_default="any"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help=f"What to tell on stderr: {', '.join(LEVELS)}.", show_default="info"),
    ] = None,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Be one worker: run blocks for a coordinator, until interrupted."""
    from planner.execution.agent.agent import Agent
    from planner.execution.agent.block_cache import BlockCache
    from planner.execution.wire.security import check_worker_name
    from planner.execution.wire.threads import start_thread
    from planner.execution.wire.zenoh import zenoh_connect
    from planner.runtime.processors import parse_cpu_list
    from planner.runtime.providers import find_provider

    # An agent that another command has started speaks when something is wrong.
    log_to_stderr(log_level or ("warning" if until_stdin_closes else "info"))
    check_worker_name(name, where="--name")
    if provider != "cpu":
        find_provider(provider)  # says at once what this device lacks; the CPU is always there
    agent = Agent(
        name,
        zenoh_connect(name, listen=listen, connect=connect or [], cert_dir=cert_dir, insecure=insecure),
        BlockCache(cache or _cache_folder()),
        provider=provider,
        threads=threads,
        processors=parse_cpu_list(processors, where="--processors") if processors is not None else (),
    )

    def leave(_signal: int, _frame: FrameType | None) -> None:
        agent.close()

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    sys.setswitchinterval(SWITCH_S)
    if until_stdin_closes:
        start_thread("stdin", partial(_close_with_stdin, agent.close), lambda _error: agent.close())
    agent.serve()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mdi-planner" / "blocks"


def _close_with_stdin(close: Callable[[], None]) -> None:
    """Leave when the process that started this agent is gone, and with it the other end of the pipe."""
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: a buffer in use would break the end of the process
        pass
    close()
