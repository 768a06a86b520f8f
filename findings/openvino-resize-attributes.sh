#!/usr/bin/env bash
# Surprise: OpenVINO reads ONNX's Resize and ignores three of its attributes without a word: `antialias`, `exclude_outside` and
#   `keep_aspect_ratio_policy` (Operators, Resize-19). Where a model scales its own frames down, one device smooths them and the other
#   picks pixels; with a policy, frames have another shape. It refuses modes that it does not know, so silence looks like support.
#   With the OpenVINO provider, onnxruntime leaves the first two to its CPU provider, but the policy is ignored there too.
# Library: OpenVINO 2026.4.1 and onnxruntime-openvino 1.24.1, on an x86-64 CPU, with onnx 1.23.2. Needs Python 3.11. Seen 2026-12-01.
# Product: `planner validate` compares outputs with the CPU provider's; a tensor of another shape differs infinitely.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in openvino onnxruntime-openvino; do
    "${PYTHON:-python3}" -m venv "$folder/$name"
done

cat > "$folder/show.py" <<'PYTHON'
import importlib.util

import numpy as np
from onnx import parser
from onnx.reference import ReferenceEvaluator

X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def by_openvino(model):
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": X})[0][0, 0]


def by_provider(model, provider="OpenVINOExecutionProvider"):
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=[provider]).run(None, {"x": X})[0][0, 0]


def resize(attributes):
    return parser.parse_model(f"""
    <ir_version: 9, opset_import: ["": 19]>
    example (float[1, 1, 4, 4] x) => (float[1, 1, height, width] y) {{
        size = Constant <value_ints = [1, 1, 2, 3]> ()
        y = Resize <{attributes}> (x, , , size)
    }}""")


def show(found):
    return f"{found.shape} {found[0].astype(float).round(3).tolist()}"


if importlib.util.find_spec("onnxruntime"):
    model = resize('mode = "nearest", keep_aspect_ratio_policy = "not_larger"').SerializeToString()
    cpu, found = by_provider(model, "CPUExecutionProvider"), by_provider(model)
    print(f"onnxruntime-openvino 1.24.1, not_larger than (2, 3): CPU provider {show(cpu)}, OpenVINO provider {show(found)}")
    assert cpu.shape == (2, 2)
    assert found.shape == (2, 3), "changed"
else:
    for mode, attribute in (
        ("linear", "antialias = 1"),
        ("cubic", "exclude_outside = 1"),
        ("nearest", 'keep_aspect_ratio_policy = "not_larger"'),
    ):
        model, plain = resize(f'mode = "{mode}", {attribute}'), resize(f'mode = "{mode}"')
        right, found = ReferenceEvaluator(model).run(None, {"x": X})[0][0, 0], by_openvino(model.SerializeToString())
        print(f"OpenVINO 2026.4.1, {mode}, {attribute}: {show(found)}, onnx's evaluator {show(right)}")
        assert right.shape != found.shape or np.abs(right - found).max() > 0.05, "changed"
        assert (found == by_openvino(plain.SerializeToString())).all(), "changed"
PYTHON

"$folder/openvino/bin/pip" install -qq --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.2.6
"$folder/onnxruntime-openvino/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
for name in openvino onnxruntime-openvino; do
    ORT_DISABLE_TELEMETRY=1 "$folder/$name/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
done
echo "as described"
