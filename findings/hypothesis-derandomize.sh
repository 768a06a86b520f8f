#!/usr/bin/env bash
# Surprise: a test with `derandomize=True` is tried with other examples when one more module of the project was imported before.
#   The documentation promises the same examples until Hypothesis, Python or the test changes. Numbers are also drawn from those
#   that stand in the local modules in `sys.modules`, so one file run alone, or tests spread over processes, are other tests.
# Library: hypothesis 6.170.17. Seen 2026-12-01.
# Product: tests/conftest.py leaves the constants of local modules out, but where `make nightly` searches for new examples.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hypothesis==6.170.17

mkdir "$folder/project"
cat > "$folder/project/limits.py" <<'PYTHON'
LARGEST = 7321
PYTHON
cat > "$folder/project/show.py" <<'PYTHON'
import hashlib
import sys

import hypothesis
from hypothesis import strategies as st

if "limits" in sys.argv[1:]:
    import limits  # noqa: F401 - only imported, never used

drawn = []


@hypothesis.settings(derandomize=True, max_examples=100, database=None)
@hypothesis.given(st.integers(0, 10_000))
def test(number):
    drawn.append(number)


test()
print(f"hypothesis {hypothesis.__version__}:", hashlib.sha256(repr(drawn).encode()).hexdigest()[:12])
PYTHON

cd "$folder/project"
alone=$("$folder/venv/bin/python" show.py)
again=$("$folder/venv/bin/python" show.py)
beside=$("$folder/venv/bin/python" show.py limits)
printf 'alone:              %s\nalone again:        %s\nbeside one module:  %s\n' "$alone" "$again" "$beside"
[ "$alone" = "$again" ] || { echo "changed: not even repeatable alone"; exit 1; }
[ "$alone" != "$beside" ] || { echo "changed: the same examples"; exit 1; }
