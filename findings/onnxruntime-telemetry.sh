#!/usr/bin/env bash
# Surprise: importing onnxruntime on Linux writes an identifier of the device and a store of events to
#   ~/.cache/Microsoft/DeveloperTools/.onnxruntime, and starts a thread that looks up a host on the internet. The variable
#   ORT_DISABLE_TELEMETRY prevents it only if it is set before the import, and to a value other than "", 0 and false. Neither
#   setting it afterwards nor disable_telemetry_events() undoes anything.
# Library: onnxruntime 1.32.0; 1.28.0 does none of this. Seen 2026-11-30.
# Product: planner/__init__.py sets the variable, unless the user has, before any of its modules can import onnxruntime.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/import.py" <<'PYTHON'
import os, sys, time

import numpy  # starts threads, too

when, value = sys.argv[1:]
before = len(os.listdir("/proc/self/task"))
if when == "before":
    os.environ["ORT_DISABLE_TELEMETRY"] = value
import onnxruntime

if when == "after":
    os.environ["ORT_DISABLE_TELEMETRY"] = value
if when == "call":
    onnxruntime.disable_telemetry_events()
time.sleep(1.0)
threads = len(os.listdir("/proc/self/task")) - before
files = sorted(name for _, _, names in os.walk(os.environ["HOME"]) for name in names if name in {"deviceid", "onnxruntime.db"})
print(bool(threads), ",".join(files))
PYTHON

run() { # run VERSION WHEN VALUE EXPECTED
    rm -rf "$folder/home" && mkdir "$folder/home"
    found=$(env -u ORT_DISABLE_TELEMETRY -u XDG_CACHE_HOME HOME="$folder/home" "$folder/venv/bin/python" -I "$folder/import.py" "$2" "$3")
    echo "onnxruntime $1, variable ${2} the import, value '$3': thread and files: $found"
    [ "$found" = "$4" ] || { echo "changed: expected $4"; exit 1; }
}

silent="False " active="True deviceid,onnxruntime.db"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.28.0 numpy==2.2.6
run 1.28.0 never "" "$silent"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 numpy==2.2.6
run 1.32.0 never "" "$active"
for value in 1 true; do run 1.32.0 before "$value" "$silent"; done
for value in 0 false ""; do run 1.32.0 before "$value" "$active"; done
run 1.32.0 after 1 "$active"
run 1.32.0 call "" "$active"
echo "as described"
