"""The profiles that a scenario needs: one for each model on each device class of its workers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from planner.errors import Fault, ProfileError
from planner.formats.yaml import Location
from planner.model.chain import SEQUENCE
from planner.profiling.store import FORMER_CHAIN, load_profile, profile_path
from planner.profiling.types import AXES, SHAPES, Profile
from planner.scenario.document import dotted
from planner.scenario.types import ModelSpec, ScenarioSpec

_SHARED: Final = ("chain_sha256", "cut_bytes", "exits", "operating_points")
"""Fields that belong to the chain, and so are the same on every device class."""


def find_profiles(
    scenario: ScenarioSpec,
    base: Path,
    *,
    chains: Mapping[str, str] | None = None,
    where: Callable[[Location], str] = dotted,
) -> dict[str, dict[str, Profile]]:
    """Find ``<folder>/<device-class>/<name>.json`` for each model and device class.

    Parameters
    ----------
    base
        Folder of the scenario file, to which its ``profiles:`` folders are relative.
    chains
        ``chain_sha256`` of models whose ONNX file is known.
    where
        Turns a key path of the scenario into text for messages.

    Returns
    -------
    dict
        Maps model, then device class, to the profile.

    Raises
    ------
    ProfileError
        With every profile that is missing, malformed, or of a different chain.
    """
    classes = tuple(dict.fromkeys(worker.device_class for worker in scenario.workers.values()))
    folders = tuple(base / folder for folder in scenario.profiles)
    faults: list[Fault] = []
    by_model: dict[str, dict[str, Profile]] = {}
    for name, model in scenario.models.items():
        entry = where(("models", name))
        by_model[name] = {}
        for device_class in classes:
            try:
                file = _find(model, device_class, folders)
            except ProfileError as error:
                faults += [replace(fault, where=entry) for fault in error.faults]
                continue
            if file is None:
                faults.append(_missing(scenario, name, device_class, base, entry))
                continue
            profile, wrong = _read(file, device_class, entry)
            if profile:
                by_model[name][device_class] = profile
                wrong += tuple(_contradictions(name, model, profile, _shown(file), where))
            faults += wrong
        faults += _disagreements(by_model[name], (chains or {}).get(name), entry)
    if faults:
        raise ProfileError(faults)
    return by_model


def profile_name(model: ModelSpec) -> str:
    """Return the name of a model's profiles: that of ``profile:``, or the stem of the ONNX file."""
    return model.profile or Path(model.path or "").stem


