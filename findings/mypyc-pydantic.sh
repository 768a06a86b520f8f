#!/usr/bin/env bash
# Surprise: pydantic takes a dataclass that mypyc has compiled, writes it as JSON, and lists what is wrong in bad input; input that is
#   right raises AttributeError, since the object has no `__dict__`. So a program that reads only refuses well, and breaks on what it
#   was made for. Interpreted, the same class is read.
# Library: pydantic 2.14.4 with mypyc of mypy 2.4.1. Seen 2026-12-01. It needs a C compiler.
# Product: `hatch_build.py` tells each compiled dataclass its `__slots__` and the types of its fields again; then it is read, too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check mypy==2.4.1 setuptools==84.2.1 pydantic==2.14.4

cd "$folder"
cat > records.py <<'PYTHON'
from dataclasses import dataclass


@dataclass
class Record:
    worker: str
    seconds: float = 1.5
PYTHON
cat > show.py <<'PYTHON'
import sys

import pydantic
import records

compiled = records.__file__.endswith(".so")
assert compiled == (sys.argv[1] == "compiled")
adapter = pydantic.TypeAdapter(records.Record)
written = adapter.dump_json(records.Record("box"))


def read(text):
    try:
        return repr(adapter.validate_json(text))
    except (AttributeError, pydantic.ValidationError) as error:
        return type(error).__name__


right, wrong = read(written), read(b'{"worker": 5}')
print(f"pydantic {pydantic.VERSION}, {sys.argv[1]}: wrote {written.decode()}, read {right}; of bad input {wrong}")
assert wrong == "ValidationError", "changed"
assert right == ("AttributeError" if compiled else repr(records.Record("box"))), "changed"
PYTHON

"$folder/venv/bin/python" show.py interpreted
"$folder/venv/bin/mypyc" records.py > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
"$folder/venv/bin/python" show.py compiled
echo "as described"
