#!/usr/bin/env bash
# Surprise: each call of `async_infer` of Triton's HTTP client holds up its caller for 10 ms, however fast the server: it sleeps so
#   that its greenlet comes to run. One thread starts at most 100 requests a second, fewer than `infer` carries one by one.
# Library: tritonclient 2.73.0. Seen 2026-12-01.
# Product: docs/guides/serve.md names what to use for many requests at once; benchmarks ask by threads, or by gRPC.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'tritonclient[http]==2.73.0'

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata
import json
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tritonclient.http as client

ANSWER = json.dumps(
    {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]}
).encode()
CALLS = 50


class Server(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 65536, True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


def timed(call):
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
triton = client.InferenceServerClient(f"127.0.0.1:{server.server_port}", concurrency=4)
tensor = client.InferInput("x", [1], "FP32")
tensor.set_data_from_numpy(np.ones(1, np.float32), binary_data=False)
output = [client.InferRequestedOutput("y", binary_data=False)]

one_by_one = [timed(lambda: triton.infer("m", [tensor], outputs=output))[0] for _ in range(CALLS)]
started = [timed(lambda: triton.async_infer("m", [tensor], outputs=output)) for _ in range(CALLS)]
assert all(request.get_result().as_numpy("y")[0] == 1.0 for _, request in started)
triton.close()
server.shutdown()

print(f"tritonclient {importlib.metadata.version('tritonclient')}")
print(f"infer, with its answer: {statistics.median(one_by_one) * 1e3:.1f} ms in the median")
print(f"async_infer, until it returns: {min(seconds for seconds, _ in started) * 1e3:.1f} ms at least")
assert min(seconds for seconds, _ in started) >= 0.0099, "changed"
PYTHON

"$folder/venv/bin/python" "$folder/show.py"
