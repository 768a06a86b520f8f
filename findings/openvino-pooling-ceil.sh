#!/usr/bin/env bash
# Surprise: with `ceil_mode`, OpenVINO adds a window to ONNX's MaxPool that lies behind the input: one more column, of -3.4e38. By ONNX
#   ("Sliding windows that would start in the right padded region are ignored", Operators, MaxPool-22 and AveragePool-22) there is
#   none, and onnxruntime's CPU provider has none. With the OpenVINO provider it has, also in AveragePool, where the column is NaN. So
#   where strides exceed the kernel, one device gives another shape, and a number that is close to no input.
# Library: OpenVINO 2026.4.1, and onnxruntime-openvino 1.24.1, which needs Python 3.11 or later; on an x86-64 CPU. Seen 2026-12-01.
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

X = np.array([[[[1, 2, 3, 4]]]], np.float32)


def by_openvino(model):
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": X})[0].ravel()


def by_provider(model, provider="OpenVINOExecutionProvider"):
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=[provider]).run(None, {"x": X})[0].ravel()


def pooled(operator, run, *arguments):
    return run(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 22]>
        example (float[1, 1, 1, 4] x) => (float[1, 1, 1, n] y) {{
            y = {operator} <kernel_shape = [1, 1], strides = [1, 2], ceil_mode = 1> (x)
        }}""").SerializeToString(),
        *arguments,
    )


if importlib.util.find_spec("onnxruntime"):
    for operator in ("MaxPool", "AveragePool"):
        cpu, found = pooled(operator, by_provider, "CPUExecutionProvider"), pooled(operator, by_provider)
        print(f"onnxruntime-openvino 1.24.1, {operator} of {X.ravel()}: CPU provider {cpu}, OpenVINO provider {found}")
        assert cpu.tolist() == [1, 3]
        assert found.shape == (3,) and not found[2] > -1e38, "changed"
else:
    found = pooled("MaxPool", by_openvino)
    print(f"OpenVINO 2026.4.1, MaxPool of {X.ravel()}: {found}")
    assert found.shape == (3,) and found[2] < -1e38, "changed"
PYTHON

"$folder/openvino/bin/pip" install -qq --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.2.6
"$folder/onnxruntime-openvino/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
for name in openvino onnxruntime-openvino; do
    ORT_DISABLE_TELEMETRY=1 "$folder/$name/bin/python" -I "$folder/show.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
done
echo "as described"
