"""Plans, and what is done with one that fits its scenario: shown, simulated, improved."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

import planner
from tests.fuzz.judge import Target
from tests.fuzz.mutate import mutated, text_or_bytes
from tests.fuzz.seeds import put
from tests.fuzz.targets import scenario as scenarios


@cache
def scenario() -> planner.Scenario:
    """Return the scenario of all plans."""
    return planner.Scenario.from_dict(scenarios.SEEDS[scenarios.FILES.index("two-cameras")])


@cache
def seeds() -> list[object]:
    """Return a plan of one route for each source, and one of several."""
    options = [{"method": "search"}, {"method": "colgen", "routes": "shared", "prices": True, "worth": True}]
    return [planner.solve(scenario(), time_limit_s=1.0, progress=None, **one).to_dict() for one in options]  # type: ignore[arg-type]


def read(case: bytes) -> None:
    """Load a plan; if it fits, use it in all ways."""
    path = put("plan.json", case)
    plan = planner.load_plan(path, scenario())
    str(plan)
    planner.simulate(scenario(), plan, policy="planned", progress=None)
    planner.solve(scenario(), method="search", start=plan, time_limit_s=0.2, progress=None)


TARGET = Target("plan", text_or_bytes(st.deferred(lambda: mutated(seeds()))), read, share=0.5)
