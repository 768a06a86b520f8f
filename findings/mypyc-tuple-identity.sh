#!/usr/bin/env bash
# Surprise: code that mypyc compiles keeps tuples of a known length unboxed, and makes a new object of one each time that it needs one.
#   So `is` between a tuple and itself is False, without a word: `for entry in entries: if entry is best` finds none.
# Library: mypyc of mypy 2.4.1. Seen 2026-12-01. It needs a C compiler.
# Product: modules that `hatch_build.py` compiles compare the objects in tuples, not tuples, by identity.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check mypy==2.4.1 setuptools==84.2.1

cd "$folder"
cat > entries.py <<'PYTHON'
def found(entries: list[tuple[str, float]]) -> int:
    best = min(entries, key=lambda entry: entry[1])
    return sum([entry is best for entry in entries])
PYTHON
cat > show.py <<'PYTHON'
import sys

import entries

compiled = entries.__file__.endswith(".so")
assert compiled == (sys.argv[1] == "compiled")
found = entries.found([("a", 2.0), ("b", 1.0)])
print(f"{sys.argv[1]}: {found} entry is the best one")
assert found == (0 if compiled else 1), "changed"
PYTHON

"$folder/venv/bin/python" show.py interpreted
"$folder/venv/bin/mypyc" entries.py > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$folder/venv/bin/python" show.py compiled
echo "as described"
