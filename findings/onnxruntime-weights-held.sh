#!/usr/bin/env bash
# Surprise: a weight can take a multiple of its size in the file. A sparse tensor is held densely; an embedding that is also
#   a layer's weight is held twice, in its own order and in the product's; a weight in the body of an If or a Loop is held
#   three times: in the node's attribute, in the body and in the product's order.
# Library: onnxruntime 1.32.0. Seen 2026-11-30.
# Product: planner/model/weights.py counts weights in this way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6

cat > "$folder/show.py" <<'PYTHON'
import ctypes, re
from pathlib import Path
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIZE, MIB = 1024, 2**20  # a weight takes 4 MiB
node = helper.make_node
values = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
weight = numpy_helper.from_array(values, "w")
places = np.arange(0, SIZE * SIZE, 100)
sparse = helper.make_sparse_tensor(
    numpy_helper.from_array(np.ones(len(places), np.float32), "w"), numpy_helper.from_array(places, "p"), [SIZE, SIZE]
)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, weights=(), sparse=(), inputs=()):
    graph = helper.make_graph(
        nodes, "g", [value("x", [1, SIZE]), *inputs], [value("y", [1, SIZE])], weights, sparse_initializer=sparse
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


product = node("MatMul", ["x", "w"], ["y"])
then = helper.make_graph([node("MatMul", ["x", "w"], ["t"])], "then", [], [value("t", [1, SIZE])], [weight])
other = helper.make_graph([node("Neg", ["x"], ["n"])], "else", [], [value("n", [1, SIZE])])
MODELS = {
    "dense": (model([product], [weight]), 1),
    "sparse, 1 % not zero": (model([product], sparse=[sparse]), 1),
    "embedding and layer": (
        model(
            [node("Gather", ["w", "i"], ["e"]), node("Add", ["x", "e"], ["s"]), node("MatMul", ["s", "w"], ["y"])],
            [weight],
            inputs=[value("i", [1], TensorProto.INT64)],
        ),
        2,
    ),
    "in the body of an If": (
        model(
            [
                node("ReduceMax", ["x"], ["m"], keepdims=0),
                node("Greater", ["m", "zero"], ["c"]),
                node("If", ["c"], ["y"], then_branch=then, else_branch=other),
            ],
            [numpy_helper.from_array(np.array(0, np.float32), "zero")],
        ),
        3,
    ),
}


def resident():
    ctypes.CDLL(None).malloc_trim(0)
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def session(data):
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


session(MODELS["dense"][0])  # the first session also allocates what all sessions share
print(f"onnxruntime {onnxruntime.__version__}, a weight of 4 MiB")
for name, (data, copies) in MODELS.items():
    before = resident()
    kept = session(data)
    held = resident() - before
    print(f"{name}: {len(data) / MIB:.1f} MiB in the file, {held / MIB:.1f} MiB held")
    assert abs(held - copies * 4 * MIB) < MIB, "changed"
    del kept
PYTHON
"$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
