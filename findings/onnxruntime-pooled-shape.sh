#!/usr/bin/env bash
# Surprise: onnxruntime's pooling with `ceil_mode` gives one column less than it says itself. For opsets up to 21, the formula of ONNX
#   (Operators, MaxPool-12 and AveragePool-11), onnx's shape inference and the session's own `get_outputs()` count a window that would
#   start behind the input; the kernel leaves it out, as ONNX only does since opset 22, and logs a warning. Whoever allots memory,
#   sends or checks tensors by the stated shape has another one at run time. From opset 22 on, all agree.
# Library: onnxruntime 1.32.0 and 1.24.1, CPUExecutionProvider, with onnx 1.23.2. Seen 2026-12-01.
# Product: planner/model/pooling.py leaves such windows out of the shapes that onnx infers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import parser

print("onnxruntime", onnxruntime.__version__)
for operator in ("MaxPool", "AveragePool"):
    for opset, stated in ((12, 3), (21, 3), (22, 2)):
        model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        example (float[1, 1, 4] x) => (float y) {{ y = {operator} <kernel_shape = [1], strides = [2], ceil_mode = 1> (x) }}""")
        model.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no warnings
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        says, gives = session.get_outputs()[0].shape, session.run(None, {"x": np.ones((1, 1, 4), np.float32)})[0].shape
        print(f"{operator} of opset {opset}: onnx infers {[each.dim_value for each in inferred.dim]}, session {says}, output {gives}")
        assert inferred.dim[2].dim_value == says[2] == stated
        assert gives == (1, 1, 2), "changed"
PYTHON

for version in 1.24.1 1.32.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "onnxruntime==$version" onnx==1.23.2 numpy==2.2.6
    ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
