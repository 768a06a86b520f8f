"""Every variable, objective, constraint and bound that runs has an equation on the page of programs."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pyomo.environ as pyo
import pytest

from planner.solvers.core.room import without_binary_residency
from planner.solvers.core.scale import Scale
from planner.solvers.core.search_state import Options
from planner.solvers.methods import convex
from planner.solvers.methods.column_generation import lp_master
from planner.solvers.methods.column_generation.method import _first_prices
from planner.solvers.methods.mip import equations
from planner.solvers.routes import pricing
from planner.solvers.sizing import fleet_model
from tests.solvers import program
from tests.solvers.golden import tiny_problem

KINDS = (pyo.Var, pyo.Objective, pyo.Constraint)
WORDS = re.compile(
    r"\\(?:text|mathrm)\{[^}]*\}|_\{[^{}]*\}|\^\{[^{}]*\}|[_^]\\?\w|\\(?:min|max|sum|frac|forall|infty|quad|qquad)"
)
LAYOUT = re.compile(r"\\(?:lbrace|rbrace|in|le|ge|Big|big|cup|dots|bar|log)\b")


def test_the_page_is_what_the_writer_writes() -> None:
    """After an intended change, run ``make golden`` and review the difference."""
    assert program.PAGE.read_text(encoding="utf-8") == program.page()


@pytest.mark.parametrize("model", [*program.milp_models().values(), program.elastic_model(), program.fleet_model()])
def test_every_component_of_a_model_has_a_meaning_and_an_equation(model: Any) -> None:
    for kind in KINDS:
        for name, own in program.components(model, kind).items():
            assert own.meaning.endswith("."), name
            assert own.latex, name


def test_no_equation_is_of_a_component_that_does_not_exist() -> None:
    models = [*program.milp_models().values(), program.elastic_model()]
    names = {name for model in models for kind in KINDS for name in program.components(model, kind)}
    assert (equations.VARIABLES.keys() | equations.CONSTRAINTS.keys()) <= names
    assert equations.OBJECTIVES.keys() == convex.OBJECTIVES.keys() == set(program.GOALS)
    own = {name for kind in KINDS for name in program.components(program.fleet_model(), kind)}
    assert fleet_model.EQUATIONS.keys() <= own


def test_every_constraint_of_the_other_programs_has_an_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: set[str] = set()
    rows: set[str] = set()

    programs: list[Any] = []
    new = convex._ConvexProgram

    def kept(*arguments: Any) -> Any:
        programs.append(new(*arguments))
        return programs[-1]

    monkeypatch.setattr(convex, "_ConvexProgram", kept)
    for goal in program.GOALS:
        problem = without_binary_residency(dataclasses.replace(tiny_problem(goal), max_visits=None))
        convex._solve(problem, Options())
        limits |= programs[-1].limits.keys()
        master = lp_master.LinearMaster(problem, Scale())
        cheapest = [pricing.cheapest_route(problem, source, _first_prices(problem)[0]) for source in range(2)]
        master.add((source, choice) for source, (_, choice) in enumerate(cheapest))
        rows |= {kind for kind, _ in master.rows}
    assert limits == convex.LIMITS.keys()
    assert rows == lp_master.ROWS.keys()
    assert all(callable(getattr(pricing, name)) for name in (*pricing.BOUNDS, "cheapest_route"))


def test_every_symbol_is_declared_and_survives_markdown() -> None:
    """Markdown takes a backslash before punctuation for an escape, also in formulas."""
    text = program.PAGE.read_text(encoding="utf-8")
    formulas = re.findall(r"\$\$\n(.+)\n\$\$", text)
    assert len(formulas) > 50
    for formula in formulas:
        assert not re.search(r"\\[^A-Za-z]", formula), formula
        assert formula.count("{") == formula.count("}"), formula
        rest = LAYOUT.sub(" ", WORDS.sub(" ", WORDS.sub(" ", formula)))
        for symbol in re.findall(r"\\[A-Za-z]+|[A-Za-z]", rest):
            assert symbol in program.SYMBOLS, (symbol, formula)
