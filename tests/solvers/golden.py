"""One golden file for each constraint and objective of the MILP; ``python -m tests.solvers.golden`` rewrites them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyomo.environ as pyo
from pyomo.repn import generate_standard_repn

from planner.files import write_text_atomic
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.scenario.types import ObjectiveSpec, PowerSpec
from planner.solvers.core.build import build_problem
from planner.solvers.core.problem import Problem
from planner.solvers.methods.mip.model import build_model
from tests.instances import MIB, make_instance, make_profile

FOLDER = Path(__file__).parent / "golden"

Form = dict[str, dict[str, dict[str, Any]]]
"""A part of the model: its ``objective``, ``rows`` and ``columns``, each by name."""


def tiny_problem(goal: str = "delay") -> Problem:
    """Return a problem with two sources, workers, blocks and operating points, in which no constraint is empty."""
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
        workers={
            "slow": {"memory_bytes": 202 * MIB, "power": PowerSpec(idle_w=1.0, busy_w=5.0)},
            "fast": {
                "memory_bytes": 203 * MIB,
                "speed": 4.0,
                "max_utilisation": 0.5,
                "power": PowerSpec(idle_w=2.0, busy_w=22.0),
            },
        },
        sources={
            "gate": {"rate_per_s": 5.0, "priority": 8.0, "max_mean_delay_s": 0.25, "samples": 5},
            "yard": {"rate_per_s": 10.0, "min_accuracy": 0.85, "samples": 10},
        },
        objective=ObjectiveSpec.model_validate({"goal": goal, "accuracy_worth": 0.05}),
    )
    return dataclasses.replace(build_problem(instance), max_visits=1)


def golden_forms() -> dict[str, Form]:
    """Return the normal form of each constraint and of each goal's objective, by name."""
    forms = {}
    for goal in ("delay", "throughput", "makespan", "energy"):
        model = build_model(tiny_problem(goal))
        forms[f"objective_{goal}"] = _form([], model.objective)
        for constraint in model.component_objects(pyo.Constraint):
            forms.setdefault(constraint.local_name, _form(constraint.values()))
    return forms


def _form(rows: Iterable[Any], objective: Any = None) -> Form:
    """Return the normal form of rows and an objective, independent of how Pyomo arranges and writes them.

    A row is ``least <= terms <= most`` with all constants moved to the bounds and its first term positive. Terms are
    sorted by name, without those of coefficient 0. Only columns that occur are listed.
    """
    columns: dict[str, Any] = {}
    form: Form = {}
    if objective is not None:
        terms, constant = _linear(objective.expr, columns)
        form["objective"] = {
            objective.name: {"sense": "least" if objective.is_minimizing() else "most", "constant": constant, **terms}
        }
    form["rows"] = {row.name: _row(row, columns) for row in rows}
    form["columns"] = {name: _column(variable) for name, variable in sorted(columns.items())}
    return form


def _row(row: Any, columns: dict[str, Any]) -> dict[str, Any]:
    terms, constant = _linear(row.body, columns)
    least, most = (None if bound is None else float(bound - constant) for bound in (row.lb, row.ub))
    if next(iter(terms.values())) < 0:
        terms = {name: -factor for name, factor in terms.items()}
        least, most = (None if bound is None else 0.0 - bound for bound in (most, least))
    return {"least": least, "most": most, **terms}


def _linear(expression: Any, columns: dict[str, Any]) -> tuple[dict[str, float], float]:
    """Return coefficients by name, and the constant; add the variables to ``columns``."""
    linear = generate_standard_repn(expression, compute_values=True)
    assert linear.is_linear()
    terms = {
        variable.name: (float(factor), variable)
        for factor, variable in zip(linear.linear_coefs, linear.linear_vars, strict=True)
        if factor != 0
    }
    columns |= {name: variable for name, (_, variable) in terms.items()}
    return {name: terms[name][0] for name in sorted(terms)}, float(linear.constant)


def _column(variable: Any) -> dict[str, Any]:
    kind = "binary" if variable.is_binary() else "continuous" if variable.is_continuous() else "integer"
    return {"kind": kind, "least": variable.lb, "most": variable.ub}


def _text(form: Form) -> str:
    """Return a form as JSON, one row per line."""
    sections = []
    for section, entries in form.items():
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        sections.append(f"{json.dumps(section)}: {{\n{lines}\n}}" if entries else f"{json.dumps(section)}: {{}}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Write all files, and remove those of constraints that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.iterdir():
        stale.unlink()
    for name, form in golden_forms().items():
        write_text_atomic(FOLDER / f"{name}.json", _text(form))


if __name__ == "__main__":
    main()
