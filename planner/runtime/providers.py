"""Execution providers: short names for users, and the corresponding names and options of onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Final

from planner.errors import RuntimeSessionError
from planner.files import cache_folder

FULL_PRECISION: Final = "float32"

REFERENCE_PROVIDER: Final = "cpu"
"""The provider of the reference outputs, which every onnxruntime has."""


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Parameters
    ----------
    name
        Name for users.
    execution_providers
        Names in onnxruntime: the wanted provider first, then the fallbacks for operators that it lacks.
    device
        Device that keeps tensors between blocks, as named by onnxruntime's IO binding (``cuda``); None for host memory.
    options
        Options of the wanted provider.
    precision
        Precision in which it computes float32 operators, without being asked to.
    exact
        Name of a provider of the same device that computes them in float32; None if this one does.
    """

    name: str
    execution_providers: tuple[str, ...]
    device: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    precision: str = FULL_PRECISION
    exact: str | None = None

    @property
    def for_session(self) -> list[tuple[str, dict[str, str]]]:
        """Names and options in the form that a session accepts."""
        first, *others = self.execution_providers
        return [(first, dict(self.options)), *((name, {}) for name in others)]


_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_TENSORRT: Final = "TensorrtExecutionProvider"

# TensorRT takes minutes to build an engine on a Jetson, so engines are cached.
_ENGINES: Final = {
    "trt_engine_cache_enable": "1",
    "trt_engine_cache_path": str(cache_folder() / "tensorrt"),
}

PROVIDERS: Final = {
    provider.name: provider
    for provider in (
        Provider("cpu", (_CPU,)),
        # Both libraries use TF32 by default: float32 with ten bits of mantissa.
        Provider("cuda", (_CUDA, _CPU), device="cuda", precision="TF32", exact="cuda-fp32"),
        Provider("cuda-fp32", (_CUDA, _CPU), device="cuda", options={"use_tf32": "0"}),
        Provider(
            "tensorrt",
            (_TENSORRT, _CUDA, _CPU),
            device="cuda",
            options=_ENGINES,
            precision="TF32",
            exact="cuda-fp32",
        ),
        Provider(
            "tensorrt-fp16",
            (_TENSORRT, _CUDA, _CPU),
            device="cuda",
            options=_ENGINES | {"trt_fp16_enable": "1"},
            precision="float16",
            exact="cuda-fp32",
        ),
    )
}


@cache
def import_onnxruntime() -> ModuleType:
    """Import onnxruntime with its log level set to errors.

    Raises
    ------
    RuntimeSessionError
        If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeSessionError(
            f"onnxruntime cannot be imported ({error})",
            expected='`pip install "mdi-planner[cpu]"`, or the wheel of the device\'s vendor',
        ) from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime  # type: ignore[no-any-return]  # the library ships no types


def onnxruntime_version() -> str:
    """Return the version of the installed onnxruntime."""
    return str(import_onnxruntime().__version__)


def find_provider(name: str, offered: Sequence[str] | None = None) -> Provider:
    """Return the provider called ``name``.

    Parameters
    ----------
    name
        One of :data:`PROVIDERS`.
    offered
        Names of the providers that onnxruntime offers. By default, onnxruntime is queried.

    Raises
    ------
    RuntimeSessionError
        If the name is unknown, or this onnxruntime does not offer the provider.
    """
    if name not in PROVIDERS:
        raise RuntimeSessionError("unknown provider", where="provider", value=name, expected=" | ".join(PROVIDERS))
    if offered is None:
        offered = import_onnxruntime().get_available_providers()
    provider = PROVIDERS[name]
    if provider.execution_providers[0] not in offered:
        usable = [entry.name for entry in PROVIDERS.values() if entry.execution_providers[0] in offered]
        raise RuntimeSessionError(
            "this onnxruntime does not offer the provider", where="provider", value=name, expected=" | ".join(usable)
        )
    return provider
