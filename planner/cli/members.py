"""Options of all commands that meet other members: how links are secured."""

from __future__ import annotations

import typer

CERT_DIR_OPTION = typer.Option(
    None, "--cert-dir", help="Folder by `planner certs`: links are mutual TLS, and members known by name."
)
INSECURE_OPTION = typer.Option(
    False, "--insecure", help="Use addresses off the loopback interface without certificates: on a network you trust."
)
