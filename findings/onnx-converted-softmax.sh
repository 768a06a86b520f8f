#!/usr/bin/env bash
# Surprise: opset 13 gave Softmax and Hardmax another meaning: up to 12 they take all axes from `axis` on as one, then `axis` alone, and
#   the default went from 1 to -1. onnx's version converter rewrites a Softmax on the way up. It does not rewrite a Hardmax, which has
#   one 1 for each row instead of each sample then, nor a Softmax on the way down, whose probabilities add up to 1 over more than
#   their axis. No error, and the full check accepts the result.
# Library: onnx 1.23.2, with onnxruntime 1.32.0 to run the models. Seen 2026-12-01. (Operators: Softmax-11 and -13, Hardmax-11 and -13.)
# Product: planner runs and splits models in the opset that they state.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import parser, version_converter

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
X = np.array([[[1, 2, 0], [0, 1, 3]]], np.float32)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0].astype(float)


def converted(node, version, target):
    model = parser.parse_model(f"""
    <ir_version: 7, opset_import: ["": {version}]>
    example (float[1, 2, 3] x) => (float[1, 2, 3] y) {{ y = {node} (x) }}""")
    other = version_converter.convert_version(model, target)
    onnx.checker.check_model(other, full_check=True)
    before, after = run(model), run(other)
    print(f"{node} of opset {version}: {before.round(3).tolist()}\n  in opset {target}: {after.round(3).tolist()}")
    return before, after


before, after = converted("Softmax", 11, 13)
assert np.allclose(before, after, atol=1e-6) and np.isclose(after.sum(), 1)
before, after = converted("Hardmax", 11, 13)
assert before.sum() == 1 and after.sum() == 2, "changed"
before, after = converted("Softmax <axis = 1>", 13, 12)
assert np.allclose(before.sum(axis=1), 1) and np.isclose(after.sum(), 1), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
