"""Names of methods, policies and formats for help texts; importing their own modules would load the solvers."""

from __future__ import annotations

from typing import Final

METHODS_HELP: Final = (
    "Method: auto, convex, milp, colgen, search, dp, exhaustive; or a baseline: local, two-part, equal, ar-mdi."
)
FORMATS_READ: Final = "pipeedge, saga, helix, distilp, nn-meter"
FORMATS_WRITTEN: Final = "pipeedge or saga"
POLICIES: Final = "planned, adaptive, local, ddi, mdi, ar-mdi, ms-mdi, pa-mdi, edf, least-laxity"
