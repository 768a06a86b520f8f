"""Work of a block by kind of operator: what its time on a device follows from. Plain data, independent of onnx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from planner.base import FrozenModel

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]

TERMS: Final = ("kernels", "flop", "activation_bytes", "weight_bytes")
"""Terms of the time of a kind of operator: launching its kernels, computing, and moving activations and weights."""

KINDS: Final = (
    "convolution",
    "pointwise_convolution",
    "first_convolution",
    "depthwise_convolution",
    "grouped_convolution",
    "grouped_pointwise_convolution",
    "transposed_convolution",
    "matrix_product",
    "vector_product",
    "activation_product",
    "quantised_product",
    "recurrent",
    "attention",
    "normalisation",
    "local_normalisation",
    "pooling",
    "reduction",
    "softmax",
    "error_function",
    "function",
    "elementwise",
    "fused",
    "transpose",
    "resize",
    "move",
    "border",
)
"""Kinds of operators, each with a speed of its own.

``pointwise`` kernels have one element, a ``first_convolution`` few input channels. ``matrix_product`` has weights,
``vector_product`` too but few rows, so that reading the weights takes its time; ``activation_product`` has none.
``error_function`` includes Gelu, ``function`` other transcendental functions. ``fused`` is computed in the kernel
before it. ``border`` passes the block's inputs and outputs, which change their layout in a block with convolutions.
"""


class KernelWork(FrozenModel):
    """Work of all operators of a kind in a block."""

    kernels: Amount
    """Number of operators that are launched."""
    flop: Amount
    activation_bytes: Amount
    """Activations read and written."""
    weight_bytes: Amount
    """Weights read."""


Work = Mapping[str, KernelWork]
"""Work of a block by kind of operator (:data:`KINDS`)."""
