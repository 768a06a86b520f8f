"""Versions of what is installed, and how to install the rest."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path


def installed_version(distribution: str) -> str:
    """Return the version of a distribution; ``unknown`` where it is not installed, as in a checkout on the path."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def installation(*extras: str) -> str:
    """Return the command that installs extras: from the checkout, if this is one, else from a wheel.

    Not by name: the package is on no index yet, where anybody may take its name.
    """
    root = Path(__file__).parents[1]
    what = os.path.relpath(root) if (root / "pyproject.toml").is_file() else "WHEEL"
    command = f'`pip install "{what}[{",".join(extras)}]"`'
    return f"{command} with the wheel of planner" if what == "WHEEL" else command
