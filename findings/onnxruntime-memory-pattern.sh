#!/usr/bin/env bash
# Surprise: memory patterns, on by default, make sessions that share an arena keep more memory: the pattern is one piece for
#   all tensors of a run, which the arena cannot make of the pieces that the first run left. Runs do not become faster.
# Library: onnxruntime 1.32.0. Seen 2026-11-30.
# Product: planner/runtime/session.py switches them off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6

cat > "$folder/show.py" <<'PYTHON'
import re, subprocess, sys
from pathlib import Path
import numpy as np, onnxruntime
from onnx import TensorProto, helper

MIB = 2**20


def model(size):
    """A chain of sums with a skip: three tensors are alive at once."""
    nodes = [helper.make_node("Sin", ["x" if i == 0 else f"t{i - 1}"], [f"t{i}"]) for i in range(6)]
    nodes.append(helper.make_node("Add", ["t5", "t0"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def status(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def kept(pattern):
    kind, default = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", kind, 0, default), None)
    sessions = []
    for size in (2 * MIB, 3 * MIB, 1 * MIB):
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = pattern
        options.add_session_config_entry("session.use_env_allocators", "1")
        sessions.append((onnxruntime.InferenceSession(model(size), options), np.ones(size, np.float32)))
    before = status("RssAnon")
    for _ in range(4):
        for session, tensor in sessions:
            session.run(None, {"x": tensor})
    return (status("RssAnon") - before) / MIB


if len(sys.argv) > 1:
    print(kept(sys.argv[1] == "pattern"))
else:
    found = {
        kind: float(subprocess.run([sys.executable, "-I", __file__, kind], stdout=subprocess.PIPE, check=True).stdout)
        for kind in ("pattern", "none")
    }
    print(f"onnxruntime {onnxruntime.__version__}: kept after runs, in MiB: {found}")
    assert found["pattern"] > 1.2 * found["none"], "changed"
PYTHON
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
