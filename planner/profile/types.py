"""What a profile file says: the costs of one chain's blocks on one device class (``planner/profile/v1``)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA: Final = "planner/profile/v1"

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]

_R = TypeVar("_R", bound="Record")


class Record(BaseModel):
    """Base of all data read from files: immutable, and a key it does not know is an error.

    Validators are built when they are first used: most of an agent's start would go into those it may never need.

    A copy, with fields changed or not, works out its cached properties anew: pydantic would hand on those of the
    original.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    def __copy__(self: _R) -> _R:
        return _without_caches(super().__copy__())

    def __deepcopy__(self: _R, memo: dict[int, Any] | None = None) -> _R:
        return _without_caches(super().__deepcopy__(memo))

    def model_copy(self: _R, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> _R:
        """Give a copy with some fields changed; new values are taken as they are, unchecked.

        Raises
        ------
        TypeError
            There is no field of such a name.
        """
        unknown = (update or {}).keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


def _without_caches(copied: _R) -> _R:
    for name in copied.__dict__.keys() - type(copied).model_fields.keys():
        del copied.__dict__[name]
    return copied


class ModelReference(Record):
    """Which model was profiled."""

    name: str
    sha256: str


class BlockCost(Record):
    """Cost of one block on this device class."""

    name: str
    mean_s: Positive
    """Time of a run of the block inside a stage, without the stage's overhead, in seconds: the median of the rounds."""
    std_s: NonNegative
    """Standard deviation of that time over the rounds, from the quartiles, in seconds."""
    weight_bytes: int = Field(ge=0)
    activation_bytes: int = Field(ge=0)
    """Peak size of the tensors alive while the block runs."""
    flop: NonNegative
    parameters: int = Field(ge=0)
    load_s: NonNegative
    """Time to create the block's session from its model file, in seconds."""


class ExitPoint(Record):
    """An inner exit: a result that is ready at ``cut``, that is after block ``cut - 1``."""

    name: str
    cut: int = Field(ge=1)
    result_bytes: int = Field(ge=0)


class OperatingPoint(Record):
    """An accuracy together with how far samples go to reach it."""

    name: str
    accuracy: Probability
    """Fraction of samples answered right, in [0, 1]."""
    thresholds: tuple[Probability, ...] = ()
    """One confidence threshold for each inner exit."""
    reach: tuple[Probability, ...]
    """Probability that a sample is worked on by block l, for each block; never increasing."""


class SegmentError(Record):
    """Relative error of predicted against measured time on random segments that were not used to fit."""

    median: NonNegative
    p95: NonNegative
    segments: int = Field(ge=1)


class Profile(Record):
    """Measured or estimated costs of one chain of L blocks on one device class."""

    schema_: Literal["planner/profile/v1"] = Field(default=SCHEMA, alias="schema")
    model: ModelReference
    chain_sha256: str
    device_class: str
    provenance: Literal["measured", "estimated"]
    environment: dict[str, Any]
    """Device, execution provider, precision, threads, library versions: whatever the costs depend on."""
    stage_overhead_s: NonNegative
    """Time that each stage call costs beyond its blocks, in seconds."""
    fusion_saving_s: tuple[Finite, ...]
    """What one session over both neighbours of each inner border would save, in seconds: length L - 1, or empty where
    that was not measured. Negative where fusing costs time."""
    blocks: tuple[BlockCost, ...] = Field(min_length=1)
    cut_bytes: tuple[int, ...]
    """Size of the tensors that cross each cut, length L + 1."""
    exits: tuple[ExitPoint, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    segment_error: SegmentError | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> Profile:
        count = len(self.blocks)
        if len(self.cut_bytes) != count + 1:
            raise ValueError(f"cut_bytes has {len(self.cut_bytes)} entries; {count} blocks have {count + 1} cuts")
        if self.fusion_saving_s and len(self.fusion_saving_s) != count - 1:
            raise ValueError(f"fusion_saving_s has {len(self.fusion_saving_s)} entries; expected {count - 1}")
        return self

    @model_validator(mode="after")
    def _exits_agree(self) -> Profile:
        count, cuts = len(self.blocks), [leave.cut for leave in self.exits]
        if cuts != sorted(cuts) or any(cut >= count for cut in cuts):
            raise ValueError(f"exits are at cuts {cuts}; {count} blocks have the inner cuts 1 to {count - 1}, in order")
        for point in self.operating_points:
            if fault := _point_fault(point, count, cuts):
                raise ValueError(f"operating point {point.name!r}{fault}")
        return self


def _point_fault(point: OperatingPoint, blocks: int, cuts: list[int]) -> str | None:
    if len(point.reach) != blocks:
        return f" has {len(point.reach)} reaches for {blocks} blocks"
    if len(point.thresholds) != len(cuts):
        return f" has {len(point.thresholds)} thresholds for {len(cuts)} exits"
    if point.reach[0] != 1:
        return f": every sample comes to the first block, not {point.reach[0]:g} of them"
    for block, (earlier, later) in enumerate(pairwise(point.reach), start=1):
        if later > earlier:
            return f": reach must never increase, as it does at block {block}"
        if later < earlier and block not in cuts:
            return f": reach falls before block {block}, where no exit is"
    return None
