"""The run folder: inputs, traces, logs, verdict and pictures of a validation."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Final

from planner.files import open_atomic, write_text_atomic
from planner.plan.store import save_plan
from planner.plan.types import PlanSpec
from planner.report.delays import draw_delays
from planner.report.legs import draw_legs
from planner.report.origin import write_origin
from planner.report.timeline import busiest_window, draw_timeline
from planner.scenario.instance import Instance
from planner.trace.records import SampleRecord, write_records
from planner.validation.document import validation_document
from planner.validation.verdict import Validation

CLOSE_UP_S: Final = 2.0
"""Duration of the part of a run that is drawn enlarged, so that single samples can be followed."""

MOST_DRAWN: Final = 200_000
"""Number of records up to which the timeline shows the whole run; of a longer run it shows the beginning.

A larger timeline would be a solid area, and all its bars would be in memory at once.
"""


def write_run_folder(
    folder: Path, instance: Instance, plan: PlanSpec | None, validation: Validation, tolerance: float
) -> dict[str, Path]:
    """Write a run folder and return its pictures by name.

    It holds ``instance.json`` (scenario, profiles and paths), ``plan.json``, the traces ``predicted.jsonl`` and
    ``measured.jsonl``, the step log of each worker in ``steps/``, which can be replayed, the verdict ``result.json``,
    the command in ``run.json``, and the pictures. The traces are read piece by piece, so that a long run fits into
    memory.

    Parameters
    ----------
    tolerance
        Maximum relative error of mean delays, for the verdict.
    """
    write_text_atomic(folder / "instance.json", instance.model_dump_json(by_alias=False, indent=1))
    if plan is not None:
        save_plan(plan, folder / "plan.json")
    write_records(folder / "predicted.jsonl", validation.predicted)
    write_records(folder / "measured.jsonl", validation.measurement.records)
    for worker in validation.measurement.steps:
        with open_atomic(folder / "steps" / f"{worker}.json") as file:
            validation.measurement.steps.write(worker, file)
    document = validation_document(validation, tolerance)
    write_text_atomic(folder / "result.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_origin(folder, "validation")
    return _draw(folder, instance, validation)


def _draw(folder: Path, instance: Instance, validation: Validation) -> dict[str, Path]:
    predicted, measured = validation.predicted, validation.measurement.records
    pictures = {name: folder / f"{name}.png" for name in ("timeline", "close-up", "delays", "legs")}
    beginning_s = _beginning(validation)
    draw_timeline(measured, pictures["timeline"], predicted=predicted, instance=instance, window_s=beginning_s)
    window_s = busiest_window(predicted, CLOSE_UP_S)
    draw_timeline(measured, pictures["close-up"], predicted=predicted, instance=instance, window_s=window_s)
    draw_delays(measured, pictures["delays"], predicted=predicted, sources=instance.sources)
    draw_legs({name: comparison.legs for name, comparison in validation.sources.items()}, pictures["legs"])
    return pictures


def _beginning(validation: Validation) -> tuple[float, float] | None:
    """Return the part of a long run that the timeline shows, or None for the whole run."""
    predicted, measured = validation.predicted, validation.measurement.records
    count = len(predicted) + len(measured)
    if count <= MOST_DRAWN:
        return None
    ends_s = (record.finished_s for record in chain(predicted, measured) if isinstance(record, SampleRecord))
    return 0.0, max(ends_s, default=1.0) * MOST_DRAWN / count
