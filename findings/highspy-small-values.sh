#!/usr/bin/env bash
# Surprise: HiGHS leaves out every coefficient of a constraint of at most 1e-9, and CVXPY and Pyomo, which do not show its warning,
#   call the result optimal. The seconds that a byte takes on a network of 8 Gbit/s or more are such a coefficient: transfers are free.
#   CVXPY gives the right value with another solver, and with HiGHS where `small_matrix_value` is lowered.
# Library: highspy 1.16.0 with cvxpy 1.9.3 and pyomo 6.10.1. Seen 2026-12-01.
# Product: planner/solvers states what a whole sample takes, at the rate of its source; no constraint has seconds a byte.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet highspy==1.16.0 cvxpy==1.9.3 pyomo==6.10.1

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata

import cvxpy as cp
import pyomo.environ as pyo

for name in ("highspy", "cvxpy", "pyomo"):
    print(name, importlib.metadata.version(name))

SECONDS_A_BYTE, LEAST_BYTES = 8e-10, 1e9  # the transfer takes 0.8 s


def by_cvxpy(solver, **options):
    sent, seconds = cp.Variable(nonneg=True), cp.Variable()
    program = cp.Problem(cp.Minimize(seconds), [SECONDS_A_BYTE * sent <= seconds, sent >= LEAST_BYTES])
    program.solve(solver=solver, **options)
    print(f"CVXPY with {solver} {options}: {program.status}, {program.value:.3f} s")
    return program.status, round(abs(program.value), 3)


def by_pyomo():
    model = pyo.ConcreteModel()
    model.sent, model.seconds = pyo.Var(domain=pyo.NonNegativeReals), pyo.Var()
    model.takes = pyo.Constraint(expr=SECONDS_A_BYTE * model.sent <= model.seconds)
    model.needed = pyo.Constraint(expr=model.sent >= LEAST_BYTES)
    model.goal = pyo.Objective(expr=model.seconds)
    status = str(pyo.SolverFactory("appsi_highs").solve(model).solver.termination_condition)
    print(f"Pyomo with HiGHS: {status}, {pyo.value(model.seconds):.3f} s")
    return status, round(abs(pyo.value(model.seconds)), 3)


assert by_cvxpy("CLARABEL") == ("optimal", 0.8), "changed"
assert by_cvxpy("HIGHS") == ("optimal", 0.0), "changed"
assert by_cvxpy("HIGHS", small_matrix_value=1e-12) == ("optimal", 0.8), "changed"
assert by_pyomo() == ("optimal", 0.0), "changed"
PYTHON

"$folder/venv/bin/python" "$folder/show.py" 2> /dev/null
