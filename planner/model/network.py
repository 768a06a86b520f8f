"""A small builder of ONNX graphs with seeded random weights, for the reference models.

Weights are drawn so that activations keep their scale from layer to layer. The last normalisation of a residual branch
is scaled down; otherwise random logits grow rapidly with depth and absolute tolerances become meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from planner.files import write_bytes_atomic


class ModelBuilder:
    """Builder of a graph; each layer method adds a layer and returns the name of its output tensor.

    Parameters
    ----------
    name
        Name of the graph.
    opset
        Version of the ONNX operator set.
    seed
        Seed of the random stream from which all weights are drawn.
    """

    def __init__(self, name: str, *, opset: int = 13, seed: int = 0) -> None:
        self._graph = onnx.GraphProto(name=name)
        self._opset = opset
        self._random = np.random.default_rng(seed)
        self._channels: dict[str, int] = {}
        self._domains: set[str] = set()

    def input(self, name: str, shape: Sequence[int | str], element: int = TensorProto.FLOAT) -> str:
        """Add a model input; a name in ``shape`` denotes a dynamic axis."""
        self._graph.input.append(helper.make_tensor_value_info(name, element, shape))
        if len(shape) == 4:
            self._channels[name] = int(shape[1])
        return name

    def output(self, name: str, tensor: str, shape: Sequence[int | str]) -> None:
        """Add a model output ``name`` that holds ``tensor``."""
        self._graph.node.append(helper.make_node("Identity", [tensor], [name], name=name))
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a weight or constant under a unique name."""
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, shape: Sequence[int], std: float) -> str:
        """Add a weight of normally distributed float32 values."""
        return self.constant(name, self.drawn(shape, std))

    def drawn(self, shape: Sequence[int], std: float) -> NDArray[np.float32]:
        """Return normally distributed values, the next of the random stream."""
        return self._random.standard_normal(tuple(shape), dtype=np.float32) * np.float32(std)

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, which has the node's name."""
        return self.nodes(operator, inputs, [name], **attributes)[0]

    def nodes(self, operator: str, inputs: Sequence[str], names: Sequence[str], **attributes: Any) -> Sequence[str]:
        """Add a node with the outputs ``names``; the first is also the node's name."""
        self._graph.node.append(helper.make_node(operator, inputs, names, name=names[0], **attributes))
        return names

    def product_4bit(self, x: str, name: str, weight: NDArray[np.float32], block: int) -> str:
        """Add a product with a weight (rows, columns) that is held in 4 bits, with a scale for each block of rows.

        (``com.microsoft::MatMulNBits``)
        """
        rows, columns = weight.shape
        blocks = -(-rows // block)
        padded = np.zeros((columns, blocks * block), np.float32)
        padded[:, :rows] = weight.T
        grouped = padded.reshape(columns, blocks, block)
        scales = np.maximum(np.abs(grouped).max(axis=-1), np.float32(1e-12)) / np.float32(7)
        steps = (np.clip(np.rint(grouped / scales[..., None]), -8, 7) + 8).astype(np.uint8)
        packed = steps[..., 0::2] | steps[..., 1::2] << 4
        given = [x, self.constant(f"{name}.weight", packed), self.constant(f"{name}.scales", scales)]
        shape = {"K": rows, "N": columns, "bits": 4, "block_size": block}
        self._domains.add("com.microsoft")
        return self.node("MatMulNBits", given, name, domain="com.microsoft", **shape)

    def conv(self, x: str, name: str, channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> str:
        """Add a convolution without bias, padded so that stride 1 keeps the size."""
        inner = self._channels[x] // groups
        weight = self.weight(f"{name}.weight", (channels, inner, kernel, kernel), (2 / (inner * kernel**2)) ** 0.5)
        self._channels[name] = channels
        pad = kernel // 2
        return self.node(
            "Conv",
            [x, weight],
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=groups,
        )

    def batch_norm(self, x: str, name: str, *, gamma: float = 1.0) -> str:
        """Add a batch normalisation in inference mode, with small random shifts and statistics."""
        channels = self._channels[name] = self._channels[x]
        small = self._random.uniform(-0.1, 0.1, (3, channels)).astype(np.float32)
        values = {
            "gamma": np.full(channels, gamma, np.float32),
            "beta": small[0],
            "mean": small[1],
            "var": 1 + small[2],
        }
        return self.node(
            "BatchNormalization", [x, *(self.constant(f"{name}.{key}", array) for key, array in values.items())], name
        )

    def follow(self, name: str, channels: int) -> str:
        """Record the number of channels of a tensor added by :meth:`node`, and return its name."""
        self._channels[name] = channels
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a model input with fixed axes."""
        value = next(value for value in self._graph.input if value.name == name)
        return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)

    def split(self, x: str, name: str, parts: int) -> list[str]:
        """Split the last axis into equal parts."""
        outputs = [f"{name}.{part}" for part in range(parts)]
        self._graph.node.append(helper.make_node("Split", [x], outputs, name=name, axis=-1, num_outputs=parts))
        return outputs

    def relu(self, x: str, name: str) -> str:
        """Add a ReLU."""
        self._channels[name] = self._channels[x]
        return self.node("Relu", [x], name)

    def add(self, x: str, y: str, name: str) -> str:
        """Add a residual sum."""
        self._channels[name] = self._channels[x]
        return self.node("Add", [x, y], name)

    def classify(self, x: str, name: str, classes: int) -> str:
        """Add global average pooling and a fully connected layer."""
        channels = self._channels[x]
        pooled = self.node("Flatten", [self.node("GlobalAveragePool", [x], f"{name}.pool")], f"{name}.flat")
        weight = self.weight(f"{name}.weight", (classes, channels), channels**-0.5)
        bias = self.weight(f"{name}.bias", (classes,), 0.01)
        return self.node("Gemm", [pooled, weight, bias], f"{name}.fc", transB=1)

    def save(self, path: Path) -> Path:
        """Write the model to ``path``, and return ``path``."""
        ir_version = 8 if self._opset <= 20 else 11
        model = onnx.ModelProto(ir_version=ir_version, producer_name="planner", graph=self._graph)
        model.opset_import.append(helper.make_opsetid("", self._opset))
        model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted(self._domains))
        write_bytes_atomic(path, model.SerializeToString(deterministic=True))
        return path
