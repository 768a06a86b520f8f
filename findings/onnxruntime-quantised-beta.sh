#!/usr/bin/env bash
# Surprise: quantize_static loses the `beta` of a Gemm, by which the bias counts (Operators, Gemm-13: alpha * A' * B' + beta * C). With
#   beta 2, a bias of 4 counts as 4 instead of 8, and as 2 if onnxruntime also optimises the quantised graph, as it does by default.
#   No warning; int8 errors are expected, but these do not shrink with better calibration. Without beta the same layer is right to a
#   hundredth, and so is dynamic quantisation, which leaves such a Gemm as it is.
# Library: onnxruntime 1.32.0, CPUExecutionProvider on x86-64, with onnx 1.23.2. Seen 2026-12-01.
# Product: planner/runtime/quantise.py quantises its reference models alone; no Gemm there has a beta other than 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

FOLDER = Path(sys.argv[1])
X = np.array([[1, -1, 0.5]], np.float32)
WEIGHTS = {"w": np.array([[0.5, -0.25], [0.25, 0.5], [-0.5, 1]], np.float32), "bias": np.array([4, -2], np.float32)}
logging.disable(logging.WARNING)  # advice to preprocess


class Calibration(CalibrationDataReader):
    def __init__(self):
        self.samples = iter([{"x": X}])

    def get_next(self):
        return next(self.samples, None)


def run(name, optimise=True):
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(FOLDER / name, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0][0].astype(float).round(2)


def quantised(beta):
    """Return the outputs in float, in int8 without and with optimisation, and after dynamic quantisation."""
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    example (float[1, 3] x) => (float[1, 2] y) {{ y = Gemm <beta = {beta}> (x, w, bias) }}""")
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in WEIGHTS.items())
    onnx.save(model, FOLDER / "float.onnx")
    quantize_static(
        FOLDER / "float.onnx", FOLDER / "int8.onnx", Calibration(), quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8
    )
    quantize_dynamic(FOLDER / "float.onnx", FOLDER / "dynamic.onnx", weight_type=QuantType.QInt8)
    return run("float.onnx"), run("int8.onnx", optimise=False), run("int8.onnx"), run("dynamic.onnx")


print("onnxruntime", onnxruntime.__version__)
for beta in (1.0, 2.0):
    right, plain, optimised, dynamic = quantised(beta)
    print(f"beta {beta}: {right}, static int8 {plain}, optimised {optimised}, dynamic {dynamic}")
    assert np.allclose(dynamic, right, atol=0.1)
    if beta == 1:
        assert np.allclose(plain, right, atol=0.1) and np.allclose(optimised, right, atol=0.1)
    else:
        assert np.allclose(plain, right - WEIGHTS["bias"], atol=0.1), "changed"
        assert np.allclose(optimised, right - 1.5 * WEIGHTS["bias"], atol=0.1), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6 sympy==1.14.0
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py" "$folder" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
echo "as described"
