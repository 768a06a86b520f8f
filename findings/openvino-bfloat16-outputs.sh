#!/usr/bin/env bash
# Surprise: OpenVINO returns a bfloat16 output as a NumPy array of float16 that holds the bits of the bfloat16 numbers: 1, 3 and 100 come
#   back as 1.875, 2.125 and 3.39. No error or warning, and `element_type` of the same output says bf16. Viewed as
#   ml_dtypes.bfloat16, the type that onnx and onnxruntime's tools use for it, the array has the right numbers.
#   (ONNX, IR, "Tensor element types": bfloat16 has 8 bits of exponent, IEEE's float16 has 5.)
# Library: OpenVINO 2026.4.1, with ml_dtypes 0.5.4 to read the bits, on an x86-64 CPU. Seen 2026-12-01.
# Product: planner runs OpenVINO through onnxruntime alone, and refuses models whose inputs or outputs are bfloat16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import ml_dtypes
import numpy as np
import openvino
from onnx import parser

print("OpenVINO", openvino.__version__)
model = parser.parse_model("""
<ir_version: 8, opset_import: ["": 17]>
example (float[3] x) => (bfloat16[3] y) { y = Cast <to = 16> (x) }""")
core = openvino.Core()
compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
x = np.array([1, 3, 100], np.float32)
y = compiled({"x": x})[0]
print(f"element type {compiled.output(0).element_type.get_type_name()}, array of {y.dtype}: {y.tolist()}")
print(f"the same bits as bfloat16: {y.view(ml_dtypes.bfloat16).astype(np.float32).tolist()}")
assert compiled.output(0).element_type == openvino.Type.bf16
assert y.view(ml_dtypes.bfloat16).astype(np.float32).tolist() == x.tolist()
assert y.dtype == np.float16, "changed"
assert y.astype(float).round(2).tolist() == [1.88, 2.12, 3.39], "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.2.6 ml_dtypes==0.5.4
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
