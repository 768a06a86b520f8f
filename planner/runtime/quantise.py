"""Int8 variants of reference models, created with onnxruntime's quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import ModelError
from planner.files import write_bytes_atomic
from planner.model.reference import REFERENCE, build_model
from planner.runtime.providers import import_onnxruntime

QUANTISED: Mapping[str, str] = MappingProxyType({"mobilenetv2-int8": "mobilenetv2", "resnet56-int8": "resnet56"})
CALIBRATION_SAMPLES = 4


class _RandomCalibration:
    """Random calibration samples, which suffice for random weights; a real model needs real samples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self._samples: Iterator[NDArray[Any]] = iter(rng.standard_normal((CALIBRATION_SAMPLES, *shape), np.float32))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next sample, or None after the last one."""
        sample = next(self._samples, None)
        return None if sample is None else {"input": sample}


def build_quantised(name: str, path: Path) -> Path:
    """Write the int8 variant ``name`` of a reference model, with QuantizeLinear and DequantizeLinear pairs.

    Raises
    ------
    ModelError
        If the name is unknown.
    RuntimeSessionError
        If onnxruntime is missing.
    """
    if name not in QUANTISED:
        raise ModelError("unknown int8 variant", value=name, expected=f"one of {', '.join(QUANTISED)}")
    library = import_onnxruntime()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    original = QUANTISED[name]
    with tempfile.TemporaryDirectory() as folder:
        plain, folded, quantised = (Path(folder) / f"{step}.onnx" for step in ("plain", "folded", "quantised"))
        build_model(original, plain)
        # Fold batch normalisation into the convolutions first; otherwise it would remain in floating point.
        options = library.SessionOptions()
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 3
        library.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
        logging.disable(logging.WARNING)  # the quantiser recommends the preprocessing that was just done
        try:
            quantize_static(
                folded,
                quantised,
                _RandomCalibration(REFERENCE[original].input_shape),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(logging.NOTSET)
        write_bytes_atomic(path, quantised.read_bytes())
    return path
