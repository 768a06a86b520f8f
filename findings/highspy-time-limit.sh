#!/usr/bin/env bash
# Surprise: `time_limit` counts from the start of each run for an integer program, but for a linear program it counts the
#   time of all earlier runs of the object. So a linear program of milliseconds ends at once with "Time limit reached" after
#   other runs have used up the limit. getRunTime() adds up in both cases.
# Library: highspy 1.16.0, and 1.10.0 likewise. Seen 2026-11-30.
# Product: sets a limit on integer programs only; the linear programs that it runs again and again have none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata, random

import highspy

LIMIT_S = 1.0
ROWS, COLUMNS = 5, 40  # a market split problem, which takes far longer than the limit as an integer program

highs = highspy.Highs()
highs.setOptionValue("output_flag", False)
highs.setOptionValue("threads", 1)
draw = random.Random(1)
binary = [highs.addVariable(lb=0, ub=1, type=highspy.HighsVarType.kInteger) for _ in range(COLUMNS)]
for _ in range(ROWS):
    factors = [draw.randrange(100) for _ in binary]
    over, under = highs.addVariable(lb=0, obj=1.0), highs.addVariable(lb=0, obj=1.0)
    left = sum(factor * variable for factor, variable in zip(factors, binary))
    highs.addConstr(left + over - under == sum(factors) // 2)
highs.setOptionValue("time_limit", LIMIT_S)


def run(name):
    before = highs.getRunTime()
    highs.run()
    status, total_s = highs.modelStatusToString(highs.getModelStatus()), highs.getRunTime()
    print(f"{name}: {status}; took {total_s - before:.1f} s, getRunTime() is {total_s:.1f} s")
    return status, total_s - before


print("highspy", importlib.metadata.version("highspy"), "with a limit of", LIMIT_S, "s")
for name in ("integer, run 1", "integer, run 2"):
    status, took_s = run(name)
    assert status == "Time limit reached" and took_s > 0.9 * LIMIT_S, "changed"
assert highs.getRunTime() > 1.8 * LIMIT_S, "changed"

for variable in binary:
    highs.changeColIntegrality(variable.index, highspy.HighsVarType.kContinuous)
status, took_s = run("linear, same limit")
assert status == "Time limit reached" and took_s < 0.5 * LIMIT_S, "changed"
highs.setOptionValue("time_limit", highs.getRunTime() + 60)
assert run("linear, limit raised by the time used")[0] == "Optimal", "changed"
PYTHON

for version in 1.10.0 1.16.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "highspy==$version" numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
