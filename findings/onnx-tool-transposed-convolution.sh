#!/usr/bin/env bash
# Surprise: onnx-tool counts a ConvTranspose as if each output element met all of its kernel: the square of the stride too often
#   (and by input and output channels exchanged). An upsampling layer of stride 2 with as many channels in as out has 4 times the
#   multiplications that it takes; decoders of segmentation models look several times dearer than they are. Conv is right.
# Library: onnx-tool 1.0.1. Seen 2026-12-01.
# Product: planner/model/flop.py counts what each input element is multiplied with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import importlib.metadata

import numpy as np
import onnx_tool
from onnx import TensorProto, helper, numpy_helper

print("onnx-tool", importlib.metadata.version("onnx-tool"))


def counted(operator, weights, output, **attributes):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    node = helper.make_node(operator, ["x", "w"], ["y"], name="layer", **attributes)
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    model = onnx_tool.Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    model.graph.shape_infer({"x": np.zeros([1, 8, 16, 16], np.float32)})
    model.graph.profile()
    return int(model.graph.nodemap["layer"].macs[0])


PIXELS = 16 * 16  # of the input, each of which is multiplied with all weights
weights = np.ones([8, 8, 2, 2], np.float32)
found, right = counted("ConvTranspose", weights, [1, 8, 32, 32], strides=[2, 2]), PIXELS * weights.size
print(f"ConvTranspose, 8 to 8 channels, stride 2: {found} multiplications, {right} are done")
assert found == 4 * right, "changed"
kernel = np.ones([8, 8, 3, 3], np.float32)
found = counted("Conv", kernel, [1, 8, 16, 16], pads=[1, 1, 1, 1])
print(f"Conv, 8 to 8 channels: {found} multiplications with padding, {PIXELS * kernel.size} by the formula")
assert found == PIXELS * kernel.size, "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx-tool==1.0.1 onnx==1.23.2 numpy==2.2.6
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
