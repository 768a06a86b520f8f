"""``python -m tests.golden``: write every file that tests compare with. Read the difference before you commit it."""

from __future__ import annotations

from tests.profile import golden as profile
from tests.scenario import golden as scenario
from tests.solve import golden as solve

if __name__ == "__main__":
    for area in (profile, scenario, solve):
        area.main()
