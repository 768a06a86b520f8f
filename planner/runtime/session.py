"""One block, one onnxruntime session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.providers import Provider, find_provider, import_onnxruntime

DeviceTensor = Any
"""A tensor in a device's memory (``onnxruntime.OrtValue``; the library ships no types)."""

ANY_LENGTH: Final = -1
"""Length of an axis that the model leaves open."""

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
} | {f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


class BlockSession:
    """An onnxruntime session over a block model, checked at its border.

    Parameters
    ----------
    model
        Serialised ONNX model, or the file it lies in.
    name
        What a message calls the model; its file, if it lies in one, by default.
    provider
        ``cpu``, ``cuda``, ``tensorrt`` or ``tensorrt-fp16``, or a :class:`Provider`.
    threads
        How many threads one run may use. They do not spin while they wait, because several agents may share a machine.
    optimise
        Whether onnxruntime may rewrite the graph. Without it block models chained give bit-equal outputs.
    arena
        Whether onnxruntime may keep memory for the next run, of this session or another one. It is faster so, for a
        block then writes where the block before has left the caches warm; without it memory can be measured.

    Raises
    ------
    RuntimeSessionError
        onnxruntime is absent, lacks the provider, or refuses the model.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        name: str = "",
        provider: str | Provider = "cpu",
        threads: int = 1,
        optimise: bool = True,
        arena: bool = True,
    ) -> None:
        if threads < 1:
            raise RuntimeSessionError("too few threads", where="threads", value=threads, expected="1 or more")
        self._library = import_onnxruntime()
        self.provider = find_provider(provider) if isinstance(provider, str) else provider
        where = self._where = name or (str(model) if isinstance(model, Path) else "block model")
        try:
            self._session = self._library.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                self._options(threads, optimise=optimise, arena=arena),
                providers=self.provider.for_session,
            )
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise RuntimeSessionError(f"onnxruntime refuses the model: {_first_line(error)}", where=where) from error
        self._refuse_fallback(where)
        self.inputs = tuple(_spec(argument, where) for argument in self._session.get_inputs())
        self.outputs = tuple(_spec(argument, where) for argument in self._session.get_outputs())
        self.input_names = tuple(spec.name for spec in self.inputs)
        self.output_names = tuple(spec.name for spec in self.outputs)
        # Made once: making them anew for each run costs small blocks a few per cent.
        self._outputs = list(self.output_names)
        self._run_options = self._library.RunOptions()
        self._run_options.log_severity_level = 4  # what is raised need not be told a second time

    def _options(self, threads: int, *, optimise: bool, arena: bool) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = arena
        options.enable_mem_pattern = arena
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if arena:
            _share_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
        level = self._library.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        return options

    def _refuse_fallback(self, where: str) -> None:
        # onnxruntime falls back to the CPU in silence when a provider's libraries do not load.
        wanted, got = self.provider.execution_providers[0], self._session.get_providers()[0]
        if got != wanted:
            raise RuntimeSessionError(
                f"{wanted} did not start, its libraries may be missing", where=where, value=got, expected=wanted
            )

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the block on tensors in the host's memory.

        Parameters
        ----------
        tensors
            By name; those that the block does not need are left alone.

        Returns
        -------
        dict
            What the block makes, by name.

        Raises
        ------
        RuntimeSessionError
            An input is missing, has another dtype or shape, or onnxruntime fails.
        """
        # onnxruntime checks its inputs, and a small block notices a second check: that one only explains a failure.
        try:
            needed = {name: tensors[name] for name in self.input_names}
            if self.provider.device is None:
                made = self._session.run(self._outputs, needed, self._run_options)
                return dict(zip(self._outputs, made, strict=True))
            return download(self._run_bound(upload(needed, self.provider)))
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            found = (tensor_fault(spec, tensors.get(spec.name)) for spec in self.inputs)
            faults = [
                replace(fault, what=f"{fault.where}: {fault.what}", where=self._where) for fault in found if fault
            ]
            raise (RuntimeSessionError(faults) if faults else self._failure(error)) from error

    def run_on_device(self, tensors: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Run the block on tensors in the device's memory (see :func:`upload`), where its outputs stay."""
        try:
            return self._run_bound(tensors)
        except Exception as error:  # as above
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> RuntimeSessionError:
        return RuntimeSessionError(f"onnxruntime fails to run the block: {_first_line(error)}", where=self._where)

    def _run_bound(self, tensors: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        binding = self._session.io_binding()
        for name in self.input_names:
            binding.bind_ortvalue_input(name, tensors[name])
        for name in self.output_names:
            binding.bind_output(name, self.provider.device)
        self._session.run_with_iobinding(binding, self._run_options)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


@cache
def _share_arena() -> None:
    """Make the one arena of host memory that the sessions of this process share."""
    library = import_onnxruntime()
    kind, default = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR, library.OrtMemType.DEFAULT
    library.create_and_register_allocator(library.OrtMemoryInfo("Cpu", kind, 0, default), None)


def upload(tensors: Mapping[str, NDArray[Any]], provider: Provider) -> dict[str, DeviceTensor]:
    """Copy tensors into the memory of the provider's device."""
    make = import_onnxruntime().OrtValue.ortvalue_from_numpy
    # ascontiguousarray makes a scalar an array of one element.
    return {
        name: make(np.ascontiguousarray(tensor).reshape(tensor.shape), provider.device)
        for name, tensor in tensors.items()
    }


def download(tensors: Mapping[str, DeviceTensor]) -> dict[str, NDArray[Any]]:
    """Copy tensors from a device into the host's memory."""
    # Of what lies there already numpy() gives a view, which does not keep alive the array it was uploaded from.
    return {
        name: tensor.numpy().copy() if tensor.device_name() == "cpu" else tensor.numpy()
        for name, tensor in tensors.items()
    }


def _spec(argument: Any, where: str) -> TensorSpec:
    if argument.type not in _DTYPES:
        raise RuntimeSessionError(
            "a tensor type that numpy lacks", where=f"{where}, {argument.name}", value=argument.type
        )
    shape = tuple(length if isinstance(length, int) else ANY_LENGTH for length in argument.shape)
    return TensorSpec(argument.name, _DTYPES[argument.type], shape)


def tensor_fault(spec: TensorSpec, tensor: NDArray[Any] | None) -> Fault | None:
    """Say what is wrong with an input; None when it fits."""
    where = f"input {spec.name}"
    if tensor is None:
        return Fault("input is missing", where, expected=f"{spec.dtype} {list(spec.shape)}")
    if tensor.dtype.name != spec.dtype:
        return Fault("wrong dtype", where, tensor.dtype.name, spec.dtype)
    # onnxruntime gives no shape, as for a scalar, where the rank is open.
    if spec.shape and not _fits(tensor.shape, spec.shape):
        return Fault("wrong shape", where, list(tensor.shape), str(list(spec.shape)))
    return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (ANY_LENGTH, length) for length, want in zip(shape, wanted, strict=True)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
