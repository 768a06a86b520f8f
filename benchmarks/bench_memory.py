"""Memory of blocks: computed from the model against what onnxruntime takes, as the rise of the resident memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from planner.cli.output import print_table
from planner.model.architectures import gpt2
from planner.model.load import ChainModel, load_chain
from planner.model.reference import build_model
from planner.runtime.inputs import random_inputs
from planner.runtime.memory import BlockMemory, measure_memory
from planner.runtime.quantise import build_quantised
from planner.runtime.session import BlockSession

MIB: Final = 2**20
LEAST_BYTES: Final = MIB // 2
"""Smaller blocks are left out of the extremes: a session itself takes up to 0.2 MiB."""

NODES: Final = 4000
EQUAL_NODES: Final[dict[str, tuple[str, tuple[int, ...] | None]]] = {
    "Sigmoid": ("Sigmoid", None),
    "Softmax": ("Softmax", None),
    "MatMul by a constant": ("MatMul", (4, 4)),
    "Conv": ("Conv", (4, 4, 1, 1)),
}

BUILT: Final[dict[str, Callable[[Path], Path]]] = {
    "mobilenetv2": lambda path: build_model("mobilenetv2", path),
    "mobilenetv2-96": lambda path: build_model("mobilenetv2-96", path),
    "mobilenetv2-int8": lambda path: build_quantised("mobilenetv2-int8", path),
    "resnet50": lambda path: build_model("resnet50", path),
    "resnet56": lambda path: build_model("resnet56", path),
    "resnet56-exits": lambda path: build_model("resnet56-exits", path),
    "resnet56-int8": lambda path: build_quantised("resnet56-int8", path),
    "gpt2-small": lambda path: build_model("gpt2-small", path),
    "gpt2, 4 layers": lambda path: gpt2(path, layers=4, width=768, heads=12, vocabulary=5000, tokens=64),
}
PACKAGED: Final = {
    "magika": ("magika", "models/standard_v3_3/model.onnx", {"bytes": [1, 2048]}),
    "text-detector": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": [1, 3, 640, 640]}),
    "text-direction": (
        "rapidocr_onnxruntime",
        "models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"x": [1, 3, 48, 192]},
    ),
    "text-recogniser": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": [1, 3, 48, 320]}),
}


def run() -> None:
    """Print the ratios of computed to measured memory."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(name, model) for name, model in _models(Path(folder))]
    print_table(
        "Memory computed from the model, relative to what onnxruntime takes (a session alone takes up to 0.3 MiB)",
        ("model", ">weights MiB", ">said / held", ">least", ">most", ">peak MiB", ">said / peak", ">least", ">most"),
        rows,
    )

    print_table(
        f"Memory that a session takes for each of {NODES:,} equal nodes, beside its weights",
        ("node", ">KiB"),
        [(name, f"{_node_bytes(*node) / 1024:.1f}") for name, node in EQUAL_NODES.items()],
    )


def _node_bytes(operator: str, weight: tuple[int, ...] | None) -> float:
    """Return the memory of a node in a chain of nodes that are all alike, in bytes."""
    shape = (1, 4, 4, 4) if operator == "Conv" else (4, 4)
    names = ["w"] if weight else []
    nodes, weights = [], []
    for index in range(NODES):
        own = [f"{name}{index}" for name in names]
        nodes.append(helper.make_node(operator, [f"x{index}", *own], [f"x{index + 1}"]))
        weights += [numpy_helper.from_array(np.full(weight or (), 0.5, np.float32), name) for name in own]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{NODES}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    memory = measure_memory(model.SerializeToString(), {"x0": np.zeros(shape, np.float32)})
    if memory is None:
        raise RuntimeError("this system does not let a process reset its high-water mark")
    return (memory.held_bytes - sum(len(tensor.raw_data) for tensor in weights)) / NODES


def _models(folder: Path) -> Iterator[tuple[str, ChainModel]]:
    for name, build in BUILT.items():
        yield name, load_chain(build(folder / "model.onnx"))
    for name, (package, file, shape) in PACKAGED.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            yield name, load_chain(Path(spec.origin).parent / file, shape=shape)


def _row(name: str, model: ChainModel) -> tuple[str, ...]:
    measured = _measure(model)
    blocks = model.chain.blocks
    weights = [(block.weight_bytes, memory.held_bytes) for block, memory in zip(blocks, measured, strict=True)]
    peaks = [(block.activation_bytes, memory.peak_bytes) for block, memory in zip(blocks, measured, strict=True)]
    held, peak = (sum(pair[1] for pair in weights), max(pair[1] for pair in peaks))
    return (
        name,
        f"{held / MIB:.1f}",
        f"{sum(pair[0] for pair in weights) / held:.2f}",
        *_extremes(weights),
        f"{peak / MIB:.1f}",
        f"{max(pair[0] for pair in peaks) / peak:.2f}",
        *_extremes(peaks),
    )


def _measure(model: ChainModel) -> list[BlockMemory]:
    """Return the memory of each block, after sessions of all of them have run once."""
    tensors = random_inputs(model.chain.cuts[0].tensors, np.random.default_rng(0))
    crossing = [tensors]
    for index in range(len(model.chain)):
        crossing.append(crossing[-1] | BlockSession(model.block_model(index)).run(crossing[-1]))
    measured = []
    for index, cut in enumerate(model.chain.cuts[:-1]):
        passing = [tensor.name for tensor in cut.tensors]
        measured.append(measure_memory(model.block_model(index), crossing[index], passing=passing))
    if None in measured:
        raise RuntimeError("this system does not let a process reset its high-water mark")
    return [memory for memory in measured if memory is not None]


def _extremes(pairs: list[tuple[int, int]]) -> tuple[str, str]:
    """Return the smallest and the largest ratio among blocks that are not tiny."""
    ratios = [said / held for said, held in pairs if held >= LEAST_BYTES]
    return (f"{min(ratios):.2f}", f"{max(ratios):.2f}") if ratios else ("-", "-")


if __name__ == "__main__":
    run()
