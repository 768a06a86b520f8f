#!/usr/bin/env bash
# Surprise: OpenVINO runs ONNX operators of an opset that is newer than it knows by the rules of an older one, and ignores what the newer
#   one added. Attention of opset 25 with a sliding window attends to all tokens; SpaceToDepth of opset 28 in mode CRD puts channels in
#   the order of DCR. No error. onnxruntime 1.32.0 computes both; 1.24.1 refuses them for the attribute or the opset. The IR specification:
#   "An implementation must support all operators in the set or reject the model" (Models, opset_import).
# Library: OpenVINO 2026.4.1 on an x86-64 CPU, with onnx 1.23.2 and onnxruntime 1.32.0. Seen 2026-12-01.
# Product: planner runs OpenVINO through onnxruntime alone, which checks nodes before it hands them over.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import parser
from onnx.reference import ReferenceEvaluator

print("OpenVINO", openvino.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def compare(title, opset, inputs, output, node, feed, expected):
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> example ({inputs}) => ({output}) {{ {node} }}')
    onnx.checker.check_model(model, full_check=True)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(feed)[0].ravel().tolist()
    right = ReferenceEvaluator(model).run(None, feed)[0].ravel().tolist()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    other = session.run(None, feed)[0].ravel().tolist()
    print(f"{title}\n  OpenVINO {found}\n  onnxruntime {other}\n  onnx's evaluator {right}")
    assert right == other == expected[0]
    assert found == expected[1], "changed"


zeros = np.zeros((1, 1, 5, 1), np.float32)  # equal weights for all tokens in the window
values = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1)
shape = "float[1, 1, 5, 1]"
compare(
    "Attention to each token and the one before it",
    25,
    f"{shape} q, {shape} k, {shape} v",
    f"{shape} y",
    "y = Attention <left_window_size = 1, right_window_size = 0> (q, k, v)",
    {"q": zeros, "k": zeros, "v": values},
    ([0, 0.5, 1.5, 2.5, 3.5], [2, 2, 2, 2, 2]),
)
compare(
    "SpaceToDepth of two channels, mode CRD",
    28,
    "float[1, 2, 2, 2] x",
    "float[1, 8, 1, 1] y",
    'y = SpaceToDepth <blocksize = 2, mode = "CRD"> (x)',
    {"x": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)},
    ([0, 1, 2, 3, 4, 5, 6, 7], [0, 4, 1, 5, 2, 6, 3, 7]),
)
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
echo "as described"
