#!/usr/bin/env bash
# Surprise: what identifies a node in onnxruntime's profile depends on the version. The number of the node is node_index from
#   1.14 on, graph_index (and exec_plan_index) from 1.3 to 1.13, and absent before; a node without a name has an empty name
#   before 1.3 and <operator>_<number> since. A matrix product fused with a sum is "gemm" or "gemm_token_0" up to 1.18, and
#   "dense/MatMulAddFusion/" by its own name in 1.20. A convolution fused with what follows has the name of the last tensor and
#   _nchwc, and before 1.3 a number behind it. The nodes of a loop's body are events of their own, whose numbers start at 0
#   again, although the time of the loop contains them.
# Library: onnxruntime 1.13.1, 1.14.0, 1.18.1, 1.20.1, 1.32.0; 1.0.0 to 1.12.1 likewise, on Python 3.6 to 3.9. Seen 2026-11-30.
# Product: planner/profiling/onnxruntime_events.py reads all of these; tests/profiling/onnxruntime_profiles has examples.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export ORT_DISABLE_TELEMETRY=1

cat > "$folder/model.py" <<'PYTHON'
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
step = helper.make_graph(
    [node("Tanh", ["s"], ["n"], name="squash"), node("Identity", ["go"], ["still"])],
    "step",
    [helper.make_tensor_value_info("i", TensorProto.INT64, []), flag, floats("s", 1, 8)],
    [helper.make_tensor_value_info("still", TensorProto.BOOL, []), floats("n", 1, 8)],
)
nodes = [
    node("Conv", ["x", "k"], ["c"], name="conv", kernel_shape=[3, 3]),
    node("Relu", ["c"], ["r"], name="relu"),
    node("GlobalAveragePool", ["r"], ["p"], name="pool"),
    node("Flatten", ["p"], ["f"]),
    node("MatMul", ["f", "w"], ["m"], name="dense"),
    node("Add", ["m", "b"], ["a"], name="bias"),
    node("Loop", ["three", "true", "a"], ["y"], name="loop", body=step),
]
weights = [
    constant("k", np.ones((16, 3, 3, 3), np.float32)),
    constant("w", np.ones((16, 8), np.float32)),
    constant("b", np.ones(8, np.float32)),
    constant("three", np.int64(3)),
    constant("true", np.bool_(True)),
]
graph = helper.make_graph(nodes, "g", [floats("x", 1, 3, 16, 16)], [floats("y", 1, 8)], weights)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), sys.argv[1])
PYTHON

cat > "$folder/show.py" <<'PYTHON'
import json, sys

import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
options.enable_profiling = True
options.profile_file_prefix = sys.argv[2]
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((1, 3, 16, 16), np.float32)})
events = [event for event in json.load(open(session.end_profiling())) if event["name"].endswith("_kernel_time")]
version = tuple(int(part) for part in onnxruntime.__version__.split("."))
key = "node_index" if version >= (1, 14) else "graph_index"
found = [(event["name"][: -len("_kernel_time")], event["args"].get(key)) for event in events]
print("onnxruntime", onnxruntime.__version__, key, found)
names = [name for name, _ in found]
assert all(number is not None for _, number in found), "changed"
assert ("graph_index" in events[0]["args"]) == ("exec_plan_index" in events[0]["args"]) == (version < (1, 14)), "changed"
assert names[0] == "r_nchwc" and "Flatten_3" in names, "changed"
assert ("gemm" in names) == (version < (1, 20)), "changed"
assert any(name.startswith("dense/MatMulAddFusion") for name in names) == (version >= (1, 20)), "changed"
steps = [event for event in events if event["name"].startswith("squash")]
assert [event["args"][key] for event in steps] == ["0", "0", "0"], "changed"
(loop,) = [event for event in events if event["name"].startswith("loop")]
assert all(loop["ts"] <= event["ts"] < loop["ts"] + loop["dur"] for event in steps), "changed"
PYTHON

python=$(command -v python3.10 || command -v python3.9) # the old versions have no wheels for later ones
python3 -m venv "$folder/new"
"$folder/new/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
"$folder/new/bin/python" -I "$folder/model.py" "$folder/model.onnx"
"$folder/new/bin/python" -I "$folder/show.py" "$folder/model.onnx" "$folder/profile"
"$python" -m venv "$folder/old"
for version in 1.13.1 1.14.0 1.18.1 1.20.1; do
    "$folder/old/bin/pip" install -qq --disable-pip-version-check "onnxruntime==$version" numpy==1.26.4
    "$folder/old/bin/python" -I "$folder/show.py" "$folder/model.onnx" "$folder/profile"
done
echo "as described"
