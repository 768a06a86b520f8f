"""Versions of what is installed."""

from __future__ import annotations

from importlib import metadata


def installed_version(distribution: str) -> str:
    """Return the version of a distribution; ``unknown`` where it is not installed, as in a checkout on the path."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
