"""Measured accuracy of a run, and its confidence interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.execution.wire.frames import Tensors
from planner.model.chain import Chain
from planner.profiling.operating_points import predictions_of
from planner.profiling.recorded_predictions import RecordedPredictions
from planner.scenario.instance import Instance
from planner.trace.records import Record, SampleRecord
from planner.validation.references import References

Labels = Mapping[str, NDArray[np.int64]]
"""Classes of the inputs of some sources, in the order of the inputs."""


def recorded_predictions(
    instance: Instance, chains: Mapping[str, Chain], expected: References, labels: Labels
) -> dict[str, dict[str, RecordedPredictions]]:
    """Return, by source and model, what models with exits or labels predict for the inputs.

    With them the simulation lets each sample leave at the exit at which it leaves in the run.
    """
    predictions: dict[str, dict[str, RecordedPredictions]] = {}
    for (source, model), outputs in expected.items():
        if any(point.thresholds for point in instance.operating_points(model)) or source in labels:
            predictions.setdefault(source, {})[model] = predictions_of(chains[model], outputs, labels.get(source))
    return predictions


def with_correctness(
    records: Iterable[Record], outputs: Mapping[tuple[str, int], Tensors], labels: Labels
) -> Iterator[Record]:
    """Yield the records; those of completed samples with a label say whether the most likely class is correct."""
    for record in records:
        yield _with_correctness(record, outputs, labels) if isinstance(record, SampleRecord) else record


def _with_correctness(record: SampleRecord, outputs: Mapping[tuple[str, int], Tensors], labels: Labels) -> SampleRecord:
    tensors, classes = outputs.get((record.source, record.sample)), labels.get(record.source)
    if record.status != "completed" or tensors is None or classes is None:
        return record
    (scores,) = tensors.values()
    return replace(record, correct=bool(scores.argmax() == classes[record.sample % len(classes)]))
