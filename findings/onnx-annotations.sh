#!/usr/bin/env bash
# Surprise: ONNX's multi-device annotations do not survive onnx's own tools, and its checker does not notice. The extraction of
#   a part keeps those of the nodes and drops the configurations that they name; the version converter drops all of them, and
#   the nodes' metadata with them. Inlining drops the annotations and the metadata of a call, and leaves the names of tensors
#   in the annotations of a function's nodes as they were before it renamed the tensors. onnxruntime keeps them when it writes
#   an optimised model.
# Library: onnx 1.23.2 and onnxruntime 1.32.0. Seen 2026-11-30.
# Product: `planner split` writes the configurations into each stage model, and renames tensors in annotations, too.
#   `planner.model.inlining` hands the annotations of calls on before functions are inlined. Annotations that name
#   something that is not there are refused, with what the model has.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.2.6

cat > "$folder/show.py" <<'PYTHON'
import sys

import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, inliner, version_converter
from onnx.utils import Extractor

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])


def annotated(node, stage):
    annotation = node.device_configurations.add(configuration_id="pair", pipeline_stage=stage)
    annotation.sharding_spec.add(tensor_name=node.output[0], device=[stage])
    node.metadata_props.add(key="layer_ann", value=f"part{stage}")
    return node


def model_of(nodes, functions=()):
    graph = helper.make_graph(nodes, "graph", [value("x")], [value("y")], value_info=[value("m")])
    model = helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=11)
    model.configuration.add(name="pair", num_devices=2)
    checker.check_model(model, full_check=True)
    return model


def kept(model):
    nodes = model.graph.node
    return (
        [each.name for each in model.configuration],
        [[each.pipeline_stage for each in node.device_configurations] for node in nodes],
        [[each.value for each in node.metadata_props] for node in nodes],
    )


plain = model_of([annotated(helper.make_node("Relu", ["x"], ["m"]), 0), annotated(helper.make_node("Neg", ["m"], ["y"]), 1)])
everything = (["pair"], [[0], [1]], [["part0"], ["part1"]])
assert kept(plain) == everything

part = Extractor(plain).extract_model(["x"], ["m"])
print("a part:", kept(part))
assert kept(part) == ([], [[0]], [["part0"]]), "changed"
checker.check_model(part, full_check=True)
print("the checker accepts a node that names a configuration that is gone")

converted = version_converter.convert_version(plain, 19)
print("converted:", kept(converted))
assert kept(converted) == ([], [[], []], [[], []]), "changed"

body = [annotated(helper.make_node("Relu", ["a"], ["t"]), 0), helper.make_node("Neg", ["t"], ["b"])]
function = helper.make_function("own", "Layer", ["a"], ["b"], body, OPSETS[:1])
called = model_of([annotated(helper.make_node("Layer", ["x"], ["y"], domain="own"), 1)], [function])
inlined = inliner.inline_local_functions(called)
named = inlined.graph.node[0].device_configurations[0].sharding_spec[0].tensor_name
print("inlined:", kept(inlined), "names tensor", named, "of node with output", inlined.graph.node[0].output[0])
assert kept(inlined) == (["pair"], [[0], []], [["part0"], []]), "changed"
assert named == "t" and "t" not in inlined.graph.node[0].output, "changed"
checker.check_model(inlined, full_check=True)

options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
options.optimized_model_filepath = sys.argv[1]
onnxruntime.InferenceSession(plain.SerializeToString(), options, providers=["CPUExecutionProvider"])
print("onnxruntime:", kept(onnx.load(sys.argv[1])))
assert kept(onnx.load(sys.argv[1])) == everything, "changed"
PYTHON

"$folder/venv/bin/python" -I "$folder/show.py" "$folder/optimised.onnx"
echo "as described"
