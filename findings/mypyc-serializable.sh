#!/usr/bin/env bash
# Surprise: a class that mypyc compiles with `serializable=True` can be copied and pickled, but when interpreted code makes one, its
#   `__init__` is never called: no attribute is set, and none is missed until it is read. Compiled code makes it as it should. With
#   `allow_interpreted_subclasses=True` in addition, both do.
# Library: mypyc of mypy 2.4.1. Seen 2026-12-01. It needs a C compiler.
# Product: `hatch_build.py` gives every compiled class both options.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check mypy==2.4.1 setuptools==84.2.1

cd "$folder"
cat > points.py <<'PYTHON'
from mypy_extensions import mypyc_attr


@mypyc_attr(serializable=True)
class Alone:
    def __init__(self, x: int) -> None:
        self.x = x


@mypyc_attr(serializable=True, allow_interpreted_subclasses=True)
class Both:
    def __init__(self, x: int) -> None:
        self.x = x


def make() -> tuple[int, int]:
    return Alone(3).x, Both(3).x
PYTHON
cat > show.py <<'PYTHON'
import copy

import points

results = {}
for kind in (points.Alone, points.Both):
    try:
        results[kind.__name__] = copy.copy(kind(3)).x
    except AttributeError as error:
        results[kind.__name__] = str(error)
print(f"made by compiled code: {points.make()}; by interpreted code: {results}")
assert points.__file__.endswith(".so")
assert points.make() == (3, 3)
assert results == {"Alone": "attribute 'x' of 'Alone' undefined", "Both": 3}, "changed"
PYTHON

"$folder/venv/bin/mypyc" points.py > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$folder/venv/bin/python" show.py
echo "as described"
