#!/usr/bin/env bash
# Surprise: with the OpenVINO provider, NaN goes into Relu, Clip, Min or Max and a number comes out; Exp of NaN is infinity. The CPU
#   provider passes NaN on there. So a broken frame, or a layer that overflows, looks like a sound result on one device only.
# Library: onnxruntime-openvino 1.24.1, which contains OpenVINO, on an x86-64 CPU; it needs Python 3.11 or later. Seen 2026-12-01.
# Product: docs/start/install.md says so beside the provider; a NaN that turns into a number counts as an infinite difference.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__)
VALUES = np.array([np.nan, -2.0, 8.0], np.float32)
LIMITS = {"zero": np.float32(0), "six": np.float32(6)}


def run(provider, operator, limits):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    node = helper.make_node(operator, ["x", *limits], ["y"])
    constants = [numpy_helper.from_array(np.array(LIMITS[name]), name) for name in limits]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider])
    assert session.get_providers()[0] == provider
    return session.run(None, {"x": VALUES})[0]


for operator, limits, expected in (
    ("Relu", (), 0.0),
    ("Clip", ("zero", "six"), 0.0),
    ("Max", ("zero",), 0.0),
    ("Min", ("zero",), 0.0),
    ("Exp", (), np.inf),
):
    by_cpu = run("CPUExecutionProvider", operator, limits)
    found = run("OpenVINOExecutionProvider", operator, limits)
    print(f"{operator} of {VALUES.tolist()}: CPU {by_cpu.tolist()}, OpenVINO {found.tolist()}")
    assert np.isnan(by_cpu[0]), "changed"
    assert found[0] == expected, "changed"
    assert np.allclose(by_cpu[1:], found[1:], rtol=1e-6), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
echo "as described"
