"""The run folder: everything that a run was made from, and all that it gave."""

from __future__ import annotations

import json
from pathlib import Path

from planner.files import open_atomic, write_text_atomic
from planner.plan.store import save_plan
from planner.plan.types import PlanSpec
from planner.scenario.instance import Instance
from planner.trace.records import write_records
from planner.validation.validate import Validation, validation_document


def write_run(
    folder: Path, instance: Instance, plan: PlanSpec | None, validation: Validation, tolerance: float
) -> None:
    """Write a run folder.

    It holds ``instance.json`` (scenario, profiles and paths in one), ``plan.json``, the traces ``predicted.jsonl`` and
    ``measured.jsonl``, each worker's log of steps in ``steps/``, which can be replayed, and the verdict,
    ``result.json``.
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
