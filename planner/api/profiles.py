"""Profiles: measure a model on this device, or estimate, import or scale its costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.api.models import MAX_BLOCKS, chain_of
from planner.api.progress import Progress, reporting, show_progress
from planner.errors import UsageError
from planner.files import StrPath
from planner.profiling.diff import ProfileDiff, compare
from planner.profiling.store import load_profile
from planner.profiling.types import OperatingPoint, Profile

if TYPE_CHECKING:  # the model is loaded with onnx, which the base install lacks
    from planner.model.load import ChainModel
    from planner.profiling.device_probe import DeviceProbe


def profile(
    model: StrPath | ChainModel,
    *,
    device_class: str,
    provider: str = "cpu",
    threads: int = 1,
    rounds: int = 40,
    budget_s: float = 60.0,
    power_mode: str | None = None,
    seed: int = 0,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    inputs: StrPath | None = None,
    operating_points: Sequence[OperatingPoint] = (),
    beside: int | None = None,
    batches: Sequence[int] = (),
    progress: Progress | None = show_progress,
) -> Profile:
    """Measure what each block of a model costs on this device.

    Parameters
    ----------
    model
        ONNX file, or a model from :func:`planner.load_chain`.
    device_class
        Name for this combination of device, provider and number of threads, such as ``jetson-nano``.
    provider
        ``cpu``, ``cuda``, ``tensorrt``, another one that onnxruntime was built with, or an installed plug-in such as
        ``openvino``; with options as in ``openvino?device=GPU``.
    threads
        Number of threads that a block may use.
    rounds
        Maximum number of times that each block is measured.
    budget_s
        Time limit for the whole measurement, in seconds.
    power_mode
        Power mode of the device, recorded as given.
    seed
        Seed for the inputs and the order of the measurements.
    max_blocks
        Maximum number of blocks to cut the model into; None for the finest chain. Only for a file.
    shape
        Shapes of inputs with dynamic axes, by name. Only for a file.
    axes
        Sizes of dynamic axes by the name that the model gives them: ``{"batch": 1}``. Only for a file.
    layer_assignment, state
        Rules for the model's layers, and its state, as for :func:`planner.load_chain`. Only for a file.
    inputs
        ``.npz`` file of inputs by name to measure with; random by default.
    operating_points
        Accuracies and early exits, from :func:`planner.calibrate`.
    beside
        Also measure, for as long again, how much longer blocks take in an agent, alone and while this many other
        agents compute on this host. Each agent needs processors of its own.
    batches
        Also measure batches of these sizes, such as ``(1, 2, 4, 8)``. If the model runs none, a warning in the profile
        says why. A model that is given as such has to be loaded with ``batch=True``.
    progress
        Callback ``progress(step, done, total)``. By default, a bar on a terminal; None for none.

    Raises
    ------
    ModelError, ProfileError, RuntimeSessionError
        If the model is invalid, a number is out of range, the inputs do not fit, or onnxruntime fails.
    """
    from planner.profiling.measure import measure
    from planner.runtime.inputs import read_inputs

    chain_model = chain_of(
        model,
        max_blocks=max_blocks,
        shape=shape,
        axes=axes,
        layer_assignment=layer_assignment,
        state=state,
        batch=bool(batches),
    )
    arrays = None if inputs is None else read_inputs(Path(inputs), chain_model.chain.cuts[0].tensors)
    if beside is not None:
        from planner.validation.colocation import check_room, with_colocation

        check_room(beside, threads)
    with reporting(progress, f"measuring {chain_model.chain.name}") as report:
        measured = measure(
            chain_model,
            device_class=_named(device_class),
            provider=provider,
            threads=threads,
            rounds=rounds,
            budget_s=budget_s,
            operating_points=operating_points,
            power_mode=power_mode,
            seed=seed,
            inputs=arrays,
            batches=batches,
            progress=report,
        )
    if beside is None or measured.environment["partial"]:
        return measured
    with reporting(progress, f"measuring {chain_model.chain.name} in agents") as report:
        return with_colocation(
            chain_model,
            measured,
            beside,
            provider=provider,
            threads=threads,
            budget_s=budget_s,
            inputs=arrays,
            progress=report,
        )


def estimate(
    model: StrPath | ChainModel,
    *,
    device_class: str,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    operating_points: Sequence[OperatingPoint] = (),
    adapt: Sequence[StrPath | Profile | DeviceProbe] = (),
) -> Profile:
    """Estimate what each block of a model costs on a device class, from published figures or measurements of the class.

    Parameters
    ----------
    model, max_blocks, shape, axes, layer_assignment, state, operating_points
        As for :func:`planner.profile`.
    device_class
        Name of a class with published figures, or a ``.yaml`` file of them; with ``adapt`` the name of any class.
    adapt
        Measured profiles of other models on the class, and probes by :func:`planner.probe_device`, their files, or
        folders of files. The class is then fitted to these instead of published figures.

    Raises
    ------
    ModelError, ProfileError
        If the model or the class is invalid or unknown, or a measurement is not one of this class.
    """
    from planner.profiling.device_classes import load_class
    from planner.profiling.estimate import estimate as estimate_chain

    if adapt:
        from planner.profiling.adapt import adapt as fit_class
        from planner.profiling.adapt import estimate_adapted

        adapted = fit_class(_named(device_class), adapt)
        chain_model = chain_of(
            model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state
        )
        return estimate_adapted(chain_model, adapted, operating_points=operating_points)
    chain_model = chain_of(
        model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state
    )
    return estimate_chain(chain_model, load_class(device_class), operating_points=operating_points)


def probe_device(
    *,
    device_class: str,
    provider: str = "cpu",
    threads: int = 1,
    budget_s: float = 60.0,
    power_mode: str | None = None,
    progress: Progress | None = show_progress,
) -> DeviceProbe:
    """Time small generated models on this device, so that :func:`planner.estimate` can be fitted to it.

    Parameters
    ----------
    device_class, provider, threads, power_mode, progress
        As for :func:`planner.profile`.
    budget_s
        Time limit in seconds; a slow device may take longer for the three rounds that it needs.

    Raises
    ------
    ProfileError, RuntimeSessionError
        If a number is out of range, or onnxruntime is missing or lacks the provider.
    """
    from planner.profiling.device_probe import probe_device as probe

    with reporting(progress, "probing this device") as report:
        return probe(
            _named(device_class),
            provider=provider,
            threads=threads,
            budget_s=budget_s,
            power_mode=power_mode,
            progress=report,
        )


def import_profile(
    model: StrPath | ChainModel,
    path: StrPath,
    *,
    device_class: str,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    operating_points: Sequence[OperatingPoint] = (),
) -> Profile:
    """Read the costs of a model's blocks from a file that onnxruntime or ``trtexec --exportProfile`` wrote.

    Parameters
    ----------
    model, max_blocks, shape, axes, layer_assignment, state, operating_points
        As for :func:`planner.profile`.
    path
        The file; its content tells which tool wrote it.
    device_class
        Name for the device on which the model ran.

    Raises
    ------
    ModelError, ProfileError
        If the model is invalid, or the file is invalid or belongs to another model.
    """
    from planner.profiling.importers import import_profile as import_chain_profile

    chain_model = chain_of(
        model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state
    )
    return import_chain_profile(
        chain_model, Path(path), device_class=_named(device_class), operating_points=operating_points
    )


def scale(profile: StrPath | Profile, by: float, *, device_class: str) -> Profile:
    """Return the profile of a device that takes ``by`` times as long.

    Raises
    ------
    ProfileError
        If the profile cannot be read, or ``by`` is not a positive number.
    """
    from planner.profiling.estimate import scale as scale_profile

    return scale_profile(_read(profile), by, _named(device_class))


def diff(before: StrPath | Profile, after: StrPath | Profile) -> ProfileDiff:
    """Compare two profiles of the same chain.

    Raises
    ------
    ProfileError
        If one cannot be read, or they describe different chains.
    """
    return compare(_read(before), _read(after))


def calibrate(
    model: StrPath | ChainModel,
    samples: StrPath,
    *,
    thresholds: Sequence[float] | None = None,
    predictions: StrPath | None = None,
    max_blocks: int | None = MAX_BLOCKS,
    shape: Mapping[str, Sequence[int]] | None = None,
    axes: Mapping[str, int] | None = None,
    layer_assignment: str = "",
    state: Mapping[str, str] | None = None,
    progress: Progress | None = show_progress,
) -> tuple[OperatingPoint, ...]:
    """Determine the accuracy and the early exits of a model on labelled samples.

    Parameters
    ----------
    model, max_blocks, shape, axes, layer_assignment, state, progress
        As for :func:`planner.profile`.
    samples
        ``.npz`` file with an array for each input, by name, and ``label``.
    thresholds
        Confidences to try at each exit.
    predictions
        File to write with the model's prediction for each sample, which simulations can replay.

    Raises
    ------
    ModelError, ProfileError, RuntimeSessionError
        If the model, the samples or the thresholds are invalid, or onnxruntime fails.
    """
    from planner.profiling.operating_points import check_thresholds, load_samples, operating_points, predict
    from planner.profiling.recorded_predictions import save_predictions

    chain_model = chain_of(
        model, max_blocks=max_blocks, shape=shape, axes=axes, layer_assignment=layer_assignment, state=state
    )
    chain = chain_model.chain
    check_thresholds(chain, thresholds)
    with reporting(progress, f"calibrating {chain.name}") as report:
        recorded = predict(chain_model, load_samples(Path(samples), chain), progress=report)
    if predictions is not None:
        save_predictions(recorded, Path(predictions))
    return operating_points(chain, recorded, thresholds)


def _named(device_class: str) -> str:
    if not device_class:
        raise UsageError("no device class given", where="device_class", expected="a name, such as jetson-nano")
    return device_class


def _read(profile: StrPath | Profile) -> Profile:
    return profile if isinstance(profile, Profile) else load_profile(profile)
