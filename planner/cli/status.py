"""``planner status``: the state of running agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.members import CERT_DIR_OPTION, CONNECT_OPTION, INSECURE_OPTION, LISTEN_OPTION, WAIT_OPTION, inquirer
from planner.cli.output import JSON_OPTION, print_json, print_table

if TYPE_CHECKING:
    from planner.execution.wire.diagnostics import About


def command(
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="WORKER", help="Agents to query.", show_default="all")
    ] = None,
    *,
    connect: list[str] | None = CONNECT_OPTION,
    listen: str | None = LISTEN_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    wait: str = WAIT_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Show the device, the loaded blocks and the load of running agents."""
    from planner.units import read_quantity

    with inquirer(connect, listen, cert_dir, insecure=insecure) as agents:
        states = agents.ask(agents.find(workers or (), read_quantity(wait, "time")))
    if json:
        print_json({"agents": {name: about.model_dump(exclude={"kind", "worker"}) for name, about in states.items()}})
        return
    print_table(
        "Agents",
        ("agent", "device", "provider", "versions", ">memory", "policy", "loaded", ">queued", "running"),
        [_row(about) for about in states.values()],
    )


def _row(about: About) -> tuple[object, ...]:
    device = about.device_class or " ".join(
        value for key in ("device", "l4t", "power_mode") if (value := about.device.get(key))
    )
    providers = f"{about.provider} (of {', '.join(about.providers)})" if about.providers else "no onnxruntime"
    versions = f"planner {about.version}, onnxruntime {about.onnxruntime}, Python {about.python}"
    loaded = ", ".join(f"{model}: {_span(blocks)}" for model, blocks in about.loaded.items() if blocks)
    run = f"{about.policy}" if about.run else "idle"
    memory = f"{about.memory_bytes / 2**20:.0f} MiB"
    return about.worker, device, providers, versions, memory, run, loaded or "–", about.queued, about.running or "–"


def _span(blocks: tuple[int, ...]) -> str:
    """Return block numbers as ranges: ``0-2, 5`` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
