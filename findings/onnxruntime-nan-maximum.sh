#!/usr/bin/env bash
# Surprise: the largest of numbers and one NaN, by ReduceMax on the CPU, is neither NaN nor the largest number: that of 0, NaN, 2 and
#   3 is 2, that of 64 numbers 62 instead of 63. Where the NaN comes first, the result is NaN. MaxPool and GlobalMaxPool leave NaN
#   out, while averages pass it on. So one NaN changes what a detector chooses, and need not show in its output.
# Library: onnxruntime 1.32.0, CPUExecutionProvider on x86-64. Seen 2026-12-01.
# Product: planner takes no NaN in outputs as a sign that inputs were sound or not; it compares outputs NaN for NaN, and numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__)


def run(operator, values, **attributes):
    array = np.array(values, np.float32)
    array = array if operator == "ReduceMax" else array.reshape(1, 1, -1)
    tensors = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})[0].ravel()


def numbers(count, nan_at):
    values = [float(value) for value in range(count)]
    values[nan_at] = float("nan")
    return values


for count in (4, 16, 64):
    second = float(run("ReduceMax", numbers(count, 1), keepdims=0)[0])
    first = float(run("ReduceMax", numbers(count, 0), keepdims=0)[0])
    print(f"0 to {count - 1}: ReduceMax with NaN in second place {second}, in first place {first}")
    assert second == count - 2, "changed"
    assert np.isnan(first), "changed"
pooled, mean = (run(name, numbers(4, 1), kernel_shape=[2]).tolist() for name in ("MaxPool", "AveragePool"))
print(f"pairs of 0, NaN, 2, 3: MaxPool {pooled}, AveragePool {mean}, GlobalMaxPool {run('GlobalMaxPool', numbers(4, 1))}")
assert pooled == [0.0, 2.0, 3.0], "changed"
assert np.isnan(mean[0]) and np.isnan(mean[1]), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
