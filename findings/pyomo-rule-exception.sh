#!/usr/bin/env bash
# Surprise: an exception that ends the construction of a component is logged as two errors on standard output or standard
#   error, even where the caller handles it. A deadline that is looked at within a rule therefore prints "ERROR: Rule failed".
# Library: pyomo 6.10.1. Seen 2026-11-30.
# Product: looks at the deadline in its own loops around Pyomo's components, and in none of their rules.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check pyomo==6.10.1

"$folder/venv/bin/python" -I - <<'PYTHON'
import subprocess, sys
from importlib.metadata import version

CODE = """
import pyomo.environ as pyo
class Enough(Exception):
    pass
def rule(model, index):
    raise Enough
model = pyo.ConcreteModel()
try:
    model.limit = pyo.Constraint([1], rule=rule)
except Enough:
    pass
"""

print("pyomo", version("pyomo"))
done = subprocess.run([sys.executable, "-I", "-c", CODE], capture_output=True, text=True, check=True)
print(done.stdout + done.stderr, end="")
assert (done.stdout + done.stderr).count("ERROR") == 2, "changed"
PYTHON
echo "as described"
