"""Execution providers: short names for users, and the corresponding names and options of onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from planner.errors import RuntimeSessionError
from planner.files import cache_folder
from planner.runtime import openvino
from planner.runtime.plugins import DEVICE_OPTION, Plugin, installed
from planner.version import installation

FULL_PRECISION: Final = "float32"

UNKNOWN_PRECISION: Final = "its own precision"

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
        Name of a provider of the same device that computes them in float32; None if this one does, or none is known.
    plugin
        The plug-in that brings it; None for one that is built into onnxruntime.
    graph_options
        Options by which it records runs and replays them, where no shape is open; empty if it cannot.
    """

    name: str
    execution_providers: tuple[str, ...]
    device: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    precision: str = FULL_PRECISION
    exact: str | None = None
    plugin: Plugin | None = None
    graph_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_calling_thread(self) -> bool:
        """Whether runs with one thread compute on the thread that calls, so that its processor time is their time."""
        return self.device is None and self.execution_providers[:1] == (_CPU,)

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

_GRAPH: Final = {"enable_cuda_graph": "1"}

PROVIDERS: Final = {
    provider.name: provider
    for provider in (
        Provider("cpu", (_CPU,)),
        # Both libraries use TF32 by default: float32 with ten bits of mantissa.
        Provider("cuda", (_CUDA, _CPU), device="cuda", precision="TF32", exact="cuda-fp32", graph_options=_GRAPH),
        Provider("cuda-fp32", (_CUDA, _CPU), device="cuda", options={"use_tf32": "0"}, graph_options=_GRAPH),
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
        *(
            Provider(name, (f"{library}ExecutionProvider", _CPU), precision=UNKNOWN_PRECISION)
            for name, library in (
                ("rocm", "ROCM"), ("migraphx", "MIGraphX"), ("coreml", "CoreML"), ("qnn", "QNN"),
                ("xnnpack", "Xnnpack"), ("openvino", "OpenVINO"),
            )
        ),
    )
}  # fmt: skip
"""The providers that an onnxruntime may have been built with."""

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    # On processors with AMX, OpenVINO computes float32 models in bfloat16 unless told otherwise.
    "openvino": {"precision": "bfloat16 where that is faster", "exact": "openvino-fp32"},
    "openvino-fp32": {"options": {openvino.CONFIG: openvino.FULL_PRECISION}, "precision": FULL_PRECISION},
}
"""What is known of plug-ins, by the name of the plug-in or of a variant of it."""


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
            expected=f"{installation('cpu')}, or the wheel of the device's vendor",
        ) from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime  # type: ignore[no-any-return]  # the library ships no types


def onnxruntime_version() -> str:
    """Return the version of the installed onnxruntime."""
    return str(import_onnxruntime().__version__)


def with_options(name: str, options: Sequence[str]) -> str:
    """Return the name of a provider with options: ``NAME?KEY=VALUE&KEY=VALUE``.

    Parameters
    ----------
    options
        ``KEY=VALUE`` each.

    Raises
    ------
    RuntimeSessionError
        If an option is none.
    """
    pairs = [option.partition("=")[::2] for option in options]
    for option, (key, value) in zip(options, pairs, strict=True):
        if not key or not value:
            raise RuntimeSessionError("not an option", where="--provider-option", value=option, expected="KEY=VALUE")
    return f"{name}?{urlencode(pairs)}" if pairs else name


def find_provider(name: str, offered: Sequence[str] | None = None) -> Provider:
    """Return the provider called ``name``.

    Parameters
    ----------
    name
        One of :data:`PROVIDERS`, or of a plug-in that is installed; see :func:`with_options` for options.
    offered
        Names of the providers that onnxruntime offers. By default, onnxruntime is queried.

    Raises
    ------
    RuntimeSessionError
        If the name is unknown, this onnxruntime does not offer the provider, or a plug-in cannot be loaded or has no
        device here.
    """
    plain, _, text = name.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    if offered is None:
        offered = import_onnxruntime().get_available_providers()
    # Once a plug-in is registered, onnxruntime names it among the providers it offers, but a session given that name
    # runs on the CPU.
    plugin = installed().get(plain) or installed().get(plain.removesuffix("-fp32") if plain in VARIANTS else "")
    if plugin is not None:
        kind = options.get(DEVICE_OPTION)
        plugin.devices(kind)
        known: dict[str, Any] = {"precision": UNKNOWN_PRECISION, **VARIANTS.get(plain, {})}
        return replace(
            Provider(name, (plugin.provider, _CPU), plugin=plugin, **known),
            options={**known.get("options", {}), **options},
        )
    built_in = PROVIDERS.get(plain)
    if built_in is not None and built_in.execution_providers[0] in offered:
        return _with(replace(built_in, name=name), options)
    usable = usable_providers(offered)
    if built_in is None and plain not in VARIANTS:
        raise RuntimeSessionError(
            "unknown provider",
            where="provider", value=plain, expected=f"{' | '.join(usable)}, or an installed onnxruntime-ep-NAME",
        )  # fmt: skip
    raise RuntimeSessionError(
        "this onnxruntime does not offer the provider", where="provider", value=plain, expected=" | ".join(usable)
    )


def _with(provider: Provider, options: Mapping[str, str]) -> Provider:
    """Return a provider with further options; one that turns recorded runs off or on is not passed on as it is."""
    others = {key: value for key, value in options.items() if key not in provider.graph_options}
    asked = {key: options[key] for key in provider.graph_options if key in options}
    recorded = {} if "0" in asked.values() else provider.graph_options
    return replace(provider, options={**provider.options, **others}, graph_options=recorded)


def usable_providers(offered: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of the providers that this onnxruntime offers, and of the plug-ins that are installed."""
    if offered is None:
        offered = import_onnxruntime().get_available_providers()
    built_in = [name for name, provider in PROVIDERS.items() if provider.execution_providers[0] in offered]
    variants = [name for name in VARIANTS if name.removesuffix("-fp32") in installed()]
    return tuple(dict.fromkeys((*built_in, *installed(), *variants)))
