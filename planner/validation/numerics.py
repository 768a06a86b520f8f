"""Comparison of the results of a run with those of the whole model, run in one piece here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from planner.execution.wire.frames import Tensors
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord

References: TypeAlias = Mapping[tuple[str, str], Sequence[Tensors]]
"""By source and model: outputs of the whole model for each input of the source, including those of its exits."""

NAMED: Final = 10
"""Maximum number of samples named for each kind of fault."""


@dataclass(frozen=True)
class Difference:
    """An output whose error exceeds the tolerance of its model."""

    source: str
    sample: int
    tensor: str
    error: float
    """Relative; infinite where the tensor is missing, not finite, or of another shape."""
    tolerance: float

    def __str__(self) -> str:
        if np.isinf(self.error):
            return f"{self.tensor} is missing, not finite, or of another shape"
        return f"{self.tensor} differs by {self.error:.2e}; tolerance {self.tolerance:.0e}"


@dataclass(frozen=True)
class Numerics:
    """Largest errors over all outputs of all samples; the relative error of an output is max|a−b| / max|b|."""

    samples: int
    max_abs_error: float
    max_rel_error: float
    unequal: int = 0
    """Number of samples with an output whose error exceeds the tolerance of its model."""
    differences: tuple[Difference, ...] = ()
    """The largest error of each of the first few of these samples."""

    @property
    def equal(self) -> bool:
        """Whether the outputs agree; False if there are none."""
        return self.samples > 0 and self.unequal == 0


def references(
    instance: Instance,
    whole: Mapping[str, bytes],
    inputs: Mapping[str, Sequence[Tensors]],
    progress: Callable[[int, int], None] | None = None,
) -> References:
    """Run the whole models of each source on all its inputs, in this process.

    Parameters
    ----------
    whole
        Serialised models.
    inputs
        Inputs of each source.
    """
    pairs = [(source, model) for source in instance.sources for model in instance.scenario.sources[source].models]
    sessions = {model: BlockSession(whole[model], name=model) for model in dict.fromkeys(model for _, model in pairs)}
    total = sum(len(inputs[source]) for source, _ in pairs)
    outputs: dict[tuple[str, str], list[Tensors]] = {pair: [] for pair in pairs}
    done = 0
    for source, model in pairs:
        for tensors in inputs[source]:
            outputs[source, model].append(sessions[model].run(tensors))
            done += 1
            if progress is not None:
                progress(done, total)
    return outputs


def compare(
    instance: Instance,
    outputs: Mapping[tuple[str, int], Tensors],
    records: Iterable[Record],
    expected: References,
    tolerances: Mapping[str, float],
) -> Numerics:
    """Compare every result of a run with that of the whole model.

    Parameters
    ----------
    outputs
        Outputs of each completed sample, by source and sample; sample k had input k modulo the number of inputs.
    records
        Records of the run, which say of which model and exit each result is.
    tolerances
        Maximum relative error of each model at which its outputs count as equal.
    """
    samples, unequal, absolute, relative = 0, 0, 0.0, 0.0
    differences: list[Difference] = []
    for record in records:
        origin = record.origin if isinstance(record, SampleRecord) else None
        result = outputs.get((record.source, record.sample))
        if origin is None or result is None:
            continue
        samples += 1
        known = expected[record.source, origin.model]
        reference = known[record.sample % len(known)]
        exits = {exit_point.name for exit_point in instance.any_profile(origin.model).exits}
        names = reference.keys() - exits if origin.exit is None else (origin.exit,)
        errors = {name: _errors(result.get(name), reference[name]) for name in names}
        tolerance = tolerances[origin.model]
        too_large = {name: error for name, (_, error) in errors.items() if not error <= tolerance}
        unequal += bool(too_large)
        if too_large and len(differences) < NAMED:
            tensor = max(too_large, key=lambda name: too_large[name])
            differences.append(Difference(record.source, record.sample, tensor, too_large[tensor], tolerance))
        absolute = max([absolute, *(error for error, _ in errors.values())])
        relative = max([relative, *(error for _, error in errors.values())])
    return Numerics(samples, absolute, relative, unequal, tuple(differences))


def _errors(output: np.ndarray | None, reference: np.ndarray) -> tuple[float, float]:
    """Return the largest absolute and relative error, infinite if the output is missing, not finite or misshapen."""
    if output is None or output.shape != reference.shape or not np.isfinite(output).all():
        return float("inf"), float("inf")
    absolute = float(np.max(np.abs(output.astype(np.float64) - reference), initial=0.0))
    scale = float(np.max(np.abs(reference), initial=0.0))
    return absolute, absolute / scale if scale > 0 else absolute
