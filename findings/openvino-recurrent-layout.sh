#!/usr/bin/env bash
# Surprise: OpenVINO ignores `layout` of ONNX's RNN, GRU and LSTM. With layout 1 an input is [batch, time, features]; OpenVINO takes the
#   samples of the batch for steps of one sequence, so that a sample's result depends on those before it in the batch. No error.
#   onnxruntime's CPU provider refuses such a model, but with the OpenVINO provider it runs RNN and GRU as wrongly. One sample of one
#   step is right, so a first test may pass.
#   (ONNX, Operators, RNN: "If 1, the following shapes are expected: X.shape = [batch_size, seq_length, input_size]".)
# Library: OpenVINO 2026.4.1, and onnxruntime-openvino 1.24.1, which needs Python 3.11 or later; on an x86-64 CPU. Seen 2026-12-01.
# Product: planner loads a model on the CPU provider before it profiles it on another one, and so refuses layout 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in openvino onnxruntime-openvino; do
    "${PYTHON:-python3}" -m venv "$folder/$name"
done

cat > "$folder/show.py" <<'PYTHON'
import importlib.util
import sys

import numpy as np
from onnx import numpy_helper, parser

GENERATOR = np.random.default_rng(0)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def by_openvino(model, x):
    import openvino

    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": x})[0]


def by_provider(model, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["OpenVINOExecutionProvider"])
    return session.run(None, {"x": x})[0]


run = by_provider if importlib.util.find_spec("onnxruntime") else by_openvino
for operator in sys.argv[1:]:
    weights = {name: GENERATOR.normal(size=(1, 2 * GATES[operator], n)).astype(np.float32) for name, n in (("w", 3), ("r", 2))}

    def last(x, layout, operator=operator, weights=weights):
        """Return the hidden state after the last step of each sample of x, which is [batch, time, features]."""
        axes = "batch, time" if layout else "time, batch"
        model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        example (float[{axes}, 3] x) => (float[a, b, c, 2] y) {{ y = {operator} <hidden_size = 2, layout = {layout}> (x, w, r) }}""")
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
        if layout:
            return run(model.SerializeToString(), x)[:, -1, 0]  # y is [batch, time, directions, hidden]
        return run(model.SerializeToString(), np.ascontiguousarray(x.swapaxes(0, 1)))[-1, 0]  # [time, directions, batch, hidden]

    x = GENERATOR.normal(size=(2, 1, 3)).astype(np.float32)  # two samples of one step
    other = x.copy()
    other[0] += 1  # the first sample, not the second
    by_time, by_batch = last(x, 0), last(x, 1)
    print(f"{operator}: second sample {by_time[1]} with layout 0, {by_batch[1]} with layout 1")
    print(f"  and if the first sample is another, {last(other, 0)[1]} and {last(other, 1)[1]}")
    assert np.allclose(by_time[0], by_batch[0], atol=1e-5)
    assert np.allclose(by_time[1], last(other, 0)[1], atol=1e-5)
    assert not np.allclose(by_time[1], by_batch[1], atol=1e-3), "changed"
    assert not np.allclose(by_batch[1], last(other, 1)[1], atol=1e-3), "changed"
PYTHON

"$folder/openvino/bin/pip" install -qq --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.2.6
"$folder/onnxruntime-openvino/bin/pip" install -qq --disable-pip-version-check onnxruntime-openvino==1.24.1 onnx==1.23.2 numpy==2.2.6
echo "OpenVINO 2026.4.1"
"$folder/openvino/bin/python" -I "$folder/show.py" RNN GRU LSTM
echo "onnxruntime-openvino 1.24.1"
ORT_DISABLE_TELEMETRY=1 "$folder/onnxruntime-openvino/bin/python" -I "$folder/show.py" RNN GRU
echo "as described"
