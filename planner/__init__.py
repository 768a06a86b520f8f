"""Plan, simulate and run priority-aware model-distributed inference at the edge.

::

    scenario = planner.load_scenario("scenario.yaml")
    plan = planner.solve(scenario, time_limit_s=10)
    print(plan.summary())
    plan.save("plan.json")
    result = planner.simulate(scenario, plan, policy="adaptive", replications=5)
    verdict = planner.validate(plan, place="local")
    with planner.Session(plan) as session:
        result = session.source("gate-camera").submit({"input": image}).result()

All results print as short tables, also in a notebook, and have ``summary()``, ``to_dict()`` and mostly ``plot()``.
Functions accept a file wherever they accept a scenario, a plan or a profile. They are imported on first use, so that an
agent, which needs no solver, starts quickly.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.api import policies as policies
    from planner.api.comparison import MethodComparison as MethodComparison
    from planner.api.comparison import ParetoFront as ParetoFront
    from planner.api.comparison import compare as compare
    from planner.api.comparison import pareto as pareto
    from planner.api.difference import Difference as Difference
    from planner.api.difference import difference as difference
    from planner.api.interchange import Conversion as Conversion
    from planner.api.interchange import convert as convert
    from planner.api.models import ChainSummary as ChainSummary
    from planner.api.models import Split as Split
    from planner.api.models import inspect as inspect
    from planner.api.models import split as split
    from planner.api.new import NewScenario as NewScenario
    from planner.api.new import new as new
    from planner.api.picture import Picture as Picture
    from planner.api.plan import Plan as Plan
    from planner.api.plan import load_plan as load_plan
    from planner.api.profiles import calibrate as calibrate
    from planner.api.profiles import diff as diff
    from planner.api.profiles import estimate as estimate
    from planner.api.profiles import import_profile as import_profile
    from planner.api.profiles import probe_device as probe_device
    from planner.api.profiles import profile as profile
    from planner.api.profiles import scale as scale
    from planner.api.report import write_report as write_report
    from planner.api.scenario import Scenario as Scenario
    from planner.api.scenario import load_scenario as load_scenario
    from planner.api.schemas import json_schema as json_schema
    from planner.api.service import Service as Service
    from planner.api.session import Session as Session
    from planner.api.simulation import PolicyComparison as PolicyComparison
    from planner.api.simulation import SimulationResult as SimulationResult
    from planner.api.simulation import compare_policies as compare_policies
    from planner.api.simulation import simulate as simulate
    from planner.api.sizing import Sizing as Sizing
    from planner.api.sizing import size as size
    from planner.api.solving import solve as solve
    from planner.api.validation import Verdict as Verdict
    from planner.api.validation import validate as validate
    from planner.errors import PlannerError as PlannerError
    from planner.errors import PlannerWarning as PlannerWarning
    from planner.execution.session.source import BusyError as BusyError
    from planner.execution.session.source import SampleError as SampleError
    from planner.model.load import load_chain as load_chain
    from planner.model.reference import build_model as build_model
    from planner.plan.drift import DriftRules as DriftRules
    from planner.profiling.device_probe import DeviceProbe as DeviceProbe
    from planner.profiling.device_probe import load_probe as load_probe
    from planner.profiling.device_probe import save_probe as save_probe
    from planner.profiling.store import load_profile as load_profile
    from planner.profiling.store import save_profile as save_profile
    from planner.profiling.types import Profile as Profile
    from planner.serve.state import ServiceState as ServiceState

# onnxruntime from 1.29 on writes an identifier of the device under the home folder and contacts a host on the internet.
# It decides that while it is imported. A value that the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "BusyError": "planner.execution.session.source",
    "ChainSummary": "planner.api.models",
    "Conversion": "planner.api.interchange",
    "Difference": "planner.api.difference",
    "DeviceProbe": "planner.profiling.device_probe",
    "DriftRules": "planner.plan.drift",
    "MethodComparison": "planner.api.comparison",
    "NewScenario": "planner.api.new",
    "ParetoFront": "planner.api.comparison",
    "Picture": "planner.api.picture",
    "Plan": "planner.api.plan",
    "PlannerError": "planner.errors",
    "PlannerWarning": "planner.errors",
    "PolicyComparison": "planner.api.simulation",
    "Profile": "planner.profiling.types",
    "SampleError": "planner.execution.session.source",
    "Scenario": "planner.api.scenario",
    "Service": "planner.api.service",
    "ServiceState": "planner.serve.state",
    "Session": "planner.api.session",
    "SimulationResult": "planner.api.simulation",
    "Sizing": "planner.api.sizing",
    "Split": "planner.api.models",
    "Verdict": "planner.api.validation",
    "build_model": "planner.model.reference",
    "calibrate": "planner.api.profiles",
    "compare": "planner.api.comparison",
    "compare_policies": "planner.api.simulation",
    "convert": "planner.api.interchange",
    "diff": "planner.api.profiles",
    "difference": "planner.api.difference",
    "estimate": "planner.api.profiles",
    "import_profile": "planner.api.profiles",
    "inspect": "planner.api.models",
    "json_schema": "planner.api.schemas",
    "load_chain": "planner.model.load",
    "load_plan": "planner.api.plan",
    "load_probe": "planner.profiling.device_probe",
    "load_profile": "planner.profiling.store",
    "load_scenario": "planner.api.scenario",
    "new": "planner.api.new",
    "pareto": "planner.api.comparison",
    "policies": "planner.api.policies",
    "probe_device": "planner.api.profiles",
    "profile": "planner.api.profiles",
    "save_probe": "planner.profiling.device_probe",
    "save_profile": "planner.profiling.store",
    "scale": "planner.api.profiles",
    "simulate": "planner.api.simulation",
    "size": "planner.api.sizing",
    "solve": "planner.api.solving",
    "split": "planner.api.models",
    "validate": "planner.api.validation",
    "write_report": "planner.api.report",
}
"""The module of each public name; ``policies`` is one itself."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from planner.version import installed_version

        return installed_version("mdi-planner")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return module if name == "policies" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
