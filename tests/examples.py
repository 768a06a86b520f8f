"""How many examples hypothesis draws."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

SEARCHING: Final = "searching"
"""The profile of ``make nightly``."""


def examples(few: int, *, nightly: int) -> settings:
    """Draw a few examples, always the same, or many in ``make nightly``: for tests each example of which takes long."""
    return settings(max_examples=nightly if os.environ.get("HYPOTHESIS_PROFILE") == SEARCHING else few)
