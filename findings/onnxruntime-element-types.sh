#!/usr/bin/env bash
# Surprise: onnxruntime computes with bfloat16, float8 and int4, but its Python interface cannot return such tensors as arrays:
#   it raises an error, and float8e4m3fn comes back as uint8 without a word.
# Library: onnxruntime 1.32.0. Seen 2026-11-30.
# Product: planner/model/shapes.py offers no cut where a tensor of such a type crosses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6

cat > "$folder/show.py" <<'PYTHON'
import numpy as np, onnxruntime
from onnx import TensorProto, helper

found = {}
for name in ("FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4"):
    kind = getattr(TensorProto, name)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", kind, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    try:
        found[name] = session.run(None, {"x": np.ones(2, np.float32)})[0].dtype.name
    except RuntimeError as error:
        found[name] = str(error)
    print(f"{name}: {found[name]}")
assert found["FLOAT16"] == "float16" and found["FLOAT8E4M3FN"] == "uint8", "changed"
assert all("No corresponding Numpy type" in found[name] for name in ("BFLOAT16", "FLOAT8E5M2", "INT4")), "changed"
PYTHON
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