def _find(model: ModelSpec, device_class: str, folders: tuple[Path, ...]) -> Path | None:
    files = (profile_path(folder, device_class, profile_name(model)) for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _read(file: Path, device_class: str, entry: str) -> tuple[Profile | None, tuple[Fault, ...]]:
    try:
        profile = load_profile(file)
    except ProfileError as error:
        return None, error.faults
    if profile.device_class == device_class:
        return profile, ()
    what = f"the profile in {_shown(file)} is of another device class"
    return None, (Fault(what, entry, profile.device_class, device_class),)


def _contradictions(
    name: str, model: ModelSpec, profile: Profile, file: str, where: Callable[[Location], str]
) -> Iterator[Fault]:
    """Yield what the scenario says about cutting the model that does not hold for its profile."""
    if model.path is None:
        return
    blocks = len(profile.blocks)
    if blocks > model.max_blocks:
        expected = f"{blocks}, or a profile of at most {model.max_blocks} blocks"
        at = where(("models", name, "max_blocks"))
        yield Fault(f"the profile in {file} has {blocks} blocks", at, model.max_blocks, expected)
    shapes = _entries(profile, SHAPES)
    for tensor, shape in (model.shape or {}).items():
        known = shapes.get(tensor)
        if known is not None and list(shape) != known:
            what = f"the profile in {file} was made for another shape of input {tensor!r}"
            expected = f"{known}, or a profile for this shape"
            yield Fault(what, where(("models", name, "shape", tensor)), list(shape), expected)
    for axis, size in (model.axes or {}).items():
        known = _entries(profile, AXES).get(axis)
        if known is not None and size != known:
            what = f"the profile in {file} was made for another size of axis {axis!r}"
            yield Fault(what, where(("models", name, "axes", axis)), size, f"{known}, or a profile for this size")
    for before, after in (model.state or {}).items():
        if before in shapes:
            what = f"the profile in {file} was made without the state {before!r}"
            expected = f"a profile by `planner profile measure` with --state {before}={after}"
            yield Fault(what, where(("models", name, "state", before)), after, expected)
    if model.state == {} and SEQUENCE.name in shapes:
        what = f"the profile in {file} was made with state that stays on its worker"
        expected = "a profile by `planner profile measure` with --state none"
        yield Fault(what, where(("models", name, "state")), {}, expected)


def _entries(profile: Profile, key: str) -> Mapping[str, Any]:
    """Return the entries by name under a key of a profile's environment; none where it has others."""
    found = profile.environment.get(key)
    return found if isinstance(found, dict) else {}


def _missing(scenario: ScenarioSpec, name: str, device_class: str, base: Path, entry: str) -> Fault:
    profile = profile_name(scenario.models[name])
    file = profile_path(base / scenario.profiles[0], device_class, profile)
    what = f"no profile of {profile!r} on device class {device_class!r}"
    expected = f"{_shown(file)}; make it with: {_command(scenario, name, device_class, file, base)}"
    return Fault(what, entry, expected=expected)


def _command(scenario: ScenarioSpec, name: str, device_class: str, file: Path, base: Path) -> str:
    """Return the command that makes a missing profile."""
    model = scenario.models[name]
    words = ["planner", "profile", "measure", _shown(base / model.path) if model.path else "MODEL.onnx"]
    words += ["--device-class", device_class]
    if model.max_blocks != ModelSpec.model_fields["max_blocks"].default:
        words += ["--max-blocks", str(model.max_blocks)]
    for tensor, shape in (model.shape or {}).items():
        words += ["--shape", f"{tensor}={','.join(map(str, shape))}"]
    for axis, size in (model.axes or {}).items():
        words += ["--axis", f"{axis}={size}"]
    if model.layer_assignment:
        words += ["--layer-assignment", model.layer_assignment]
    if model.state is not None:
        pairs = [f"{before}={after}" for before, after in model.state.items()] or ["none"]
        words += [word for pair in pairs for word in ("--state", pair)]
    most = max((source.max_batch for source in scenario.sources.values() if name in source.models), default=1)
    if most > 1:
        doubled = {2**exponent for exponent in range(most.bit_length())}
        words += ["--batches", ",".join(map(str, sorted(doubled | {most})))]
    return shlex.join([*words, "-o", _shown(file)])


def _shown(path: Path) -> str:
    """Return a path without detours, relative to the current folder."""
    return os.path.relpath(path)


def _disagreements(profiles: Mapping[str, Profile], chain_sha256: str | None, entry: str) -> list[Fault]:
    """Compare the profiles of one model with its ONNX file, or with each other."""
    if not profiles:
        return []
    first, reference = next(iter(profiles.items()))
    if chain_sha256 is not None and reference.chain_sha256 != chain_sha256:
        what = f"the profile on device class {first!r} is not of the ONNX file's chain; profile the model again"
        return [Fault(what, entry, reference.chain_sha256, chain_sha256)]
    faults = []
    for device_class, profile in profiles.items():
        differing = [field for field in _SHARED if getattr(profile, field) != getattr(reference, field)]
        if _parameters(profile) != _parameters(reference):
            differing.append("parameters")
        if differing:
            what = f"the profiles on {first!r} and {device_class!r} are of different chains: {differing[0]} differs"
            expected = "profiles of one model file, with the same shapes and block borders"
            if differing == ["chain_sha256"]:
                expected += f"; {FORMER_CHAIN}"
            faults.append(Fault(what, entry, expected=expected))
    return faults


def _parameters(profile: Profile) -> list[int]:
    return [block.parameters for block in profile.blocks]
