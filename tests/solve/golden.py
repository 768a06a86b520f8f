"""One LP file for each constraint and objective of the MILP; ``python -m tests.solve.golden`` writes them anew."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pyomo.environ as pyo
from pyomo.repn.plugins.lp_writer import LPWriter

from planner.profile.types import ExitPoint, OperatingPoint
from planner.scenario.types import ObjectiveSpec
from planner.solve.build import build_problem
from planner.solve.milp import build_model
from planner.solve.problem import Problem
from tests.instances import MIB, make_instance, make_profile

FOLDER = Path(__file__).parent / "golden"


def tiny_problem(goal: str = "delay") -> Problem:
    """Two sources on two workers, two blocks, two operating points: every constraint has something to say."""
    points = [
        OperatingPoint(name="small", accuracy=0.8, thresholds=(0.5,), reach=(1.0, 0.5)),
        OperatingPoint(name="large", accuracy=0.9, thresholds=(1.0,), reach=(1.0, 1.0)),
    ]
    profile = make_profile(
        block_s=[0.02, 0.04],
        stage_overhead_s=0.004,
        exits=[ExitPoint(name="exit", cut=1, result_bytes=0)],
        operating_points=points,
    )
    instance = make_instance(
        profiles=[profile],
        workers={"slow": {"memory_bytes": 202 * MIB}, "fast": {"memory_bytes": 203 * MIB, "speed": 4.0}},
        sources={
            "gate": {"rate_per_s": 5.0, "priority": 8.0, "deadline_s": 0.25, "samples": 5},
            "yard": {"rate_per_s": 10.0, "min_accuracy": 0.85, "samples": 10},
        },
        objective=ObjectiveSpec.model_validate({"goal": goal, "accuracy_worth": 0.05}),
    )
    return dataclasses.replace(build_problem(instance), max_visits=1)


def golden_texts() -> dict[str, str]:
    """Give each constraint and each goal's objective as an LP file of its own, by name."""
    texts = {}
    for goal in ("delay", "throughput", "makespan"):
        model = build_model(tiny_problem(goal))
        constraints = list(model.component_objects(pyo.Constraint))
        for constraint in constraints:
            constraint.deactivate()
        texts[f"objective_{goal}"] = _lp(model)
        model.objective.deactivate()
        model.nothing = pyo.Objective(expr=0)
        for constraint in constraints:
            constraint.activate()
            texts.setdefault(constraint.local_name, _lp(model))
            constraint.deactivate()
    return texts


def _lp(model: Any) -> str:
    stream = io.StringIO()
    LPWriter().write(model, stream, symbolic_solver_labels=True)
    return stream.getvalue()


def main() -> None:
    """Write all files, and remove those of constraints that are gone."""
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.lp"):
        stale.unlink()
    for name, text in golden_texts().items():
        (FOLDER / f"{name}.lp").write_text(text)


if __name__ == "__main__":
    main()
