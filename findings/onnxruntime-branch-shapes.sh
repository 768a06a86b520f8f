#!/usr/bin/env bash
# Surprise: onnxruntime refuses to load a model whose inputs have fixed shapes if one branch of an If does not fit them, even
#   if the branch is never taken. With these axes left open, it loads the same model and runs it on tensors of these shapes.
# Library: onnxruntime 1.32.0 and 1.22.1, with onnx 1.23.2. Seen 2026-11-30.
# Product: Shapes.type_of() in planner/model/shapes.py leaves the axes of a block's inputs open if a branch does not fit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def branch(operator, inputs):
    node = helper.make_node(operator, inputs, [operator])
    return helper.make_graph([node], operator, [], [helper.make_tensor_value_info(operator, TensorProto.FLOAT, None)])


def model(shape):
    choice = helper.make_node(
        "If", ["square"], ["y"], then_branch=branch("MatMul", ["x", "x"]), else_branch=branch("Neg", ["x"])
    )
    inputs = [
        helper.make_tensor_value_info("square", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
    ]
    graph = helper.make_graph([choice], "choice", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def output(shape):
    session = onnxruntime.InferenceSession(model(shape), providers=["CPUExecutionProvider"])
    return session.run(None, {"square": np.array(False), "x": np.ones((4, 3), np.float32)})[0]


print(f"onnxruntime {onnxruntime.__version__}: open axes give an output of shape {output(['rows', 'columns']).shape}")
try:
    output([4, 3])
except Exception as error:
    print(f"fixed axes: {str(error).splitlines()[0]}")
    assert "Incompatible dimensions" in str(error), "changed"
else:
    raise AssertionError("changed: fixed axes are accepted")
PYTHON

for version in 1.22.1 1.32.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "onnxruntime==$version" onnx==1.23.2 numpy==2.2.6
    ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
