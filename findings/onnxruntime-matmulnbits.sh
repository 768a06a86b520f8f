#!/usr/bin/env bash
# Surprise: a MatMul by weights that DequantizeLinear unpacks from int4 blocks is fused to MatMulNBits, whose activations
#   are rounded to int8 by default, but only in some places of a graph: here in the last layer, since a Relu follows that is
#   the graph's output, and not in the layer before. So the same layer computes other numbers where the model ends after
#   it. The session entry `session.qdq_matmulnbits_accuracy_level` = "1" lets the fused operator compute in float32.
# Library: onnxruntime 1.32.0, and 1.23.0 likewise. Seen 2026-11-30.
# Product: sets that entry in all its sessions, since a stage ends where the whole model goes on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import collections, sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH, BLOCK = 64, 32
draw = np.random.default_rng(0)
print("onnxruntime", onnxruntime.__version__)


def model(layers, outputs):
    nodes, weights, last = [], [], "x"
    rng = np.random.default_rng(1)
    for layer in range(layers):
        values = rng.integers(-8, 8, (WIDTH, WIDTH))
        weights.append(helper.make_tensor(f"w{layer}", TensorProto.INT4, [WIDTH, WIDTH], values))
        weights.append(numpy_helper.from_array(np.full((WIDTH // BLOCK, WIDTH), 0.03, np.float32), f"s{layer}"))
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{layer}", f"s{layer}"], [f"d{layer}"], axis=0, block_size=BLOCK),
            helper.make_node("MatMul", [last, f"d{layer}"], [f"m{layer}"]),
            helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]),
        ]
        last = f"r{layer}"
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in ("x", *outputs)]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def run(data, inputs, level=None, optimise=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = sys.argv[1]
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if level is not None:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", level)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    kinds = collections.Counter(node.op_type for node in onnx.load(sys.argv[1]).graph.node)
    return session.run(None, inputs)[0], kinds["MatMulNBits"], kinds["MatMul"]


x = {"x": draw.standard_normal((1, WIDTH)).astype(np.float32)}
exact = run(model(1, ["r0"]), x, optimise=False)[0]
error = lambda found: float(np.abs(found - exact).max() / np.abs(exact).max())
(alone, *fused), whole = run(model(1, ["r0"]), x), run(model(2, ["r1"]), x)[1:]
precise = run(model(1, ["r0"]), x, level="1")[0]
print("one layer: MatMulNBits and MatMul", fused, "error of the layer", error(alone))
print("two layers: MatMulNBits and MatMul", list(whole))
print("one layer at accuracy level 1: error", error(precise))
assert fused == [1, 0] and whole == (1, 1), "changed"
assert error(alone) > 1e-3 > 1e-5 > error(precise), "changed"
PYTHON

for version in 1.23.0 1.32.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "onnxruntime==$version" onnx==1.19.1 numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py" "$folder/optimised.onnx"
done
echo "as described"
