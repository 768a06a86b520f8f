#!/usr/bin/env bash
# Surprise: `InferenceSession.run` takes a NumPy array in the other byte order and reads its bytes as if they were in this
#   machine's: no error, and wrong numbers or NaN. It copes with every memory layout: Fortran order, strides, negative and
#   zero ones. So arrays from `.npy` files, which keep their byte order, may be garbage to a model that runs without a word.
# Library: onnxruntime 1.32.0, and 1.23.0 likewise. Seen 2026-11-30.
# Product: `planner.runtime.arrays.native` converts every array that comes from outside.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "numpy", np.__version__, "on a", sys.byteorder, "endian machine")
other = ">" if sys.byteorder == "little" else "<"
for element, dtype in ((TensorProto.FLOAT, "f4"), (TensorProto.DOUBLE, "f8"), (TensorProto.INT64, "i8")):
    tensors = [helper.make_tensor_value_info(name, element, [2, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.arange(1, 7).reshape(2, 3).astype(dtype)
    swapped = values.astype(other + dtype)
    assert np.array_equal(values, swapped)
    found = session.run(None, {"x": swapped})[0]
    print(f"{swapped.dtype.str} {values[0, 0]} is read as {found[0, 0]}")
    assert np.array_equal(found, values.byteswap()), "changed"
    layouts = {
        "Fortran": np.asfortranarray(values),
        "reversed": values[::-1, ::-1],
        "broadcast": np.broadcast_to(values[:1], values.shape),
    }
    for name, array in layouts.items():
        assert np.array_equal(session.run(None, {"x": array})[0], array), f"{name}: changed"
PYTHON

for version in 1.23.0 1.32.0; do
    "$folder/venv/bin/pip" install -qq --disable-pip-version-check "onnxruntime==$version" onnx==1.19.1 numpy==2.2.6
    "$folder/venv/bin/python" -I "$folder/show.py"
done
echo "as described"
