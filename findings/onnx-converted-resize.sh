#!/usr/bin/env bash
# Surprise: onnx's version converter moves what a linear Upsample or Resize of opset 10 and earlier computes by a quarter of a pixel (at
#   twice the size). Such a node takes the sample at position / scale, as onnxruntime and OpenVINO agree; opset 11 calls that
#   "asymmetric" and has another default, "half_pixel" (Operators, Resize, coordinate_transformation_mode). The converter writes no
#   mode, so the default applies. The version of a detector that an older exporter wrote, raised, boxes other pixels.
# Library: onnx 1.23.2, with onnxruntime 1.32.0 and OpenVINO 2026.4.1 to run the models. Seen 2026-12-01.
# Product: planner runs and splits models in the opset that they state.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import parser, version_converter

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "OpenVINO", openvino.__version__)
X = np.array([[[[0, 1, 2, 3]]]], np.float32)
LEFT, CENTRED = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


def by_onnxruntime(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0].ravel().tolist()


def by_openvino(model):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled({"x": X})[0].ravel().tolist()


for operator, version in (("Upsample", 9), ("Resize", 10)):
    model = parser.parse_model(f"""
    <ir_version: 7, opset_import: ["": {version}]>
    example (float[1, 1, 1, 4] x) => (float[1, 1, 1, 8] y) {{
        scales = Constant <value = float[4] {{1, 1, 1, 2}}> ()
        y = {operator} <mode = "linear"> (x, scales)
    }}""")
    assert by_onnxruntime(model) == LEFT and by_openvino(model) == LEFT
    for target in (11, 17):
        converted = version_converter.convert_version(model, target)
        onnx.checker.check_model(converted, full_check=True)
        (resize,) = [node for node in converted.graph.node if node.op_type == "Resize"]
        found = by_onnxruntime(converted)
        attributes = [attribute.name for attribute in resize.attribute]
        print(f"{operator}-{version} {by_onnxruntime(model)}\n  to opset {target}, attributes {attributes}: {found}")
        assert found == by_openvino(converted) == CENTRED, "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
