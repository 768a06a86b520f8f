"""What several commands load: a scenario with its profiles, a plan made for it, and the models behind both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import Fault, PlanError
from planner.plan.types import PlanSpec
from planner.profiling.types import Profile
from planner.scenario.instance import Instance

if TYPE_CHECKING:
    from planner.model.load import ChainModel


@dataclass(frozen=True)
class Project:
    """A plan with what it was made for."""

    scenario_path: Path
    instance: Instance
    plan: PlanSpec


def load_project(plan_path: Path, scenario_path: Path | None) -> Project:
    """Load a plan and its scenario: the one that the plan names, or another one given instead.

    Raises
    ------
    PlanError
        The plan names no scenario, names one that has changed since, or does not fit it.
    """
    from planner.plan.store import load_plan
    from planner.scenario.load import load_instance

    plan = load_plan(plan_path)
    if scenario_path is None:
        scenario_path = _named_scenario(plan_path, plan)
    instance = load_instance(scenario_path)
    check_fit(plan, instance, plan_path)
    return Project(scenario_path, instance, plan)


def _named_scenario(plan_path: Path, plan: PlanSpec) -> Path:
    if plan.scenario is None:
        raise PlanError("the plan names no scenario", where=str(plan_path), expected="--scenario FILE")
    path = plan_path.parent / plan.scenario.path
    if not path.is_file():
        raise PlanError(
            "the plan's scenario is not there", where=str(plan_path), value=str(path), expected="--scenario FILE"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != plan.scenario.sha256:
        raise PlanError(
            "the scenario has changed since the plan was made",
            where=str(path),
            expected=f"`planner solve` again, or --scenario {path} to use it as it is",
        )
    return path


def check_fit(plan: PlanSpec, instance: Instance, plan_path: Path) -> None:
    """Refuse a plan of another scenario or of other chains.

    Raises
    ------
    PlanError
        With every fault found.
    """
    from planner.plan.verify import verify

    for model, chain in plan.chains.items():
        known = instance.profiles.get(model)
        found = instance.any_profile(model).chain_sha256 if known else None
        if found != chain:
            raise PlanError(
                f"the plan was made for another chain of model {model}",
                where=str(plan_path),
                value=chain,
                expected=found,
            )
    try:
        verify(instance, plan)
    except PlanError as error:
        what = "the plan does not hold in this scenario, which has changed since, or is another one"
        fault = Fault(f"{what}: {error.faults[0]}", str(plan_path), None, "a plan that `planner solve` made of it")
        raise PlanError([fault]) from error


def load_models(scenario_path: Path, instance: Instance) -> Mapping[str, ChainModel]:
    """Load the ONNX files of a scenario, cut as its profiles say.

    Raises
    ------
    PlanError
        A model has a profile alone, or was cut another way than its profile.
    """
    from planner.model.load import load_chain

    models = {}
    for name, spec in instance.scenario.models.items():
        if spec.path is None:
            raise PlanError(
                "a model that is to run needs its ONNX file",
                where=f"{scenario_path}: models.{name}",
                expected="path: FILE",
            )
        model = load_chain(scenario_path.parent / spec.path, max_blocks=spec.max_blocks, shape=spec.shape, name=name)
        _check_chain(model, instance.any_profile(name))
        models[name] = model
    return models


def _check_chain(model: ChainModel, profile: Profile) -> None:
    """Refuse a model that is cut another way than its profile."""
    name, found = model.chain.name, model.chain.chain_sha256
    if profile.chain_sha256 == found:
        return
    if profile.chain_sha256 == model.joined_chain_sha256():
        raise PlanError(
            f"the profiles of model {name} were written by an earlier version on Python 3.10, "
            "which gave the same chain another chain_sha256",
            where=str(model.path),
            value=profile.chain_sha256,
            expected=f"{found}; put it into the profiles, whose figures still hold, or profile the model again; "
            "then solve again",
        )
    raise PlanError(
        f"the profile of model {name} was made for another chain",
        where=str(model.path),
        value=found,
        expected=f"{profile.chain_sha256}; profile the model again, with the scenario's max_blocks and shape",
    )
