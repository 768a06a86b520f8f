#!/usr/bin/env bash
# Surprise: with pytest 9.2, `--dist loadgroup` of pytest-xdist no longer keeps the tests of a group in one process, and says
#   nothing. It marks groups in the private `_nodeid` of tests, which this pytest no longer reads. With pytest 8.4 it works.
# Library: pytest-xdist 3.8.0 with pytest 9.2.0. Seen 2026-11-30.
# Product: Makefile runs the tests with agents, which need the whole machine, in a second call without processes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/test_group.py" <<'PYTHON'
import os, time
from pathlib import Path

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_of_one_group(number):
    time.sleep(0.1)
    Path(os.environ["SEEN"], os.environ["PYTEST_XDIST_WORKER"]).touch()
PYTHON

workers() {
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/pip" install -qq --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0
    mkdir "$folder/seen-$1"
    SEEN="$folder/seen-$1" "$folder/$1/bin/python" -m pytest -qq -p no:cacheprovider -n 2 --dist loadgroup \
        "$folder/test_group.py" > "$folder/out-$1" || { cat "$folder/out-$1"; exit 1; }
    find "$folder/seen-$1" -type f | wc -l
}

old=$(workers 8.4.2)
new=$(workers 9.2.0)
echo "pytest-xdist 3.8.0: one group ran in $old process(es) with pytest 8.4.2, in $new with pytest 9.2.0"
[ "$old" -eq 1 ] && [ "$new" -eq 2 ] && echo "as described"
