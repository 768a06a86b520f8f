"""Contents of a profile file: the costs of a chain's blocks on a device class (``planner/profile/v1``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from math import exp, inf, log, sqrt
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from planner.base import FrozenModel
from planner.model.work import KernelWork
from planner.profiling.batches import BatchCosts
from planner.profiling.batches import describe as describe_batches
from planner.profiling.sequences import SequenceCosts, describe
from planner.tables import Printable, Table, short_name

SCHEMA: Final = "planner/profile/v1"

WHOLE_ERROR: Final = "whole_error"
"""Key of :attr:`Profile.whole_error` in the environment."""

SHAPES: Final = "shapes"
"""Key of the shapes of the model's inputs in the environment, by name."""

AXES: Final = "axes"
"""Key of the sizes of the axes that the model names in the environment, by name."""

_ERRORS: Final = {"median_error": int | float, "worst_error": int | float}
FIT: Final = {"figures": int, **_ERRORS}
"""Keys of the entry ``fit`` in the environment of an estimate from published figures, with the types of values."""

ADAPTED: Final = {"blocks": int, "kernels": int, "left_out": str, **_ERRORS}
"""Likewise of an estimate that was fitted to measurements."""

_BAR: Final = 24
"""Characters of the longest bar in a table."""


MAX_BLOCK_S: Final = 1e6
"""Longest time of a block, over 11 days; a longer one is a wrong unit, such as nanoseconds taken for seconds."""

# Numbers are strict, because text and booleans would be read as numbers otherwise.
BlockSeconds = Annotated[float, Field(ge=1e-12, le=MAX_BLOCK_S, allow_inf_nan=False, strict=True)]
ExtraSeconds = Annotated[float, Field(ge=0, le=MAX_BLOCK_S, allow_inf_nan=False, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Probability = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=0, le=10**18, strict=True)]
PositiveCount = Annotated[int, Field(ge=1, le=10**18, strict=True)]


