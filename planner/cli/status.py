"""``planner status``: the state of running agents."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.members import (
    CERT_DIR_OPTION,
    CONNECT_OPTION,
    DISCOVER_OPTION,
    INSECURE_OPTION,
    LISTEN_OPTION,
    WAIT_OPTION,
    inquirer,
)
from planner.cli.output import JSON_OPTION, print_json, print_table
from planner.cli.quantities import read_option
from planner.errors import printable

if TYPE_CHECKING:
    from planner.execution.probe.survey import AgentState


def command(
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="WORKER", help="Agents to query.", show_default="all")
    ] = None,
    *,
    connect: list[str] | None = CONNECT_OPTION,
    listen: str | None = LISTEN_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    discover: bool = DISCOVER_OPTION,
    wait: str = WAIT_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Show the address, the device, the loaded blocks and the load of running agents.

    Agents that have one name by mistake are all listed, and a warning tells where they run.
    """
    with inquirer(connect, listen, cert_dir, insecure=insecure, discover=discover) as agents:
        states = agents.ask(agents.find(workers or (), read_option(wait, "time", "--wait")))
        warnings = [*_problems(agents.problems, states), *agents.unlike]
    by_name: dict[str, list[AgentState]] = {}
    for state in states:
        by_name.setdefault(state.about.worker, []).append(state)
    if json:
        print_json({"agents": {name: _document(*called) for name, called in by_name.items()}})
    else:
        print_table(
            "Agents",
            (
                "agent",
                "address",
                "host (process)",
                "device",
                "provider",
                "versions",
                ">memory",
                "policy",
                "loaded",
                ">queued",
                "running",
            ),
            [_row(state) for state in states],
        )
        for state in states:
            for line in (*_holding(state), *_links(state)):
                typer.echo(printable(line))
    for name, called in by_name.items():
        if len(called) > 1:
            found = "; ".join(str(state.whereabouts) for state in called)
            warnings.append(f"{len(called)} agents are called {name}: {found}; runs refuse them")
    for what in warnings:
        typer.echo(f"planner: warning: {printable(what)}", err=True)


def _problems(known: Mapping[str, str], states: Iterable[AgentState]) -> Iterator[str]:
    """Yield what is wrong with agents: what was noticed while they were asked, and certificates that end soon."""
    from planner.execution.wire.own_certificate import notice_of_end

    for name, what in known.items():
        yield f"{name!r}: {what}"
    for about in (state.about for state in states):
        ends_unix_s = about.certificate_ends_unix_s
        notice = notice_of_end(ends_unix_s - time.time()) if ends_unix_s is not None else None
        if notice and about.worker not in known:
            yield f"{about.worker!r}: {notice}"


def _document(first: AgentState, *namesakes: AgentState) -> dict[str, object]:
    """Return the state of an agent, and those of the others of its name."""
    state = first.about.model_dump(exclude={"kind", "worker"}) | asdict(first.whereabouts)
    return state | ({"namesakes": [_document(other) for other in namesakes]} if namesakes else {})


def _row(state: AgentState) -> tuple[object, ...]:
    about = state.about
    device = about.device_class or " ".join(
        value for key in ("device", "l4t", "power_mode") if (value := about.device.get(key))
    )
    if architecture := about.device.get("architecture"):
        device = f"{device} ({architecture})" if device else architecture
    providers = f"{about.provider} (of {', '.join(about.providers)})" if about.providers else "no onnxruntime"
    versions = f"planner {about.version}, onnxruntime {about.onnxruntime}, Python {about.python}"
    loaded = ", ".join(f"{model}: {_span(blocks)}" for model, blocks in about.loaded.items() if blocks)
    run = f"{about.policy}" if about.run else "idle"
    memory = f"{about.memory_bytes / 2**20:.0f} MiB"
    busy = loaded or "–", about.queued, about.running or "–"
    at = state.whereabouts
    process = f"{at.host} ({at.process_id})"
    return about.worker, at.address or "–", process, device, providers, versions, memory, run, *busy


def _holding(state: AgentState) -> Iterator[str]:
    """Yield who holds an agent, and how many samples it has dropped, as lines for people."""
    about = state.about
    for holding in about.holdings:
        since = datetime.now().astimezone() - timedelta(seconds=holding.held_s)
        share = f" for {holding.share * 100:g} %" if holding.share is not None else ""
        yield f"{about.worker} is held by {holding.holder}{share}, since {since:%Y-%m-%d %H:%M:%S}"
    if about.dropped:
        samples = "1 sample" if about.dropped == 1 else f"{about.dropped} samples"
        yield f"{about.worker} has dropped {samples} whose coordinator had gone"


def _links(state: AgentState) -> Iterator[str]:
    """Yield how fast the links of an agent are, by what runs have sent over them, as lines for people."""
    from planner.units import format_quantity

    about = state.about
    for to, link in sorted(about.links.items()):
        count = "1 transfer" if link.transfers == 1 else f"{link.transfers} transfers"
        speed, age = format_quantity(link.bytes_per_s, "bandwidth"), format_quantity(link.age_s, "time")
        yield f"{about.worker} sends to {to} at {speed}, by {count}, the last {age} ago"


def _span(blocks: tuple[int, ...]) -> str:
    """Return block numbers as ranges: ``0-2, 5`` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
