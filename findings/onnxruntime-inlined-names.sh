#!/usr/bin/env bash
# Surprise: in profiles, the nodes of a model's function are not named after the node that calls it, but
#   _inlfunc_<Function>_<node> for the first call and _inlfunc_<Function>_token_<k>_<node> for later ones. One counter k serves
#   all functions, in passes over the graph: a call inside another function is counted after all calls of the graph, whatever
#   runs first. ONNX's inliner numbers the same calls depth first, bodies included. onnxruntime counts calls in the body of an
#   If apart, so that two nodes of one profile have one name. A node without a name is <operator>_<number>, in the same order.
# Library: onnxruntime 1.32.0 with onnx 1.23.2. Seen 2026-11-30. Version 1.16 writes _inline_ without the last underscore;
#   1.13 to 1.15 write an address in memory in place of the function.
# Product: planner/model/functions.py counts likewise; planner/profiling/onnxruntime_events.py tells when that does not agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
export ORT_DISABLE_TELEMETRY=1

cat > "$folder/show.py" <<'PYTHON'
import json, sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, inliner, numpy_helper

node = helper.make_node
plain, own = helper.make_opsetid("", 17), helper.make_opsetid("own", 1)


def floats(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])


square = [node("Neg", ["X"], ["n"], name="turn"), node("Tanh", ["n"], ["Y"])]
pair = [node("F", ["X"], ["h"], name="first", domain="own"), node("F", ["h"], ["Y"], name="second", domain="own")]
functions = [
    helper.make_function("own", "F", ["X"], ["Y"], square, [plain]),
    helper.make_function("own", "Pair", ["X"], ["Y"], pair, [plain, own]),
]
branches = {
    f"{name}_branch": helper.make_graph([node(*what, domain="own")], name, [], [floats(what[2][0])])
    for name, what in {"then": ("F", ["b"], ["t"]), "else": ("Pair", ["b"], ["e"])}.items()
}
nodes = [
    node("Pair", ["x"], ["a"], name="both", domain="own"),
    node("F", ["a"], ["b"], name="alone", domain="own"),
    node("If", ["yes"], ["c"], name="choice", **branches),
    node("F", ["c"], ["y"], name="end", domain="own"),
]
graph = helper.make_graph(
    nodes, "g", [floats("x"), helper.make_tensor_value_info("yes", TensorProto.BOOL, [])], [floats("y")]
)
model = helper.make_model(graph, opset_imports=[plain, own], functions=functions, ir_version=8)

options = onnxruntime.SessionOptions()
options.enable_profiling = True
options.profile_file_prefix = sys.argv[1]
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((1, 8), np.float32), "yes": np.array(True)})
events = [event for event in json.load(open(session.end_profiling())) if event["name"].endswith("_kernel_time")]
found = [(event["name"][: -len("_kernel_time")], event["args"]["node_index"]) for event in events]
print("onnxruntime", onnxruntime.__version__, "in the order of execution:")
for name, number in found:
    print(f"  {number}: {name}")
assert found == [
    ("_inlfunc_F_token_1_turn", "10"),
    ("Tanh_11", "11"),
    ("_inlfunc_F_token_2_turn", "12"),
    ("Tanh_13", "13"),
    ("_inlfunc_F_turn", "6"),
    ("Tanh_7", "7"),
    ("_inlfunc_F_turn", "1"),
    ("Tanh_2", "2"),
    ("choice", "2"),
    ("_inlfunc_F_token_0_turn", "8"),
    ("Tanh_9", "9"),
], "changed"
named = [each.name for each in inliner.inline_local_functions(model).graph.node if each.name]
print("onnx", onnx.__version__, named)
assert named == ["turn__2", "turn__3", "turn__4", "choice", "turn__9"], "changed"
PYTHON
"$folder/venv/bin/python" -I "$folder/show.py" "$folder/profile"
echo "as described"
