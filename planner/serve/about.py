"""What the service says of itself."""

from __future__ import annotations

from typing import Final

from planner.version import installed_version

SERVER: Final = "planner"
PLATFORM: Final = "onnxruntime_onnx"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository")


def metadata_version() -> str:
    """Return the version of the server."""
    return installed_version("mdi-planner")
