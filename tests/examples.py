"""How many examples hypothesis draws, and what else differs in ``make nightly``."""

from __future__ import annotations

import os
from typing import Final, TypeVar

from hypothesis import settings

SEARCHING: Final = "searching"
"""The profile of ``make nightly``."""

_V = TypeVar("_V")


def examples(few: int, *, nightly: int) -> settings:
    """Draw a few examples, always the same, or many in ``make nightly``: for tests each example of which takes long."""
    return settings(max_examples=either(few, nightly=nightly))


def either(value: _V, *, nightly: _V) -> _V:
    """Return a size or a time limit for ``make test``, or the larger one of ``make nightly``."""
    return nightly if os.environ.get("HYPOTHESIS_PROFILE") == SEARCHING else value
