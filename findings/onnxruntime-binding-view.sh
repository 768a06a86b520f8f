#!/usr/bin/env bash
# Surprise: an output that is read from an IOBinding on the CPU, `get_outputs()[0].numpy()`, changes with the next run: it is a view
#   of memory that onnxruntime fills again, though it was bound by name alone and no buffer was given. `run` returns arrays of
#   their own. So a program that keeps the outputs of several runs has the last one several times.
# Library: onnxruntime 1.32.0. Seen 2026-12-01.
# Product: planner/runtime/session.py copies what it reads from a binding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
samples = [np.full(3, value, np.float32) for value in (-1, -2, -3)]

binding, bound, by_run = session.io_binding(), [], []
for sample in samples:
    binding.bind_cpu_input("x", sample)
    if not bound:
        binding.bind_output("y")
    session.run_with_iobinding(binding)
    bound.append(binding.get_outputs()[0].numpy())
    by_run.append(session.run(None, {"x": sample})[0])

print("onnxruntime", onnxruntime.__version__)
print("kept from three runs:", [float(output[0]) for output in by_run])
print("kept from the binding:", [float(output[0]) for output in bound])
assert [float(output[0]) for output in by_run] == [1.0, 2.0, 3.0], "changed"
assert [float(output[0]) for output in bound] == [3.0, 3.0, 3.0], "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
