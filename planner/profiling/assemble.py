"""Assemble a profile from a chain and the costs of its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import ValidationError

from planner.errors import ProfileError
from planner.model.work import Work
from planner.profiling.batches import BatchCosts
from planner.profiling.sampling import ProfiledModel
from planner.profiling.sequences import SequenceCosts
from planner.profiling.types import (
    AXES,
    SCHEMA,
    SHAPES,
    EstimateInterval,
    ExitPoint,
    FusionError,
    ModelReference,
    OperatingPoint,
    Profile,
    SegmentError,
)
from planner.schemas import schema_faults

SHORTEST_S: Final = 1e-9


@dataclass(frozen=True)
class ChainCosts:
    """Costs of a chain of L blocks; values that were not measured keep their defaults.

    Parameters
    ----------
    mean_s
        Time of each block; length L, seconds.
    std_s, load_s
        Standard deviation of that time, and time to create the session; length L or empty, seconds.
    weight_bytes, activation_bytes
        Measured memory that each block holds, and its peak while it runs, in bytes; length L, or empty to use the
        computed values.
    intervals_s
        Interval of the time of each block; length L, or empty in a measured profile; seconds.
    works
        Work of each block by kind of operator; length L, or empty in an estimate.
    stage_overhead_s, fusion_saving_s, segment_error, fusion_error, interval, sequences, batches
        As in :class:`Profile`.
    """

    mean_s: Sequence[float]
    std_s: Sequence[float] = ()
    load_s: Sequence[float] = ()
    weight_bytes: Sequence[int] = ()
    activation_bytes: Sequence[int] = ()
    intervals_s: Sequence[tuple[float, float]] = ()
    works: Sequence[Work] = ()
    stage_overhead_s: float = 0.0
    fusion_saving_s: Sequence[float] = field(default=())
    segment_error: SegmentError | None = None
    fusion_error: FusionError | None = None
    interval: EstimateInterval | None = None
    sequences: SequenceCosts | None = None
    batches: BatchCosts | None = None


def assemble(
    chain_model: ProfiledModel,
    costs: ChainCosts,
    *,
    device_class: str,
    provenance: Literal["measured", "estimated"],
    environment: dict[str, Any],
    operating_points: Sequence[OperatingPoint],
) -> Profile:
    """Return the profile of a chain on ``device_class``.

    Raises
    ------
    ProfileError
        If a value is out of its range, such as a time in another unit.
    """
    chain = chain_model.chain
    shapes = {tensor.name: list(tensor.shape) for tensor in chain.cuts[0].tensors}
    unknown = (0.0,) * len(chain)
    rows = zip(
        chain.blocks,
        costs.mean_s,
        costs.std_s or unknown,
        costs.load_s or unknown,
        costs.weight_bytes or [block.weight_bytes for block in chain.blocks],
        costs.activation_bytes or [block.activation_bytes for block in chain.blocks],
        costs.intervals_s or (None,) * len(chain),
        costs.works or ({},) * len(chain),
        strict=True,
    )
    contents = {
        "model": ModelReference(name=chain.name, sha256=chain.model_sha256),
        "chain_sha256": chain.chain_sha256,
        "device_class": device_class,
        "provenance": provenance,
        "environment": environment | {SHAPES: shapes} | ({AXES: sizes} if (sizes := chain_model.axes.sizes) else {}),
        "stage_overhead_s": costs.stage_overhead_s,
        "fusion_saving_s": tuple(costs.fusion_saving_s),
        "fusion_error": costs.fusion_error,
        "blocks": tuple(
            {
                "name": block.name,
                "mean_s": max(mean_s, SHORTEST_S),
                "std_s": std_s,
                "weight_bytes": weight_bytes,
                "activation_bytes": activation_bytes,
                "flop": block.flop,
                "parameters": block.parameters,
                "load_s": load_s,
                "interval_s": interval_s,
                "work": dict(work),
            }
            for block, mean_s, std_s, load_s, weight_bytes, activation_bytes, interval_s, work in rows
        ),
        "cut_bytes": tuple(cut.bytes for cut in chain.cuts),
        "exits": tuple(
            ExitPoint(name=exit_.name, cut=exit_.cut, result_bytes=exit_.result_bytes) for exit_ in chain.exits
        ),
        "operating_points": tuple(operating_points),
        "segment_error": costs.segment_error,
        "interval": costs.interval,
        "sequences": costs.sequences,
        "batches": costs.batches,
    }
    return checked(contents, f"profile of {chain.name} on {device_class}")


def checked(contents: Mapping[str, Any], where: str) -> Profile:
    """Return the profile with these contents.

    Raises
    ------
    ProfileError
        If a value is out of its range: one fault per value, with its place in the profile.
    """
    try:
        return Profile.model_validate({"schema": SCHEMA, **contents})
    except ValidationError as error:
        raise ProfileError(schema_faults(error, Profile, where)) from error
