#!/usr/bin/env bash
# Surprise: an optional input that is absent may be left out or have an empty name, which means the same by ONNX's
#   specification. Of all operators, shape inference tells them apart for two, if it is the last one: for SplitToSequence it
#   keeps an axis that `keepdims` removes, and for MaxUnpool it loses the output's shape.
# Library: onnx 1.23.2, and 1.19.1 likewise. Seen 2026-11-30.
# Product: `planner.model.source` drops absent inputs and outputs at the end of nodes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import onnx
from onnx import TensorProto, defs, helper, shape_inference

print("onnx", onnx.__version__)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def rank(kind):
    tensor = kind.sequence_type.elem_type.tensor_type if kind.HasField("sequence_type") else kind.tensor_type
    return len(tensor.shape.dim) if tensor.HasField("shape") else None


def inferred(operator, inputs, **attributes):
    types = {
        name: helper.make_tensor_type_proto(INT64 if name == "index" else FLOAT, shape)
        for name, shape in inputs.items() if name
    }
    node = helper.make_node(operator, list(inputs), ["y"], **attributes)
    schema = defs.get_schema(operator, 18, "")
    return rank(shape_inference.infer_node_outputs(schema, node, types, opset_imports=[helper.make_opsetid("", 18)])["y"])


for operator, inputs, attributes, right in (
    ("SplitToSequence", {"x": [2, 6]}, {"axis": 1, "keepdims": 0}, 1),
    ("MaxUnpool", {"x": [1, 1, 2, 2], "index": [1, 1, 2, 2]}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 4),
):
    left_out, empty = (inferred(operator, given, **attributes) for given in (inputs, {**inputs, "": None}))
    print(f"{operator}: rank {left_out} with the last input left out, {empty} with an empty name")
    assert left_out == right and empty != right, "changed"
PYTHON

for version in 1.19.1 1.23.2; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "onnx==$version" numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
