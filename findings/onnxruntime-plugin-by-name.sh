#!/usr/bin/env bash
# Surprise: once a plug-in execution provider is registered, onnxruntime lists its name among the available providers. A session
#   that gets this name in `providers` runs on the CPU, without an error. It runs on the plug-in only if it gets the plug-in's
#   devices by `add_provider_for_devices`.
# Library: onnxruntime 1.32.0 with onnxruntime-ep-openvino 1.8.1, on an x86-64 processor. Seen 2026-12-01.
# Product: find_provider() in planner/runtime/providers.py looks for a plug-in first, and BlockSession hands its devices over; it
#   stops where the provider of a session is not the one that was asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

cat > "$folder/show.py" <<'PYTHON'
import onnxruntime
import onnxruntime_ep_openvino as plugin
from onnx import TensorProto, helper

NAME = plugin.get_ep_name()
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 64]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "product", values[:1], values[1:])
MODEL = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def used(options, **arguments):
    return onnxruntime.InferenceSession(MODEL, options, **arguments).get_providers()[0]


assert NAME not in onnxruntime.get_available_providers(), "changed: it is built in"
onnxruntime.register_execution_provider_library("plugin", plugin.get_library_path())
devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == NAME]
if not devices:
    raise SystemExit("the plug-in has no device on this machine, so nothing can be shown")
named = NAME in onnxruntime.get_available_providers()
by_name = used(onnxruntime.SessionOptions(), providers=[NAME])
options = onnxruntime.SessionOptions()
options.add_provider_for_devices(devices, {})
by_device = used(options)
print(f"onnxruntime {onnxruntime.__version__}: available: {named}; by name: {by_name}; by device: {by_device}")
assert (named, by_name, by_device) == (True, "CPUExecutionProvider", NAME), "changed"
PYTHON

"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnxruntime==1.32.0 onnxruntime-ep-openvino==1.8.1 onnx==1.23.2 numpy==2.2.6
ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" -I "$folder/show.py"
echo "as described"
