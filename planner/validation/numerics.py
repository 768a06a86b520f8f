"""Comparison of the results of a run with those of the whole models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Final

from planner.execution.wire.frames import Tensors
from planner.runtime.difference import tensor_errors
from planner.runtime.tolerance import Tolerance
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord
from planner.validation.limits import Limits
from planner.validation.references import References

NAMED: Final = 10
"""Maximum number of samples named for each kind of fault."""


@dataclass(frozen=True)
class Difference:
    """An output whose error exceeds the tolerance of its model and provider."""

    source: str
    sample: int
    tensor: str
    error: float
    """Relative; infinite where the tensor is missing, not finite, or of another shape."""
    tolerance: float

    def __str__(self) -> str:
        if isinf(self.error):
            return f"{self.tensor} is missing, not finite, or of another shape"
        return f"{self.tensor} differs by {self.error:.2e}; tolerance {self.tolerance:.1e}"


@dataclass(frozen=True)
class TokenDifference:
    """A sequence whose tokens are others than those of the whole model."""

    source: str
    sample: int
    found: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        for index, (token, wanted) in enumerate(zip(self.found, self.expected, strict=False)):
            if token != wanted:
                return f"token {index} is {token}, not {wanted}"
        return f"it has {len(self.found)} tokens, not {len(self.expected)}"


@dataclass(frozen=True)
class Numerics:
    """Largest errors over all outputs of all samples; the relative error of an output is max|a−b| / max|b|."""

    samples: int
    max_abs_error: float
    max_rel_error: float
    unequal: int = 0
    """Number of samples with an output whose error exceeds the tolerance of its model and provider."""
    differences: tuple[Difference | TokenDifference, ...] = ()
    """The largest error of each of the first few of these samples."""
    tolerances: Mapping[tuple[str, str], Tolerance] = field(default_factory=dict)
    """By model and provider."""
    not_received: int = 0
    """Number of samples that completed, and whose outputs were not received, such as when their home restarted."""
    tokens: int = 0
    """Number of tokens of sequences among these outputs; they are compared one by one, without an error."""

    @property
    def equal(self) -> bool:
        """Whether the outputs of all completed samples agree; False if there are none."""
        return self.samples > 0 and self.unequal == 0 and self.not_received == 0


def joined(first: Numerics, second: Numerics) -> Numerics:
    """Return the result of two comparisons together."""
    return Numerics(
        first.samples + second.samples,
        max(first.max_abs_error, second.max_abs_error),
        max(first.max_rel_error, second.max_rel_error),
        first.unequal + second.unequal,
        (*first.differences, *second.differences),
        {**first.tolerances, **second.tolerances},
        first.not_received + second.not_received,
        first.tokens + second.tokens,
    )


def compare(
    instance: Instance,
    outputs: Mapping[tuple[str, int], Tensors],
    records: Iterable[Record],
    expected: References,
    limits: Limits,
) -> Numerics:
    """Compare every result of a run with that of the whole model, except those of sequences.

    Parameters
    ----------
    outputs
        Outputs of each completed sample, by source and sample; sample k had input k modulo the number of inputs.
    records
        Records of the run, which say of which model and exit each result is.
    limits
        Maximum relative error at which the outputs of a sample count as equal.
    """
    samples, unequal, absolute, relative, not_received = 0, 0, 0.0, 0.0, 0
    differences: list[Difference] = []
    for record in records:
        origin = record.origin if isinstance(record, SampleRecord) else None
        if origin is None or instance.scenario.sources[record.source].decode is not None:
            continue
        result = outputs.get((record.source, record.sample))
        if result is None:
            not_received += 1
            continue
        samples += 1
        known = expected[record.source, origin.model]
        reference = known[record.sample % len(known)]
        exits = {exit_point.name for exit_point in instance.any_profile(origin.model).exits}
        names = reference.keys() - exits if origin.exit is None else (origin.exit,)
        errors = {name: tensor_errors(result.get(name), reference[name]) for name in names}
        tolerance = limits.of(origin.model, record.source, record.sample)
        too_large = {name: error.relative for name, error in errors.items() if error.relative > tolerance}
        unequal += bool(too_large)
        if too_large and len(differences) < NAMED:
            tensor = max(too_large, key=lambda name: too_large[name])
            differences.append(Difference(record.source, record.sample, tensor, too_large[tensor], tolerance))
        absolute = max([absolute, *(error.absolute for error in errors.values())])
        relative = max([relative, *(error.relative for error in errors.values())])
    return Numerics(samples, absolute, relative, unequal, tuple(differences), limits.tolerances, not_received)
