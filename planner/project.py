"""Rules that join the files of a project: a plan with its scenario, and a scenario with its models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import Fault, PlanError
from planner.files import StrPath, real_path
from planner.plan.types import PlanSpec, ScenarioReference
from planner.profiling.types import Profile
from planner.scenario.instance import Instance

if TYPE_CHECKING:
    from planner.model.chain import Chain
    from planner.model.load import ChainModel


def reference_to(scenario: StrPath, plan: StrPath | None, *, sha256: str | None = None) -> ScenarioReference:
    """Return the reference from a plan to its scenario file.

    Parameters
    ----------
    plan
        File of the plan, to whose folder the path is relative; None for the working directory.
    sha256
        Hash of the scenario for which the plan was made. Defaults to that of the file as it is now.
    """
    folder = Path(plan).parent if plan is not None else Path()
    return ScenarioReference(
        path=Path(os.path.relpath(real_path(scenario), real_path(folder))).as_posix(),
        sha256=sha256 or hashlib.sha256(Path(scenario).read_bytes()).hexdigest(),
    )


def referenced_scenario(plan: PlanSpec, plan_path: Path) -> Path:
    """Return the scenario file that a plan refers to.

    Raises
    ------
    PlanError
        If the plan refers to none, or to a file that is missing or has changed since.
    """
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


def check_fit(plan: PlanSpec, instance: Instance, where: str) -> None:
    """Check that a plan belongs to a scenario and to its chains.

    Parameters
    ----------
    where
        Name of the plan for messages.

    Raises
    ------
    PlanError
        If it does not.
    """
    from planner.plan.verify import verify

    for model, chain in plan.chains.items():
        known = instance.any_profile(model).chain_sha256 if model in instance.profiles else None
        if known != chain:
            raise PlanError(
                f"the plan was made for another chain of model {model}", where=where, value=chain, expected=known
            )
    try:
        verify(instance, plan)
    except PlanError as error:
        what = "the plan does not hold in this scenario, which has changed since, or is another one"
        fault = Fault(f"{what}: {error.faults[0]}", where, None, "a plan that `planner solve` made of it")
        raise PlanError([fault]) from error


def unknown_accuracies(instance: Instance) -> Iterator[str]:
    """Return a warning for each minimum accuracy that has no effect because the accuracy of a model is unknown."""
    for name, spec in instance.scenario.sources.items():
        unknown = [model for model in spec.models if not instance.any_profile(model).operating_points]
        if spec.min_accuracy and unknown:
            yield (
                f"sources.{name}.min_accuracy has no effect: the accuracy of {' and '.join(unknown)} is not known; "
                "`planner profile measure --calibrate DATA` determines it"
            )


def unused_exits(instance: Instance) -> Iterator[str]:
    """Return a warning for each model whose outputs are taken for early exits though no sample can leave there."""
    for name in instance.scenario.models:
        profile = instance.any_profile(name)
        if profile.exits and not profile.operating_points:
            outputs = ", ".join(exit_.name for exit_ in profile.exits)
            yield (
                f"models.{name}: earlier outputs like the final one are taken for early exits ({outputs}); without "
                "operating points no sample leaves there, and results do not contain them; "
                "`planner profile measure --calibrate DATA` determines operating points"
            )


def load_models(scenario_path: Path, instance: Instance) -> Mapping[str, ChainModel]:
    """Load the ONNX files of a scenario, cut as its profiles say.

    Parameters
    ----------
    scenario_path
        File of the scenario, to whose folder the paths of the models are relative.

    Raises
    ------
    PlanError
        If a model has only a profile, or was cut differently from its profile.
    """
    from planner.model.load import load_chain, load_for_batches

    models = {}
    for name, spec in instance.scenario.models.items():
        if spec.path is None:
            raise PlanError(
                "a model that is to run needs its ONNX file",
                where=f"{scenario_path}: models.{name}",
                expected="path: FILE",
            )
        file = scenario_path.parent / spec.path
        load = load_for_batches if instance.max_batch(name) > 1 else load_chain
        model = load(
            file,
            max_blocks=spec.max_blocks,
            shape=spec.shape,
            axes=spec.axes,
            layer_assignment=spec.layer_assignment or "",
            state=spec.state,
            name=name,
        )
        _check_chain(model, instance.any_profile(name))
        if model.single and instance.max_batch(name) > 1:
            raise PlanError(
                f"model {name} runs no batches: {model.single}", where=str(file), expected="max_batch: 1 in its sources"
            )
        models[name] = model
    return models


def _check_chain(model: ChainModel, profile: Profile) -> None:
    """Check that a model is cut as in its profile."""
    name, actual = model.chain.name, model.chain.chain_sha256
    if profile.chain_sha256 == actual:
        return
    if profile.chain_sha256 == model.joined_chain_sha256():
        raise PlanError(
            f"the profiles of model {name} were written by an earlier version on Python 3.10, "
            "which gave the same chain another chain_sha256",
            where=str(model.path),
            value=profile.chain_sha256,
            expected=f"{actual}; put it into the profiles, whose figures still hold, or profile the model again; "
            "then solve again",
        )
    raise PlanError(
        f"the profile of model {name} is not of this chain: {_difference(model.chain, profile)}",
        where=str(model.path),
        expected="a profile of this file by `planner profile measure`, with max_blocks, shape, axes and state as here",
    )


def _difference(chain: Chain, profile: Profile) -> str:
    """Return the first difference between a chain and that of a profile, in words."""
    if len(chain.blocks) != len(profile.blocks):
        return f"it has {len(chain.blocks)} blocks here and {len(profile.blocks)} in the profile"
    for block, (here, there) in enumerate(zip(chain.blocks, profile.blocks, strict=True)):
        if here.name != there.name:
            return f"block {block} is {here.name!r} here and {there.name!r} in the profile"
    for cut, there_bytes in zip(chain.cuts, profile.cut_bytes, strict=True):
        if cut.bytes != there_bytes:
            what = "the inputs take" if cut.index == 0 else f"cut {cut.index} takes"
            return f"{what} {cut.bytes} bytes here and {there_bytes} in the profile"
    return "the model file has other nodes or weights than the one that was profiled"
