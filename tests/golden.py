"""``python -m tests.golden``: write every file that tests compare with. Read the difference before you commit it."""

from __future__ import annotations

from tests.api import schema_files
from tests.docs import cli_page, example_page, formats_page, worker_page
from tests.profiling import golden as profile
from tests.scenario import golden as scenario
from tests.solvers import golden as solve
from tests.solvers import program

if __name__ == "__main__":
    for area in (profile, scenario, solve, program, schema_files, cli_page, formats_page, example_page, worker_page):
        area.main()
