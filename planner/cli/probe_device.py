"""``planner probe-device``: time small generated models, to which estimates can be fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli import INTERRUPTED
from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.places import file_to_write
from planner.cli.profile import seconds
from planner.cli.provider import OPTIONS_OPTION, PROVIDER_OPTION, chosen


def command(
    *,
    device_class: Annotated[
        str, typer.Option(metavar="NAME", help="Name for the combination of device, provider and number of threads.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write.",
            show_default="profiles/DEVICE-CLASS/device-probe.json",
            callback=file_to_write,
        ),
    ] = None,
    provider: Annotated[str, PROVIDER_OPTION] = "cpu",
    provider_option: Annotated[list[str] | None, OPTIONS_OPTION] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Number of threads that a model may use.")] = 1,
    budget: Annotated[str, typer.Option(metavar="TIME", help="Time limit, such as 60s or 2min.")] = "60s",
    power_mode: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Power mode of the device, recorded as given.")
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Time small generated models on this device: convolutions, products, memory, launches.

    `planner profile estimate --adapt FILE` then estimates any model on this device class.
    """
    from planner.api.profiles import probe_device
    from planner.profiling.device_probe import save_probe
    from planner.profiling.store import profile_path

    try:
        probe = probe_device(
            device_class=device_class,
            provider=chosen(provider, provider_option),
            threads=threads,
            budget_s=seconds(budget),
            power_mode=power_mode,
        )
    except KeyboardInterrupt:
        typer.echo("planner: interrupted; no device probe written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    path = output or profile_path("profiles", device_class, "device-probe")
    save_probe(probe, path)
    if json:
        print_json(probe.model_dump(mode="json", by_alias=True))
    else:
        print_summary(probe)
        typer.echo(f"wrote {path}")
    for warning in probe.environment["warnings"]:
        typer.echo(f"planner: warning: {warning}", err=True)
