"""Methods and policies by name, for help: where they live they bring more than help needs."""

from __future__ import annotations

from typing import Final

METHODS_HELP: Final = (
    "How to solve: auto, convex, milp, colgen, search, dp, exhaustive; or as others do: local, two-part, equal, ar-mdi."
)
POLICIES: Final = "planned, adaptive, local, ddi, mdi, ar-mdi, ms-mdi, pa-mdi"
