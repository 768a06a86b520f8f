#!/usr/bin/env bash
# Surprise: SAGA writes instances and schedules that it cannot read. A node's link to itself is infinitely fast unless stated,
#   pydantic writes infinity as null, and null is no number when the file is read.
# Library: anrg-saga 2.1.0 with pydantic 2.13.3. Seen 2026-11-30. It needs Python 3.12 or later.
# Product: planner/interchange/saga.py reads null as infinite, and writes 1e300 for a node's link to itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps anrg-saga==2.1.0
"$folder/venv/bin/pip" install --quiet networkx==3.5 pydantic==2.13.3

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata

import pydantic
from saga import Network

print(f"anrg-saga {importlib.metadata.version('anrg-saga')}, pydantic {pydantic.VERSION}")
network = Network.create(nodes=[("a", 1.0), ("b", 2.0)], edges=[("a", "b", 0.5)])
written = network.model_dump_json()
print(written)
assert '"speed":null' in written, "changed"
try:
    Network.model_validate_json(written)
except pydantic.ValidationError as error:
    print(f"not read again: {error.error_count()} errors, {error.errors()[0]['msg']}")
else:
    raise AssertionError("changed")
PYTHON

"$folder/venv/bin/python" "$folder/show.py"
