"""Cables of workers in network namespaces, to pull and to plug in again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from planner.execution.launch.netns import NamespaceLayout


def pull(layout: NamespaceLayout, worker: str, ports: Sequence[str] | None = None) -> None:
    """Pull all cables of a worker, or those in some ports: it and the others see silence, not an end."""
    _set(layout, ports or layout.ports[worker], "down")


def plug_in(layout: NamespaceLayout, worker: str) -> None:
    """Plug all cables of a worker in again."""
    _set(layout, layout.ports[worker], "up")


def _set(layout: NamespaceLayout, ports: Sequence[str], state: str) -> None:
    for port in ports:
        subprocess.run([str(shutil.which("ip")), "-n", layout.hub, "link", "set", port, state], check=True)
