#!/usr/bin/env bash
# Surprise: products with block-wise quantised weights (DequantizeLinear, MatMul), each followed by a Relu, are fused in the last
#   layer of a graph only. A fused product rounds its activations to int8, the others compute in float32. So the layers of a
#   model as models of their own give other numbers than the whole model, by a per cent.
# Library: onnxruntime 1.32.0. Seen 2026-11-30.
# Product: planner/runtime/session.py sets session.qdq_matmulnbits_accuracy_level to 1 in every session.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6

cat > "$folder/show.py" <<'PYTHON'
import sys
from collections import Counter
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIZE, BLOCK, LAYERS = 256, 32, 3


def layer(index):
    rng = np.random.default_rng(index)
    numbers = rng.integers(-8, 7, (SIZE, SIZE), endpoint=True)
    weights = [
        helper.make_tensor(f"q{index}", TensorProto.INT4, numbers.shape, numbers.ravel().tolist()),
        numpy_helper.from_array(rng.random((SIZE // BLOCK, SIZE), np.float32) / 50, f"s{index}"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", [f"q{index}", f"s{index}"], [f"w{index}"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"m{index}"]),
        helper.make_node("Relu", [f"m{index}"], [f"x{index + 1}"]),
    ]
    return nodes, weights


def run(first, last, x, level):
    parts = [layer(index) for index in range(first, last + 1)]
    values = [helper.make_tensor_value_info(f"x{at}", TensorProto.FLOAT, [1, SIZE]) for at in (first, last + 1)]
    nodes, weights = ([item for part in parts for item in part[kind]] for kind in (0, 1))
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = sys.argv[1], 3
    if level:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    (result,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {f"x{first}": x})
    return result, Counter(node.op_type for node in onnx.load(sys.argv[1]).graph.node)["MatMulNBits"]


x = np.random.default_rng(9).standard_normal((1, SIZE), np.float32)
for level, low, high in ((None, 1e-3, 1), ("1", 0, 1e-5)):
    whole, fused = run(0, LAYERS - 1, x, level)
    chained, alone = x, 0
    for index in range(LAYERS):
        chained, one = run(index, index, chained, level)
        alone += one
    error = float(np.abs(chained - whole).max() / whole.max())
    print(f"level {level or 'by default'}: {fused} of {LAYERS} layers fused in the whole model, {alone} alone, error {error:.1e}")
    assert fused == 1 and alone == LAYERS and low <= error <= high, "changed"
PYTHON
"$folder/venv/bin/python" -I "$folder/show.py" "$folder/optimised.onnx"
echo "as described"
