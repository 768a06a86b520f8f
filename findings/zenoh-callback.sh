#!/usr/bin/env bash
# Surprise: an exception in a subscriber's callback reaches the program nowhere: not the publisher, not threading.excepthook,
#   not the exit code. It only becomes a record "callback error" of the logger zenoh.handlers; later samples still arrive.
#   A program that disables or filters that logger loses samples without a trace.
# Library: eclipse-zenoh 1.10.2. Seen 2026-11-30.
# Product: surviving() in planner/execution/wire/threads.py wraps each callback, and logs the exception with its name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check eclipse-zenoh==1.10.2

"$folder/venv/bin/python" -I - <<'PYTHON'
import importlib.metadata, logging, sys, threading

import zenoh

records, hooked, seen, last = [], [], [], threading.Event()
handler = logging.Handler()
handler.emit = records.append
logging.getLogger().addHandler(handler)
sys.unraisablehook = threading.excepthook = lambda *details: hooked.append(details)


def receive(sample):
    number = int(sample.payload.to_string())
    seen.append(number)
    if number == 1:
        raise ValueError("sample 1")
    if number == 3:
        last.set()


config = zenoh.Config()  # no network: the session only talks to itself
config.insert_json5("scouting/multicast/enabled", "false")
config.insert_json5("listen/endpoints", "[]")
with zenoh.open(config) as session:
    subscriber = session.declare_subscriber("finding/sample", receive)
    for number in (1, 2, 3):
        session.put("finding/sample", str(number))
    arrived = last.wait(30)

logged = [(record.name, record.levelname, record.getMessage(), repr(record.exc_info[1])) for record in records]
print("eclipse-zenoh", importlib.metadata.version("eclipse-zenoh"))
print("samples received:", seen)
print("exceptions that reached a hook:", hooked)
print("log records:", logged)
assert arrived and seen == [1, 2, 3] and not hooked, "changed"
assert logged == [("zenoh.handlers", "ERROR", "callback error", "ValueError('sample 1')")], "changed"
PYTHON
echo "as described"
