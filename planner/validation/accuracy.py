"""How often the results of a run are right, and how far that may be chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.execution.wire.frames import Tensors
from planner.model.chain import Chain
from planner.profiling.operating_points import predictions_of
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord
from planner.validation.numerics import References

Labels = Mapping[str, NDArray[np.int64]]
"""Classes of the inputs of some sources, in their order."""

_Z: Final = 1.959964
"""97.5th percentile of the normal distribution."""


class Bounds(NamedTuple):
    """An interval of fractions."""

    low: float
    high: float


def wilson(right: float, samples: int) -> Bounds:
    """Give the 95 % confidence interval of a probability of which a fraction was seen.

    A probability p lies in it when the fraction lies within 1.96 standard deviations, √(p(1−p)/n), of p.

    Parameters
    ----------
    right
        Fraction seen.
    samples
        Number of independent samples; 1 or more.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    shrink = 1 + _Z**2 / samples
    middle = (right + _Z**2 / (2 * samples)) / shrink
    half = _Z / shrink * sqrt(right * (1 - right) / samples + (_Z / (2 * samples)) ** 2)
    return Bounds(max(middle - half, 0.0), min(middle + half, 1.0))


def known_answers(
    instance: Instance, chains: Mapping[str, Chain], expected: References, labels: Labels
) -> dict[str, dict[str, RecordedPredictions]]:
    """Give what the models that samples may leave early say of the inputs, for an exact replay of who leaves where."""
    found: dict[str, dict[str, RecordedPredictions]] = {}
    for (source, model), outputs in expected.items():
        if any(point.thresholds for point in instance.operating_points(model)) or source in labels:
            found.setdefault(source, {})[model] = predictions_of(chains[model], outputs, labels.get(source))
    return found


def with_correctness(
    records: Iterable[Record], outputs: Mapping[tuple[str, int], Tensors], labels: Labels
) -> Iterator[Record]:
    """Say of each completed sample with a label whether the most likely class of its result is right."""
    for record in records:
        yield _judged(record, outputs, labels) if isinstance(record, SampleRecord) else record


def _judged(record: SampleRecord, outputs: Mapping[tuple[str, int], Tensors], labels: Labels) -> SampleRecord:
    found, known = outputs.get((record.source, record.sample)), labels.get(record.source)
    if record.status != "completed" or found is None or known is None:
        return record
    (scores,) = found.values()
    return replace(record, correct=bool(scores.argmax() == known[record.sample % len(known)]))
