#!/usr/bin/env bash
# Surprise: the first solve of a thread of the process fixes HiGHS's number of threads there. A later model in that thread
#   with another value of `threads` is left unsolved: no exception, only a returned kError, the model status "Not Set", an
#   objective of 0 and a line in the log. Another thread may use another number. Highs.resetGlobalScheduler() mends it.
# Library: highspy 1.16.0, and 1.10.0 likewise. Seen 2026-11-30.
# Product: Program in planner/solvers/core/highs.py runs each solve in a new thread, resets the scheduler afterwards, and
#   raises SolveError on such a status.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata
from concurrent.futures import ThreadPoolExecutor

import highspy

SOLVED, UNSOLVED = ("kOk", "Optimal", -10.0), ("kError", "Not Set", 0.0)


def solve(threads):
    """Minimise -x for 0 <= x <= 10."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", threads)
    highs.addVariable(lb=0, ub=10, obj=-1.0)
    status = highs.run().name
    return status, highs.modelStatusToString(highs.getModelStatus()), highs.getInfo().objective_function_value


def check(name, found, expected):
    print(f"{name}: {found}")
    assert found == expected, f"changed: expected {expected}"


print("highspy", importlib.metadata.version("highspy"))
check("threads=1", solve(1), SOLVED)
check("threads=2", solve(2), UNSOLVED)
with ThreadPoolExecutor(max_workers=1) as pool:
    check("threads=2 in another thread", pool.submit(solve, 2).result(), SOLVED)
check("threads=1 again", solve(1), SOLVED)
highspy.Highs.resetGlobalScheduler(True)
check("threads=2 after resetGlobalScheduler", solve(2), SOLVED)
PYTHON

for version in 1.10.0 1.16.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "highspy==$version" numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
