#!/usr/bin/env bash
# Surprise: onnx's ReferenceEvaluator gives the numbers that a Loop collects the shape [n, 1] instead of [n]. Broadcast against a vector,
#   they make a table, so that the final numbers are wrong and not only their shape. The operator's specification says that scan
#   outputs are concatenations along a new first axis, which onnx's own shape inference and onnxruntime follow. Range is defined
#   by such a Loop, and by that definition the evaluator returns one that fails onnx's own test data.
# Library: onnx 1.23.2, with onnxruntime 1.32.0 for comparison. Seen 2026-12-01.
# Product: planner/model/walk.py has the evaluator compute single small nodes, and none that has a body.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import parser
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
MODEL = parser.parse_model("""
<ir_version: 8, opset_import: ["": 17]>
example (int64 trips, float start, float[k] weights) => (float[k] collected, float total) {
    yes = Constant <value = bool {1}> ()
    last, collected = Loop (trips, yes, start) <body = step (int64 i, bool before, float x) => (bool go, float next, float seen) {
        go = Identity (before)
        next = Add (x, x)
        seen = Identity (x)
    }>
    weighted = Mul (collected, weights)
    total = ReduceSum <keepdims = 0> (weighted)
}""")
onnx.checker.check_model(MODEL, full_check=True)
FEED = {"trips": np.array(3), "start": np.array(1, np.float32), "weights": np.array([1, 10, 100], np.float32)}

bare = onnx.ModelProto()
bare.CopyFrom(MODEL)
bare.graph.output[0].type.tensor_type.ClearField("shape")
inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph.output[0].type.tensor_type.shape
session = onnxruntime.InferenceSession(MODEL.SerializeToString(), providers=["CPUExecutionProvider"])
collected, total = session.run(None, FEED)
by_reference, reference_total = ReferenceEvaluator(MODEL).run(None, FEED)
print(f"shape inference: {len(inferred.dim)} axis")
print(f"onnxruntime: collected {collected.tolist()}, sum of products {total}")
print(f"ReferenceEvaluator: collected {by_reference.tolist()}, sum of products {reference_total}")
assert len(inferred.dim) == 1 and collected.tolist() == [1, 2, 4] and total == 421
assert by_reference.tolist() == [[1], [2], [4]] and reference_total == 777, "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
