#!/usr/bin/env bash
# Surprise: onnxruntime follows a link to external data only if it leads below the folder of the model's path or, if the model
#   is a link too, below the folder of the file that it leads to. The cache of a hub, where both are links into one folder, is
#   read; a link to a file elsewhere is refused. onnx refuses all links to files, and even a hard link.
# Library: onnxruntime 1.32.0 with onnx 1.23.2. Seen 2026-11-30.
# Product: _external_fault in planner/model/source.py has onnxruntime's rule, and reads the data itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.2.6

export ORT_DISABLE_TELEMETRY=1
cat > "$folder/show.py" <<'PYTHON'
import os, sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

os.chdir(sys.argv[1])
DATA = np.eye(8, dtype=np.float32).tobytes()


def model(path, location="w.bin"):
    """Write a model whose weight is the file at `location`."""
    weight = TensorProto(name="w", dims=[8, 8], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(len(DATA)))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def data(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(DATA)


def link(path, target):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).symlink_to(Path(target).absolute())


def loads(load, path):
    try:
        load(path)
    except Exception:
        return False
    return True


def check(name, path, by_onnxruntime, by_onnx):
    found = (
        loads(lambda file: onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]), path),
        loads(onnx.load, path),
    )
    print(f"{name}: onnxruntime {found[0]}, onnx {found[1]}")
    assert found == (by_onnxruntime, by_onnx), "changed"


print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
model("plain/m.onnx"), data("plain/w.bin")
check("plain", "plain/m.onnx", True, True)
model("blobs/1"), data("blobs/2"), link("hub/m.onnx", "blobs/1"), link("hub/w.bin", "blobs/2")
check("both are links into one folder", "hub/m.onnx", True, False)
model("deep/m.onnx"), data("deep/a/b"), link("to-deep/m.onnx", "deep/m.onnx"), link("to-deep/w.bin", "deep/a/b")
check("the data below the model's target", "to-deep/m.onnx", True, False)
model("inside/m.onnx"), data("inside/real"), link("inside/w.bin", "inside/real")
check("a link inside the folder", "inside/m.onnx", True, False)
link("linked", "plain")
check("the folder is a link", "linked/m.onnx", True, True)
model("out/m.onnx"), link("out/w.bin", "plain/w.bin")
check("a link out of the folder", "out/m.onnx", False, False)
link("two/m.onnx", "out/m.onnx"), link("two/w.bin", "plain/w.bin")
check("both are links, into two folders", "two/m.onnx", False, False)
link("beside/m.onnx", "plain/m.onnx")
check("the data only beside the target", "beside/m.onnx", False, False)
model("round/m.onnx", "../round/w.bin"), data("round/w.bin")
check("out of the folder and back", "round/m.onnx", True, False)
model("up/a/m.onnx", "../w.bin"), data("up/w.bin")
check("..", "up/a/m.onnx", False, False)
model("hard/m.onnx"), os.link("plain/w.bin", "hard/w.bin")
check("a hard link", "hard/m.onnx", True, False)
PYTHON
mkdir "$folder/files"
"$folder/venv/bin/python" -I "$folder/show.py" "$folder/files" 2>/dev/null
echo "as described"
