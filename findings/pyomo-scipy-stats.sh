#!/usr/bin/env bash
# Surprise: a program that imports pyomo.environ and scipy.sparse also loads scipy.stats, in whatever order it imports them,
#   and so three times as many modules of scipy. Neither import alone does. Pyomo imports scipy.stats as soon as scipy is
#   imported, or at once if it already was.
# Library: pyomo 6.10.1 with scipy 1.15.3. Seen 2026-11-30.
# Product: imports the module of a solving method only when that method is used; the one with pyomo does without scipy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check pyomo==6.10.1 scipy==1.15.3 numpy==2.2.6

"$folder/venv/bin/python" -I - <<'PYTHON'
import subprocess, sys
from importlib.metadata import version

COUNT = """
import sys
print(len([name for name in sys.modules if name.split(".")[0] == "scipy"]), "scipy.stats" in sys.modules)
"""

print("pyomo", version("pyomo"), "with scipy", version("scipy"))
for imports, expected in {
    "import scipy.sparse": "False",
    "import pyomo.environ": "False",
    "import pyomo.environ, scipy.sparse": "True",
    "import scipy.sparse, pyomo.environ": "True",
}.items():
    done = subprocess.run([sys.executable, "-I", "-c", imports + COUNT], stdout=subprocess.PIPE, text=True, check=True)
    modules, stats = done.stdout.split()
    print(f"{imports}: {modules} modules of scipy; scipy.stats loaded: {stats}")
    assert stats == expected, "changed"
PYTHON
echo "as described"
