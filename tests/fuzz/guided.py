"""Cases guided by the coverage of the code that they reach: hypothesis's choices are made by atheris."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from hypothesis import HealthCheck, given, settings


def run_guided(name: str, cases: int) -> NoReturn:
    """Run cases of a target until one shows a defect; end the process.

    Imported before the code under test, so that this can be instrumented.
    """
    import atheris

    with atheris.instrument_imports(include=["planner"]):
        from tests.fuzz.judge import judge_here
        from tests.fuzz.targets import target

        chosen = target(name)

    def examine(case: Any) -> None:
        defect = judge_here(chosen, case).defect
        if defect is not None:
            raise AssertionError(f"{defect.where}\n{str(case)[:2000]!r}\n{defect.how}")

    search = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))(
        given(chosen.cases)(examine)
    )
    one_input: Any = search.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    atheris.Setup([sys.argv[0], f"-runs={cases}", "-max_len=8192", "-timeout=60", "-rss_limit_mb=2048"], one_input)
    atheris.Fuzz()
    sys.exit(0)
