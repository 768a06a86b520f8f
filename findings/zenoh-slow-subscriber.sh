#!/usr/bin/env bash
# Surprise: a subscriber without a callback that is not read for a while stops all others of its session. Its channel holds 256
#   samples; the next one holds up the thread that receives, so a callback on another key gets nothing, though the publisher's
#   puts all return, until the channel is read.
# Library: eclipse-zenoh 1.10.2. Seen 2026-12-01.
# Product: planner/execution/wire/zenoh.py subscribes by callbacks alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check eclipse-zenoh==1.10.2

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata
import json
import socket
import time

import zenoh


def session(**endpoints):
    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    for key, endpoint in endpoints.items():
        config.insert_json5(f"{key}/endpoints", json.dumps([endpoint]))
    return zenoh.open(config)


def awaited(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    place = f"tcp/127.0.0.1:{free.getsockname()[1]}"
sender, receiver = session(listen=place), session(connect=place)
try:
    unread = receiver.declare_subscriber("example/large")
    called = []
    receiver.declare_subscriber("example/urgent", lambda sample: called.append(sample.payload.to_string()))
    assert awaited(lambda: sender.put("example/urgent", "first") or bool(called), 10)
    time.sleep(0.5)
    before = len(called)
    for number in range(300):
        sender.put("example/large", str(number), congestion_control=zenoh.CongestionControl.BLOCK)
    sender.put("example/urgent", "second", congestion_control=zenoh.CongestionControl.BLOCK)
    stopped = not awaited(lambda: len(called) > before, 5)
    read = 0
    while unread.try_recv() is not None:
        read += 1
    comes = awaited(lambda: len(called) > before, 5)
    print(f"eclipse-zenoh {importlib.metadata.version('eclipse-zenoh')}")
    print(f"300 samples unread: the other subscriber is stopped: {stopped}; after {read} were read: {comes}")
    assert stopped, "changed"
    assert comes, "changed"
finally:
    receiver.close()
    sender.close()
PYTHON

"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
