#!/usr/bin/env bash
# Surprise: a mixed-integer program that HiGHS solves ends with kError and the model status "Solve error" if it starts from
#   a solution: "MIP solver claims optimality, but with num/max/sum primal(1/1e-07/1e-07) infeasibilities". The optimum
#   violates a row by the tolerance, whatever that is, plus a rounding error. Without the start it is solved.
# Library: highspy 1.16.0. Seen 2026-11-30.
# Product: Program.run in planner/solvers/core/highs.py runs a program that failed again, without what HiGHS knows of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata

import highspy
import numpy as np

INF = highspy.kHighsInf
COLUMNS = [  # cost, upper bound (lower: 0), integer
    (0.055846344303320847, 1, 1), (0, 1, 1), (0.055846344303320847, 1, 1), (0, 1, 1),
    (0.0066452512972702297, 1, 1), (0, 1, 1), (0.0066452512972702297, 1, 1), (0, INF, 0),
    (0, INF, 0), (0, INF, 0), (0, INF, 0), (0.055846344303320847, INF, 0),
    (0.0066452512972702297, INF, 0), (0.0066452512972702297, INF, 0), (0, 1, 1), (0, 1, 1),
    (0, INF, 0), (0, INF, 0), (0, INF, 0), (0, INF, 0),
    (0, INF, 0), (0, INF, 0), (4, INF, 0), (4, INF, 0),
    (4, INF, 0), (1, INF, 0), (1, INF, 0), (1, INF, 0),
]
ROWS = [  # least, most, coefficients by column
    (1.0, 1.0, {14: 1.0}),
    (1.0, 1.0, {15: 1.0}),
    (0.0, 0.0, {0: -1.0, 14: 1.0}),
    (0.0, 0.0, {3: -1.0, 4: -1.0, 15: 1.0}),
    (0.0, 0.0, {1: 1.0, 7: -1.0, 11: -1.0}),
    (0.0, 0.0, {2: 1.0, 8: -1.0}),
    (0.0, 0.0, {5: 1.0, 9: -1.0, 13: -1.0}),
    (0.0, 0.0, {6: 1.0, 10: -1.0, 12: -1.0}),
    (0.0, 0.0, {7: -1.0}),
    (0.0, 0.0, {0: 1.0, 8: -1.0, 11: -1.0}),
    (0.0, 0.0, {3: 1.0, 9: -1.0, 12: -1.0}),
    (0.0, 0.0, {4: 1.0, 10: -1.0, 13: -1.0}),
    (0.0, 0.0, {1: -0.260443627263415, 11: -0.01116926886066417, 16: 1.0}),
    (0.0, 0.0, {0: -0.3205350897046839, 2: -0.19655593793491777, 17: 1.0}),
    (0.0, 0.0, {0: -0.1861544810110695, 2: -0.0037230896202213905, 11: -0.1505431287936519, 18: 1.0}),
    (0.0, 0.0, {3: -0.252691021061, 5: -0.15495314630961957, 13: -0.00664525129727023, 16: -1.0, 19: 1.0}),
    (0.0, 0.0, {4: -0.19070507185857283, 6: -0.11694262335722029, 12: -0.005015149018129415, 17: -1.0, 20: 1.0}),
    (0.0, 0.0, {4: -0.11075418828783716, 6: -0.0022150837657567437, 12: -0.08956691206837392, 13: -0.08956691206837392, 18: -1.0, 21: 1.0}),
    (-INF, 0.4, {19: 1.0}),
    (-INF, 0.95, {20: 1.0}),
    (-INF, 0.95, {21: 1.0}),
    (-INF, 0.18367346938775508, {16: 2.0408163265306123, 22: -1.0}),
    (-INF, 0.18367346938775508, {17: 2.0408163265306123, 23: -1.0}),
    (-INF, 1.0, {17: 4.0, 23: -1.0}),
    (-INF, 0.0, {18: 1.0, 24: -1.0}),
    (-INF, 0.18367346938775508, {18: 2.0408163265306123, 24: -1.0}),
    (-INF, 0.0, {19: 1.0, 25: -1.0}),
    (-INF, 0.18367346938775508, {19: 2.0408163265306123, 25: -1.0}),
    (-INF, 3.448979591836736, {20: 8.163265306122451, 26: -1.0}),
    (-INF, 0.18367346938775508, {21: 2.0408163265306123, 27: -1.0}),
]
START = {0: 1, 1: 0, 2: 1, 3: 1, 4: 0, 5: 0, 6: 1, 14: 1, 15: 1}


def solved(tolerance, start):
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("mip_rel_gap", 0.025)
    for name in ("mip_feasibility_tolerance", "primal_feasibility_tolerance"):
        highs.setOptionValue(name, tolerance)
    for column, (cost, most, integer) in enumerate(COLUMNS):
        highs.addVar(0.0, most)
        highs.changeColCost(column, cost)
        if integer:
            highs.changeColIntegrality(column, highspy.HighsVarType.kInteger)
    for least, most, row in ROWS:
        highs.addRow(least, most, len(row), np.array(list(row), np.int32), np.array(list(row.values())))
    if start:
        highs.setSolution(len(START), np.array(list(START), np.int32), np.array(list(START.values()), float))
    run = highs.run()
    return run.name, highs.modelStatusToString(highs.getModelStatus())


print("highspy", importlib.metadata.version("highspy"))
for tolerance in (1e-9, 1e-7):
    for start in (True, False):
        ended = solved(tolerance, start)
        print(f"tolerance {tolerance:g}, {'with' if start else 'without'} a start: {ended}")
        assert ended == (("kError", "Solve error") if start else ("kOk", "Optimal")), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check highspy==1.16.0 numpy==2.2.6
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
