"""Plan, simulate and run priority-aware model-distributed inference at the edge.

The names below are loaded when they are first used, so that an agent, which needs none of the solvers, starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.errors import PlannerError as PlannerError
    from planner.execution.session.session import BusyError as BusyError
    from planner.execution.session.session import SampleError as SampleError
    from planner.model.load import load_chain as load_chain
    from planner.model.reference import build_model as build_model
    from planner.plan.store import load_plan as load_plan
    from planner.plan.store import save_plan as save_plan
    from planner.plan.types import PlanSpec as PlanSpec
    from planner.profiling.measure import measure as measure
    from planner.profiling.store import load_profile as load_profile
    from planner.profiling.store import save_profile as save_profile
    from planner.profiling.types import Profile as Profile
    from planner.scenario.instance import Instance as Instance
    from planner.scenario.load import load_instance as load_instance
    from planner.api.session import Session as Session
    from planner.trace.metrics import summarise as summarise

_HOME = {
    "BusyError": "planner.execution.session.session",
    "Instance": "planner.scenario.instance",
    "PlanSpec": "planner.plan.types",
    "PlannerError": "planner.errors",
    "Profile": "planner.profiling.types",
    "SampleError": "planner.execution.session.session",
    "Session": "planner.api.session",
    "build_model": "planner.model.reference",
    "load_chain": "planner.model.load",
    "load_instance": "planner.scenario.load",
    "load_plan": "planner.plan.store",
    "load_profile": "planner.profiling.store",
    "measure": "planner.profiling.measure",
    "save_plan": "planner.plan.store",
    "save_profile": "planner.profiling.store",
    "summarise": "planner.trace.metrics",
}

__all__ = list(_HOME)  # what help() tells about


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
