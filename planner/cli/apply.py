"""``planner apply``: have a running service follow another plan or scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.output import JSON_OPTION, print_json, print_summary
from planner.cli.quantities import read_time_limit


def command(
    new: Annotated[Path, typer.Argument(metavar="SCENARIO|PLAN", help="Scenario file (YAML) or plan file (JSON).")],
    *,
    to: Annotated[str, typer.Option(metavar="URL", help="Address of the service: http://HOST:PORT.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    time_limit: Annotated[str, typer.Option(help="Time limit of the search for a scenario's plan.")] = "10s",
    json: bool = JSON_OPTION,
) -> None:
    """Have a running service follow another plan, or the plan of another scenario, without losing a sample.

    The agents load what they need while the old plan goes on. Samples in flight then end on their old routes. The
    command shows how the plan changes. If the service refuses the plan, its old one goes on.

    Paths in the scenario are relative to the folder of the service's own scenario.
    """
    from planner.api.applying import apply_at

    found = apply_at(to, new, time_limit_s=read_time_limit(time_limit), dry_run=dry_run)
    if json:
        print_json(found.to_dict())
    else:
        print_summary(found)
