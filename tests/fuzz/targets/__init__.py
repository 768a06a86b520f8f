"""One module per reader, each with its ``TARGET``; the name of the module is that of the target."""

from __future__ import annotations

import importlib
import pkgutil

from tests.fuzz.judge import Target


def names() -> list[str]:
    """Return the names of all targets."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def target(name: str) -> Target:
    """Return a target."""
    found: Target = importlib.import_module(f"{__name__}.{name}").TARGET
    return found
