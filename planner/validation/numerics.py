"""Whether the blocks, run by many, give what the whole model gives; a result of an exit, what it gives there."""

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
"""By source and model: what the whole model makes of each input of the source, its exits' results included."""

NAMED: Final = 10
"""How many samples with a fault of a kind are named."""


@dataclass(frozen=True)
class Difference:
    """An output that is further off than its model's tolerance."""

    source: str
    sample: int
    tensor: str
    error: float
    """Relative; infinite where the tensor is missing, not finite, or of another shape."""
    tolerance: float

    def __str__(self) -> str:
        if np.isinf(self.error):
            return f"{self.tensor} is missing, not finite, or of another shape"
        return f"{self.tensor} differs by {self.error:.2e}, allowed are {self.tolerance:.0e}"


@dataclass(frozen=True)
class Numerics:
    """Largest differences over all outputs of all samples; the relative one is max|a−b| / max|b| of an output."""

    samples: int
    max_abs_error: float
    max_rel_error: float
    unequal: int = 0
    """How many samples have an output that is further off than their model's tolerance."""
    differences: tuple[Difference, ...] = ()
    """The furthest off of each of the first few of them."""

    @property
    def equal(self) -> bool:
        """Whether the outputs agree; no sample at all does not count as agreement."""
        return self.samples > 0 and self.unequal == 0


def references(
    instance: Instance,
    whole: Mapping[str, bytes],
    inputs: Mapping[str, Sequence[Tensors]],
    progress: Callable[[int, int], None] | None = None,
) -> References:
    """Run every whole model that a source may use on all inputs of the source, here and now.

    Parameters
    ----------
    whole
        The models' files.
    inputs
        The inputs of each source.
    """
    pairs = [(source, model) for source in instance.sources for model in instance.scenario.sources[source].models]
    sessions = {model: BlockSession(whole[model], name=model) for model in dict.fromkeys(model for _, model in pairs)}
    total = sum(len(inputs[source]) for source, _ in pairs)
    found: dict[tuple[str, str], list[Tensors]] = {pair: [] for pair in pairs}
    done = 0
    for source, model in pairs:
        for tensors in inputs[source]:
            found[source, model].append(sessions[model].run(tensors))
            done += 1
            if progress is not None:
                progress(done, total)
    return found


def compare(
    instance: Instance,
    outputs: Mapping[tuple[str, int], Tensors],
    records: Iterable[Record],
    expected: References,
    tolerances: Mapping[str, float],
) -> Numerics:
    """Compare every result of a run with what the whole model gave.

    Parameters
    ----------
    outputs
        Of each completed sample, by source and sample; sample k had the k-th input, modulo their number.
    records
        Those of the run, which say what each of them is of.
    tolerances
        Of each model, the largest relative error at which its outputs count as equal.
    """
    samples, unequal, absolute, relative = 0, 0, 0.0, 0.0
    differences: list[Difference] = []
    for record in records:
        origin = record.origin if isinstance(record, SampleRecord) else None
        found = outputs.get((record.source, record.sample))
        if origin is None or found is None:
            continue
        samples += 1
        known = expected[record.source, origin.model]
        whole = known[record.sample % len(known)]
        exits = {leave.name for leave in instance.any_profile(origin.model).exits}
        names = whole.keys() - exits if origin.exit is None else (origin.exit,)
        errors = {name: _errors(found.get(name), whole[name]) for name in names}
        tolerance = tolerances[origin.model]
        off = {name: error for name, (_, error) in errors.items() if not error <= tolerance}
        unequal += bool(off)
        if off and len(differences) < NAMED:
            tensor = max(off, key=lambda name: off[name])
            differences.append(Difference(record.source, record.sample, tensor, off[tensor], tolerance))
        absolute = max([absolute, *(error for error, _ in errors.values())])
        relative = max([relative, *(error for _, error in errors.values())])
    return Numerics(samples, absolute, relative, unequal, tuple(differences))


def _errors(found: np.ndarray | None, expected: np.ndarray) -> tuple[float, float]:
    """Give the largest absolute and relative error; infinite where one is missing, not finite, or of another shape."""
    if found is None or found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf"), float("inf")
    absolute = float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
    scale = float(np.max(np.abs(expected), initial=0.0))
    return absolute, absolute / scale if scale > 0 else absolute
