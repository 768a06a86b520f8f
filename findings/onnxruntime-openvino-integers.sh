#!/usr/bin/env bash
# Surprise: the OpenVINO provider computes ONNX's 64-bit integers in 32 bits, and 8-bit integers stop at their limits where the CPU
#   provider lets them wrap around. No warning; outputs still have the type int64. 2^32 equals 0, the sum of two sizes beyond 2 GiB is 0.
# Library: onnxruntime-openvino 1.24.1, which contains OpenVINO, on an x86-64 CPU; it needs Python 3.11 or later. Seen 2026-12-01.
# Product: docs/start/install.md says so beside the provider. Samples are compared with the whole model on the CPU provider.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__)
assert "OpenVINOExecutionProvider" in onnxruntime.get_available_providers()


def run(provider, operator, left, right, result):
    def described(name, dtype):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), left.shape)

    inputs = [described("left", left.dtype), described("right", right.dtype)]
    node = helper.make_node(operator, ["left", "right"], ["result"])
    graph = helper.make_graph([node], "g", inputs, [described("result", result)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    assert session.get_providers()[0] == provider
    return session.run(None, {"left": left, "right": right})[0]


def shown(operator, left, right, dtype, result, expected):
    arrays = np.array(left, dtype), np.array(right, dtype)
    by_cpu = run("CPUExecutionProvider", operator, *arrays, result)
    found = run("OpenVINOExecutionProvider", operator, *arrays, result)
    print(f"{operator} of {dtype} {left} and {right}: CPU {by_cpu.tolist()}, OpenVINO {found.tolist()}, {found.dtype}")
    assert not np.array_equal(found, by_cpu), "changed"
    assert (found.tolist(), found.dtype) == (expected, np.dtype(result)), "changed"


shown("Equal", [2**32, 7], [0, 7], "int64", "bool", [True, True])
shown("Add", [2**33, 7], [2**33, 7], "int64", "int64", [0, 14])
shown("Mul", [2**17, 7], [2**17, 7], "int64", "int64", [0, 49])
shown("Add", [200, 7], [100, 7], "uint8", "uint8", [255, 14])
shown("Sub", [2, 7], [3, 7], "uint8", "uint8", [0, 0])
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
echo "as described"
