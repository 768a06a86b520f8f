#!/usr/bin/env bash
# Surprise: the OpenVINO provider adds the zero point before it rounds in QuantizeLinear; ONNX rounds first. Where the zero point is
#   odd, every value half-way between two steps goes to the other side: 0.5, 1.5 and 2.5 steps become 1, 1 and 3 instead of 0, 2, 2.
#   One int8 model gives other numbers on two devices, by a whole step.
# Library: onnxruntime-openvino 1.24.1, which contains OpenVINO, on an x86-64 CPU; it needs Python 3.11 or later. Seen 2026-12-01.
# Product: planner measures the steps by which a provider's int8 outputs differ from the CPU provider's, and judges runs by them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__)
STEPS = np.array([0.5, 1.5, 2.5, 3.25], np.float32)  # the scale is 1, so these are exact


def run(provider, zero_point):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.array(zero_point, np.int8), "zero"),
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    assert session.get_providers()[0] == provider
    return session.run(None, {"x": STEPS})[0].tolist()


for zero_point, expected in ((2, [0.0, 2.0, 2.0, 3.0]), (3, [1.0, 1.0, 3.0, 3.0])):
    by_cpu, found = run("CPUExecutionProvider", zero_point), run("OpenVINOExecutionProvider", zero_point)
    print(f"zero point {zero_point}, {STEPS.tolist()}: CPU {by_cpu}, OpenVINO {found}")
    assert by_cpu == [0.0, 2.0, 2.0, 3.0], "changed"
    assert found == expected, "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
echo "as described"
