"""Names of methods and policies for help texts; importing their own modules would load the solvers."""

from __future__ import annotations

from typing import Final

METHODS_HELP: Final = (
    "Method: auto, convex, milp, colgen, search, dp, exhaustive; or a baseline: local, two-part, equal, ar-mdi."
)
POLICIES: Final = "planned, adaptive, local, ddi, mdi, ar-mdi, ms-mdi, pa-mdi"
