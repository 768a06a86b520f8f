"""Sizes to suggest for open axes: what somebody who runs such a model would most likely set."""

from __future__ import annotations

import json
import re
from typing import Final

import onnx

from planner.model.axes import is_fixed

_IMAGE: Final = 224
"""Height and width of most image classifiers."""
_SEQUENCE: Final = 16
_METADATA: Final = ("imgsz", "input_size", "image_size")
"""Keys under which exporters note the size of images; Ultralytics writes ``imgsz: [640, 640]``."""

_BATCH: Final = re.compile(r"batch|^n$", re.IGNORECASE)
_IMAGE_SIDE: Final = re.compile(r"height|width|^[hw]$", re.IGNORECASE)
_ANONYMOUS: Final = re.compile(r"(.*_)?(unk|dim|axis|axes|dynamic|s)_*\d+", re.IGNORECASE)
"""Names that exporters number, such as ``unk__190`` of tf2onnx or ``s77`` of PyTorch: they say nothing."""
_LENGTH: Final = re.compile(r"seq|len|time|token|frame|past", re.IGNORECASE)
_CHANNELS: Final = frozenset({1, 3, 4})


def example_sizes(value: onnx.ValueInfoProto, model: onnx.ModelProto) -> list[int]:
    """Return a size for each axis of an input: those that are fixed, and plausible ones for the others."""
    dims = value.type.tensor_type.shape.dim
    if not value.type.tensor_type.HasField("shape"):
        return [1, 3, _IMAGE, _IMAGE]
    fixed = [dim.dim_value if is_fixed(dim) else None for dim in dims]
    names = ["" if _ANONYMOUS.fullmatch(dim.dim_param) else dim.dim_param for dim in dims]
    sides = _image_sides(fixed, names)
    image = dict.fromkeys(sides, _IMAGE) | dict(zip(sides, _noted_image(model), strict=False))
    if sides == [2, 3]:
        image[1] = 3
    return [image.get(axis, _other(axis, names[axis])) if size is None else size for axis, size in enumerate(fixed)]


def _image_sides(fixed: list[int | None], names: list[str]) -> list[int]:
    """Return the axes that are height and width: by name, or in a tensor with as many channels as an image."""
    named = [axis for axis, name in enumerate(names) if _IMAGE_SIDE.search(name)]
    if named or len(fixed) != 4:
        return named
    if fixed[1] in _CHANNELS:
        return [2, 3]
    return [1, 2] if fixed[3] in _CHANNELS else [2, 3] if fixed[1:] == [None] * 3 and not any(names[1:]) else []


def _noted_image(model: onnx.ModelProto) -> list[int]:
    """Return height and width as the exporter noted them; empty where it did not."""
    noted = {item.key.lower(): item.value for item in model.metadata_props}
    for text in (noted[key] for key in _METADATA if key in noted):
        try:
            sizes = json.loads(text)
        except ValueError:
            continue
        sizes = [sizes, sizes] if isinstance(sizes, int) else sizes
        if isinstance(sizes, list) and len(sizes) == 2 and all(isinstance(size, int) and size > 0 for size in sizes):
            return sizes
    return []


def _other(axis: int, name: str) -> int:
    if _BATCH.search(name) or (axis == 0 and not name):
        return 1
    return _SEQUENCE if _LENGTH.search(name) or not name else 1
