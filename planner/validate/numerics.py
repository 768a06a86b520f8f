"""Whether the blocks, run by many, give what the whole model gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from planner.execute.inputs import input_pool
from planner.execute.messages import Tensors
from planner.model.chain import TensorSpec
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance

TOLERANCE: Final = 1e-4
"""Largest relative error at which outputs count as equal: onnxruntime fuses across borders in the whole model only."""


@dataclass(frozen=True)
class Numerics:
    """Largest differences over all outputs of all samples; the relative one is max|a−b| / max|b| of an output."""

    samples: int
    max_abs_error: float
    max_rel_error: float

    @property
    def equal(self) -> bool:
        """Whether the outputs agree; no sample at all does not count as agreement."""
        return self.samples > 0 and self.max_rel_error <= TOLERANCE


def compare(
    instance: Instance,
    outputs: Mapping[tuple[str, int], Tensors],
    whole: Mapping[str, tuple[bytes, tuple[TensorSpec, ...]]],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Numerics:
    """Compare every output of a run with the whole model's, computed here and now.

    Parameters
    ----------
    outputs
        Of each completed sample, by source and sample.
    whole
        For each model its file's bytes and its input tensors.
    seed
        The run's seed, from which the inputs are drawn again.
    """
    errors = [(0.0, 0.0)]
    done = 0
    for index, source in enumerate(instance.sources):
        model, specs = whole[instance.scenario.sources[source].models[0]]
        session = BlockSession(model)
        pool = input_pool(specs, seed=seed, source_index=index, samples=instance.samples(source))
        references = [session.run(inputs) for inputs in pool]
        for (owner, sample), found in outputs.items():
            if owner == source:
                expected = references[sample % len(references)]
                errors.extend(_errors(found[name], expected[name]) for name in expected)
                done += 1
                if progress is not None:
                    progress(done, len(outputs))
    return Numerics(len(outputs), max(error[0] for error in errors), max(error[1] for error in errors))


def _errors(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Give the largest absolute and relative error; infinite where shapes differ or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf"), float("inf")
    absolute = float(np.max(np.abs(found.astype(np.float64) - expected), initial=0.0))
    scale = float(np.max(np.abs(expected), initial=0.0))
    return absolute, absolute / scale if scale > 0 else absolute
