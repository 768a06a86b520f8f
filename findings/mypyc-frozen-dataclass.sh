#!/usr/bin/env bash
# Surprise: a frozen dataclass that mypyc has compiled can be made, compared and read as before, but not copied or pickled: `copy`,
#   `deepcopy` and `pickle.loads` set its attributes, which raises FrozenInstanceError. So records that go to another process, or
#   into a cache, work until a project is compiled. The same class interpreted, or compiled and not frozen, has no such trouble.
# Library: mypyc of mypy 2.4.1. Seen 2026-12-01. It needs a C compiler.
# Product: `hatch_build.py` gives mypyc copies of the modules in which no dataclass is frozen; it keeps its hash.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check mypy==2.4.1 setuptools==84.2.1

cd "$folder"
cat > records.py <<'PYTHON'
from dataclasses import dataclass


@dataclass(frozen=True)
class Frozen:
    worker: str
    seconds: float = 1.5


@dataclass
class Loose:
    worker: str
    seconds: float = 1.5
PYTHON
cat > show.py <<'PYTHON'
import copy
import pickle
import sys

import records

compiled = records.__file__.endswith(".so")
assert compiled == (sys.argv[1] == "compiled")
print(f"{sys.argv[1]}:", records.Frozen("box"), records.Frozen("box") == records.Frozen("box"))
for made in (records.Frozen("box"), records.Loose("box")):
    results = {}
    for name, repeat in (
        ("copy", copy.copy),
        ("deepcopy", copy.deepcopy),
        ("pickle", lambda record: pickle.loads(pickle.dumps(record))),
    ):
        try:
            results[name] = "the same" if repeat(made) == made else "another"
        except Exception as error:
            results[name] = type(error).__name__
    print(f"  {type(made).__name__}: {results}")
    expected = "FrozenInstanceError" if compiled and isinstance(made, records.Frozen) else "the same"
    assert set(results.values()) == {expected}, "changed"
PYTHON

"$folder/venv/bin/python" show.py interpreted
"$folder/venv/bin/mypyc" records.py > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$folder/venv/bin/python" show.py compiled
echo "as described"
