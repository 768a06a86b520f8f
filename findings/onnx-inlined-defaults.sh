#!/usr/bin/env bash
# Surprise: onnx's inliner replaces operators by their definitions without the defaults of their attributes. MeanVarianceNormalization
#   that leaves `axes` at its default [0, 2, 3] then averages over the channels too: other numbers, in a model that the full check
#   accepts. An attribute that is left out has the default of the operator's specification (Operators, MeanVarianceNormalization), as
#   onnxruntime and onnx's own evaluator compute it; with `axes` written out, the numbers stay.
# Library: onnx 1.23.2, with onnxruntime 1.32.0 to run the models. Seen 2026-12-01.
# Product: planner/model/inlining.py inlines the functions of the model alone, not operators.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import inliner, parser
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
X = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)  # three channels with the means 1.5, 5.5 and 9.5


def model(attributes):
    return parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    example (float[1, 3, 2, 2] x) => (float[1, 3, 2, 2] y) {{ y = MeanVarianceNormalization {attributes} (x) }}""")


def means(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [round(float(mean), 2) + 0.0 for mean in session.run(None, {"x": X})[0].mean(axis=(0, 2, 3))]


for attributes, changed in (("<axes = [0, 2, 3]>", False), ("", True)):
    whole = model(attributes)
    inlined = inliner.inline_selected_functions(whole, [], exclude=True, inline_schema_functions=True)
    onnx.checker.check_model(inlined, full_check=True)
    reference = ReferenceEvaluator(whole).run(None, {"x": X})[0].mean(axis=(0, 2, 3))
    assert "MeanVarianceNormalization" not in {node.op_type for node in inlined.graph.node}
    print(f"axes {attributes or 'left out'}: means of the channels {means(whole)}, after inlining {means(inlined)}")
    assert np.allclose(means(whole), 0, atol=0.01) and np.allclose(reference, 0, atol=0.01)
    assert means(inlined) == ([-1.16, 0.0, 1.16] if changed else [0.0, 0.0, 0.0]), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