def _in_order(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError(f"the interval {list(interval)} ends before it begins")
    return interval


Interval = Annotated[tuple[BlockSeconds, BlockSeconds], AfterValidator(_in_order)]
"""Smallest and largest value, in seconds."""


class ModelReference(FrozenModel):
    """The model that was profiled."""

    name: str
    sha256: str


class BlockCost(FrozenModel):
    """Cost of a block on this device class."""

    name: str
    mean_s: BlockSeconds
    """Time of one run of the block inside a stage, without the stage overhead, in seconds: the median of the rounds."""
    std_s: ExtraSeconds
    """Standard deviation of that time over the rounds, computed from the quartiles, in seconds."""
    weight_bytes: Count
    """Memory that the block holds while it is loaded: its weights as the runtime keeps them, in bytes."""
    activation_bytes: Count
    """Peak size of the tensors alive while the block runs, in bytes."""
    flop: NonNegative
    """Floating-point operations of one run."""
    parameters: Count
    """Number of trained values."""
    load_s: ExtraSeconds
    """Time to create the block's session from its model file, in seconds."""
    interval_s: Interval | None = None
    """Interval of ``mean_s``, with the coverage of :class:`EstimateInterval`, in seconds; none in a measured profile,
    whose blocks are known as well as the whole model."""
    work: dict[str, KernelWork] = {}
    """Work by kind of operator (:mod:`planner.model.work`), from which estimates for the device class can be fitted;
    empty in estimates, and in profiles of earlier versions."""


class ExitPoint(FrozenModel):
    """An inner exit: a result that is available at ``cut``, that is, after block ``cut - 1``."""

    name: str
    cut: PositiveCount
    result_bytes: Count
    """Size of its result, in bytes."""


class OperatingPoint(FrozenModel):
    """An accuracy, and the share of samples that reach each block to achieve it."""

    name: str
    accuracy: Probability
    """Fraction of samples classified correctly, in [0, 1]."""
    thresholds: tuple[Probability, ...] = ()
    """Confidence threshold of each inner exit."""
    reach: tuple[Probability, ...]
    """Probability that a sample is processed by block l, for each block; non-increasing."""


class SegmentError(FrozenModel):
    """Relative error of predicted times compared with measured times on random held-out segments."""

    median: NonNegative
    """Median over the segments."""
    p95: NonNegative
    """95th percentile."""
    segments: PositiveCount
    """Number of segments that were measured."""


def _readable(environment: dict[str, Any]) -> dict[str, Any]:
    """Check the entries of an environment that are used; others are only shown."""
    fit, warnings = environment.get("fit"), environment.get("warnings", [])
    if fit:
        wanted = FIT if isinstance(fit, dict) and "figures" in fit else ADAPTED
        if not (isinstance(fit, dict) and all(isinstance(fit.get(key), kind) for key, kind in wanted.items())):
            raise ValueError(f"fit must have {', '.join(wanted)}")
    if not (isinstance(warnings, list | tuple) and all(isinstance(text, str) for text in warnings)):
        raise ValueError("warnings must be a list of texts")
    return environment


class FusionError(SegmentError):
    """Relative error of the predicted times of random held-out segments, each of which is one session."""

    blocks_median: NonNegative
    """Median of the error if savings are left out: the sum of the blocks in place of the session."""


class EstimateInterval(FrozenModel):
    """Interval of the time of the whole model."""

    coverage: Probability
    """Share of models, or of blocks, whose time lies in the interval, as far as the errors of the fit tell; in a
    measured profile the share of runs whose mean time does, as far as the rounds tell."""
    total_s: Interval


class ColocationCosts(FrozenModel):
    """How much longer blocks take in an agent, alone and while other agents compute on the same host."""

    others: PositiveCount
    """Number N of the other agents that computed."""
    alone: tuple[Positive, ...]
    """Time of each block in an agent while the others are idle, relative to ``mean_s``; length L. It contains the
    agent's own work between blocks."""
    beside: tuple[Positive, ...]
    """Likewise while all N others compute; length L, nowhere less than ``alone``."""

    @model_validator(mode="after")
    def _never_faster(self) -> ColocationCosts:
        if len(self.alone) != len(self.beside):
            raise ValueError(f"alone has {len(self.alone)} entries, beside {len(self.beside)}")
        for block, (alone, beside) in enumerate(zip(self.alone, self.beside, strict=True)):
            if beside < alone:
                raise ValueError(f"block {block} takes {beside:g} beside others, less than {alone:g} alone")
        return self


class Profile(Printable, FrozenModel):
    """Measured or estimated costs of a chain of L blocks on a device class."""

    schema_: Literal["planner/profile/v1"] = Field(default=SCHEMA, alias="schema")
    model: ModelReference
    chain_sha256: str
    """Hash of the model, the shapes and the borders of its blocks: costs of different chains do not mix."""
    device_class: str
    """Name of hardware, execution provider, precision and threads; the scenario uses it."""
    provenance: Literal["measured", "estimated"]
    """Whether the costs were measured on the device."""
    environment: Annotated[dict[str, Any], AfterValidator(_readable)]
    """What the costs depend on: device, execution provider, precision, threads, library versions."""
    stage_overhead_s: ExtraSeconds
    """Cost of each stage call in addition to its blocks, in seconds."""
    fusion_saving_s: tuple[Finite, ...]
    """Time saved by running both neighbours of each inner border in one session, in seconds; length L - 1, or empty if
    not measured. Negative where fusing costs time."""
    blocks: tuple[BlockCost, ...] = Field(min_length=1)
    cut_bytes: tuple[Count, ...]
    """Size of the tensors that cross each cut, in bytes; length L + 1."""
    exits: tuple[ExitPoint, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    segment_error: SegmentError | None = None
    fusion_error: FusionError | None = None
    """How well ``fusion_saving_s`` predicts sessions of several blocks; None if not measured."""
    interval: EstimateInterval | None = None
    """How well the times are known; None where the error is unknown, and in measured profiles of earlier versions."""
    colocation: ColocationCosts | None = None
    """How much longer blocks take beside other agents on one host; None if not measured."""
    sequences: SequenceCosts | None = None
    """Costs of runs by their tokens; None for models without state, and in profiles of earlier versions."""
    batches: BatchCosts | None = None
    """Times of batches by their size; None if not measured, or if the model runs none."""

    @property
    def whole_error(self) -> float | None:
        """Relative error of the whole model's outputs on this provider, against the CPU's; None if not measured."""
        error = self.environment.get(WHOLE_ERROR)
        return error if isinstance(error, float) and 0 <= error < inf else None

    def factors(self, blocks: Collection[int]) -> tuple[float, float]:
        """Return the interval of the time that some blocks take together, relative to ``mean_s``; (1, 1) if unknown.

        Errors of blocks have a part in common, which shows in the interval of the whole model, and a part of their own,
        which averages out over many blocks.
        """
        if self.interval is None or not blocks:
            return 1.0, 1.0
        total_s = sum(block.mean_s for block in self.blocks)
        chosen = [self.blocks[index] for index in blocks]
        share = _concentration(chosen)
        whole_share = _concentration(self.blocks)
        factors = []
        for end in (0, 1):
            whole = log(self.interval.total_s[end] / total_s) ** 2
            own = [log(block.interval_s[end] / block.mean_s) ** 2 for block in chosen if block.interval_s]
            extra = max(sum(own) / len(own) - whole, 0.0) if own else 0.0
            portion = (share - whole_share) / (1 - whole_share) if whole_share < 1 else 0.0
            width = sqrt(whole + extra * max(portion, 0.0))
            factors.append(exp(width if end else -width))
        return factors[0], factors[1]

    def slowdown(self, computing: float) -> NDArray[np.float64]:
        """Return the time of each block in an agent, relative to ``mean_s``; 1 if not measured; shape [L].

        Parameters
        ----------
        computing
            Mean number of other agents on the host that compute meanwhile; the slowdown is linear in it.
        """
        costs = self.colocation
        if costs is None:
            return np.ones(len(self.blocks))
        alone = np.array(costs.alone)
        return np.asarray(alone + (np.array(costs.beside) - alone) * computing / costs.others)

    def contents(self) -> Iterator[Table | str]:
        """Return the costs along the chain, and how reliable they are."""
        return _describe(self)

    def __repr__(self) -> str:
        total_ms = 1e3 * sum(block.mean_s for block in self.blocks)
        what = f"{len(self.blocks)} blocks, {total_ms:.2f} ms, {self.provenance}"
        return f"<Profile of {self.model.name} on {self.device_class}: {what}>"

    @model_validator(mode="after")
    def _lengths_agree(self) -> Profile:
        count = len(self.blocks)
        if len(self.cut_bytes) != count + 1:
            raise ValueError(f"cut_bytes has {len(self.cut_bytes)} entries; {count} blocks have {count + 1} cuts")
        if self.sequences and (len(self.sequences.blocks), len(self.sequences.cuts)) != (count, count + 1):
            found = f"{len(self.sequences.blocks)} blocks and {len(self.sequences.cuts)} cuts"
            raise ValueError(f"sequences have {found}; expected {count} and {count + 1}")
        if self.colocation and len(self.colocation.alone) != count:
            raise ValueError(f"colocation has {len(self.colocation.alone)} entries; expected {count}")
        if self.batches and len(self.batches.relative) != count:
            raise ValueError(f"batches has times of {len(self.batches.relative)} blocks; expected {count}")
        if self.fusion_saving_s and len(self.fusion_saving_s) != count - 1:
            raise ValueError(f"fusion_saving_s has {len(self.fusion_saving_s)} entries; expected {count - 1}")
        return self

    @model_validator(mode="after")
    def _exits_agree(self) -> Profile:
        count, cuts = len(self.blocks), [exit_.cut for exit_ in self.exits]
        if cuts != sorted(cuts) or any(cut >= count for cut in cuts):
            raise ValueError(f"exits are at cuts {cuts}; {count} blocks have the inner cuts 1 to {count - 1}, in order")
        for point in self.operating_points:
            if fault := _point_fault(point, count, cuts):
                raise ValueError(f"operating point {point.name!r}{fault}")
        return self


def _concentration(blocks: Sequence[BlockCost]) -> float:
    """Return Σ t² / (Σ t)²: 1 for one block, 1 / n for n equal ones."""
    total_s = sum(block.mean_s for block in blocks)
    return sum((block.mean_s / total_s) ** 2 for block in blocks)


def _point_fault(point: OperatingPoint, blocks: int, cuts: list[int]) -> str | None:
    if len(point.reach) != blocks:
        return f" has {len(point.reach)} reaches for {blocks} blocks"
    if len(point.thresholds) != len(cuts):
        return f" has {len(point.thresholds)} thresholds for {len(cuts)} exits"
    if point.reach[0] != 1:
        return f": the reach of the first block must be 1, not {point.reach[0]:g}"
    for block, (earlier, later) in enumerate(pairwise(point.reach), start=1):
        if later > earlier:
            return f": reach must never increase, as it does at block {block}"
        if later < earlier and block not in cuts:
            return f": reach falls before block {block}, where no exit is"
    return None


def _describe(profile: Profile) -> Iterator[Table | str]:
    """Return the costs along the chain, and how reliable they are."""
    yield _block_table(profile)
    total_s = sum(block.mean_s for block in profile.blocks)
    yield f"whole chain {1e3 * total_s:.2f} ms; each stage adds {1e3 * profile.stage_overhead_s:.3f} ms"
    if profile.fusion_saving_s:
        yield f"one session in place of all would save about {1e3 * sum(profile.fusion_saving_s):.2f} ms"
    if profile.operating_points:
        best, least = profile.operating_points[0], profile.operating_points[-1]
        yield (
            f"{len(profile.operating_points)} operating points: accuracy {best.accuracy:.1%} ({best.name}) to "
            f"{least.accuracy:.1%} ({least.name}), mean time {1e3 * _mean_s(profile, best):.2f} ms to "
            f"{1e3 * _mean_s(profile, least):.2f} ms"
        )
    error, fit = profile.segment_error, profile.environment.get("fit")
    if error is not None:
        yield f"error on {error.segments} held-out segments: median {error.median:.1%}, 95th percentile {error.p95:.1%}"
    if (fused := profile.fusion_error) is not None:
        yield (
            f"error on {fused.segments} held-out segments as one session: median {fused.median:.1%}, 95th percentile "
            f"{fused.p95:.1%}; by the sum of the blocks: median {fused.blocks_median:.1%}"
        )
    if fit:
        yield _describe_fit(fit)
    if profile.colocation is not None:
        others = profile.colocation.others
        alone_s, beside_s = (_in_agent_s(profile, computing) for computing in (0, others))
        yield (
            f"in an agent {1e3 * alone_s:.2f} ms ({alone_s / total_s - 1:+.0%}); while "
            f"{others} {'others compute' if others > 1 else 'other computes'} on its host {1e3 * beside_s:.2f} ms "
            f"({beside_s / total_s - 1:+.0%})"
        )
    if profile.sequences is not None:
        yield from describe(profile.sequences)
    if profile.batches is not None:
        yield describe_batches(profile.batches, np.array([block.mean_s for block in profile.blocks]))
    if profile.interval is not None:
        low_s, high_s = profile.interval.total_s
        yield (
            f"{profile.interval.coverage:.0%} interval of the whole chain: {1e3 * low_s:.2f} to {1e3 * high_s:.2f} ms "
            f"({low_s / total_s - 1:+.0%} to {high_s / total_s - 1:+.0%})"
        )


def _describe_fit(fit: dict[str, Any]) -> str:
    """Return how an estimate was fitted and how far it is off."""
    if "figures" in fit:
        by = f"{fit['figures']} published figures; relative error of each when predicted from the others"
    else:
        by = (
            f"{fit['blocks']} measured blocks and {fit['kernels']} probed kernels; relative error by "
            f"leave-one-{fit['left_out']}-out"
        )
    return f"estimated from {by}: median {fit['median_error']:.0%}, worst {fit['worst_error']:.0%}"


def _block_table(profile: Profile) -> Table:
    longest_s = max(block.mean_s for block in profile.blocks)
    known = profile.interval is not None and any(block.interval_s for block in profile.blocks)
    interval = [f">{profile.interval.coverage:.0%} interval"] if profile.interval is not None and known else []
    return Table(
        f"{profile.model.name} on {profile.device_class} ({profile.provenance})",
        (">block", "name", ">ms", *interval, ">± ms", "", ">weights MiB", ">peak MiB", ">load ms", ">out KiB"),
        [
            (
                index,
                short_name(block.name),
                f"{1e3 * block.mean_s:.3f}",
                *([_milliseconds(block.interval_s)] if interval else []),
                f"{1e3 * block.std_s:.3f}",
                "█" * max(round(_BAR * block.mean_s / longest_s), 1),
                f"{block.weight_bytes / 2**20:.2f}",
                f"{block.activation_bytes / 2**20:.2f}",
                f"{1e3 * block.load_s:.0f}",
                f"{cut_bytes / 2**10:.1f}",
            )
            for index, (block, cut_bytes) in enumerate(zip(profile.blocks, profile.cut_bytes[1:], strict=True))
        ],
    )


def _in_agent_s(profile: Profile, computing: float) -> float:
    return float(profile.slowdown(computing) @ [block.mean_s for block in profile.blocks])


def _milliseconds(interval_s: tuple[float, float] | None) -> str:
    return "" if interval_s is None else f"{1e3 * interval_s[0]:.3f} to {1e3 * interval_s[1]:.3f}"


def _mean_s(profile: Profile, point: OperatingPoint) -> float:
    return sum(reach * block.mean_s for reach, block in zip(point.reach, profile.blocks, strict=True))
