"""A chain of real block models that is small enough to be measured in a test, and its profiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, helper

from planner.model.axes import Axes
from planner.model.chain import Block, Chain, Cut, Exit, TensorSpec
from planner.model.functions import RuntimeNode, inline
from planner.model.kernels import NodeFacts, work_of
from planner.model.work import Work
from planner.profiling.types import BlockCost, ExitPoint, ModelReference, OperatingPoint, Profile, SegmentError

WIDTH = 32
SHA = "0" * 63


@dataclass(frozen=True)
class SmallModel:
    """``length`` blocks ``t[i+1] = relu(t[i] w)``; the input ``t0`` passes by all blocks, and the last one adds it."""

    length: int = 3
    single: str = "its first axis is fixed"

    @cached_property
    def chain(self) -> Chain:
        def spec(index: int) -> TensorSpec:
            return TensorSpec(f"t{index}", "float32", (1, WIDTH))

        cuts = [(spec(0),), *((spec(index), spec(0)) for index in range(1, self.length)), (spec(self.length),)]
        return Chain(
            name="small",
            model_sha256=SHA + "0",
            chain_sha256=SHA + str(self.length),
            blocks=tuple(
                Block(f"block{index}", 2, 2 * WIDTH**2, WIDTH**2, 4 * WIDTH**2, 12 * WIDTH)
                for index in range(self.length)
            ),
            cuts=tuple(Cut(index, tensors) for index, tensors in enumerate(cuts)),
            exits=(Exit("early", 1, 40),) if self.length > 1 else (),
        )

    @property
    def axes(self) -> Axes:
        return Axes({"batch": 1}, {})

    @property
    def runtime_nodes(self) -> dict[str, RuntimeNode]:
        model = onnx.load_model_from_string(self.model_bytes())
        return {
            node.output[0]: runtime for node, runtime in zip(model.graph.node, inline(model, "model")[1], strict=True)
        }

    def work(self, index: int) -> Work:
        sizes = {f"t{position}": (1, WIDTH) for position in range(self.length + 1)} | {"w": (WIDTH, WIDTH)}
        facts = NodeFacts(
            lookup=lambda name: sizes.get(name, (1, WIDTH)),
            size_bytes=lambda name: 4 * math.prod(sizes.get(name, (1, WIDTH))),
            flop=lambda node: 2.0 * WIDTH**2 if node.op_type == "MatMul" else float(WIDTH),
            is_free=lambda name: name == "w",
        )
        model = onnx.load_model_from_string(self.block_model(index))
        return work_of(model.graph.node, facts, border_bytes=8 * WIDTH)

    def block_model(self, index: int) -> bytes:
        return self.stage_model(index, index)

    def model_bytes(self) -> bytes:
        return self.stage_model(0, self.length - 1)

    def stage_model(self, first: int, last: int) -> bytes:
        nodes = []
        for index in range(first, last + 1):
            nodes.append(helper.make_node("MatMul", [f"t{index}", "w"], [f"m{index}"], name=f"mul{index}"))
            sums = [f"m{index}", "t0"] if index == self.length - 1 else [f"m{index}"]
            name = "Add" if len(sums) > 1 else "Relu"
            nodes.append(helper.make_node(name, sums, [f"t{index + 1}"], name=f"act{index}"))
        inputs = {f"t{first}"} | ({"t0"} if last == self.length - 1 else set())
        weight = np.eye(WIDTH, dtype=np.float32)
        graph = helper.make_graph(
            nodes,
            "stage",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in sorted(inputs)],
            [helper.make_tensor_value_info(f"t{last + 1}", TensorProto.FLOAT, [1, WIDTH])],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def profile(device_class: str = "here", scale: float = 1.0) -> Profile:
    """Return a profile of the chain of two blocks with an exit."""
    return Profile(
        model=ModelReference(name="small", sha256=SHA + "0"),
        chain_sha256=SHA + "2",
        device_class=device_class,
        provenance="measured",
        environment={"provider": "cpu", "threads": 1, "warnings": []},
        stage_overhead_s=1e-4 * scale,
        fusion_saving_s=(2e-5,),
        blocks=tuple(
            BlockCost(
                name=f"block{index}",
                mean_s=(index + 1) * 1e-3 * scale,
                std_s=1e-5,
                weight_bytes=4096,
                activation_bytes=384,
                flop=2048,
                parameters=1024,
                load_s=0.01,
            )
            for index in range(2)
        ),
        cut_bytes=(128, 256, 128),
        exits=(ExitPoint(name="early", cut=1, result_bytes=40),),
        operating_points=(OperatingPoint(name="half", accuracy=0.9, thresholds=(0.5,), reach=(1.0, 0.5)),),
        segment_error=SegmentError(median=0.02, p95=0.06, segments=2),
    )
