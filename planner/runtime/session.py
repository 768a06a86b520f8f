"""Run a block in an onnxruntime session."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import SEQUENCE, TensorSpec
from planner.runtime import openvino
from planner.runtime.arrays import native
from planner.runtime.graph_runs import (
    COPIES_SINCE,
    GRAPH_ID,
    PLAIN,
    GraphRuns,
    can_record,
    copies_on_device,
    say_plain,
)
from planner.runtime.plugins import DEVICE_OPTION
from planner.runtime.providers import Provider, find_provider, import_onnxruntime
from planner.runtime.state import KeptStates, SequenceStates, StateError, state_of
from planner.units import format_quantity

DeviceTensor = Any
"""A tensor in a device's memory (``onnxruntime.OrtValue``; the library ships no types)."""

ANY_LENGTH: Final = -1
"""Length of a dynamic axis."""

SESSION_CONFIG: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Threads do not spin while they wait, because several agents may share a machine.
        "session.intra_op.allow_spinning": "0",
        # Products with block-wise quantised weights keep float32 activations. By default, onnxruntime rounds them to
        # int8, but only in the layers that it fuses, which are not the same in a block as in the whole model.
        "session.qdq_matmulnbits_accuracy_level": "1",
    }
)
"""Configuration of every session, of blocks and of whole models, because it affects times and results."""

_WASTE_BYTES: Final = 2**14
"""By how much a piece of the shared arena may exceed the tensor in it. By default a piece may be twice as large, and
the state of a sequence keeps its pieces for long."""

_NO_ROOM: Final = re.compile(
    r"Failed to allocate memory for requested buffer of size (?P<bytes>\d+)|CUDA\b.{0,60}out of memory",
    re.IGNORECASE,
)
"""What onnxruntime's arenas, and CUDA, say then."""

_NODE: Final = re.compile(r"\bnode\b", re.IGNORECASE)

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
} | {f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


class BlockRunError(RuntimeSessionError):
    """onnxruntime accepted a block's inputs, but failed to run the block on them."""


class BlockSession:
    """An onnxruntime session for a block model, with clear errors for invalid inputs.

    Parameters
    ----------
    model
        Serialised ONNX model, or its file.
    name
        Name of the model in messages. Defaults to its file, if any.
    provider
        A name of :data:`~planner.runtime.providers.PROVIDERS`, or a :class:`Provider`.
    threads
        Number of threads that a run may use.
    optimise
        Whether onnxruntime may optimise the graph. Without optimisation, chained block models give bit-equal outputs.
    shared_arena
        Whether the session keeps memory for the next run together with the other sessions of this process. This is
        faster, because a block then writes to memory that the previous block left in the caches. Disable it to measure
        memory: the session then has an arena of its own, with nothing in it but what runs need.
    config
        Further configuration entries of onnxruntime, in addition to ``SESSION_CONFIG``.
    show_state
        Whether a run in host memory returns the state after it, too.
    trace
        Begin of the name of a file to which onnxruntime writes the time of every node; see :meth:`end_trace`.
    kept
        State of sequences that the block continues; by default none.

    Raises
    ------
    RuntimeSessionError
        If onnxruntime is missing, lacks the provider or rejects the model.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        name: str = "",
        provider: str | Provider = "cpu",
        threads: int = 1,
        optimise: bool = True,
        shared_arena: bool = True,
        config: Mapping[str, str] = SESSION_CONFIG,
        show_state: bool = False,
        trace: Path | None = None,
        kept: KeptStates | None = None,
    ) -> None:
        if threads < 1:
            raise RuntimeSessionError("too few threads", where="threads", value=threads, expected="1 or more")
        self._library = import_onnxruntime()
        self.provider = find_provider(provider) if isinstance(provider, str) else provider
        where = self._where = name or (str(model) if isinstance(model, Path) else "block model")
        options = self._options(threads, {**SESSION_CONFIG, **config}, optimise=optimise, shared_arena=shared_arena)
        if trace is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(trace)
        records = trace is None and self._may_record()  # a recorded run has no times of nodes
        try:
            self._session, records = self._open(model, options, threads, records=records)
        except RuntimeSessionError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise (
                _no_room(error, where)
                or RuntimeSessionError(f"onnxruntime rejects the model: {_reason(error)}", where=where)
            ) from error
        self._check_fallback(where)
        pairs = state_of(self._session.get_modelmeta().custom_metadata_map)
        self.state = pairs
        self._states = SequenceStates(pairs, self._place, kept) if pairs else None
        self._show_state = show_state
        state = {name for pair in pairs for name in (pair.before.name, pair.after)}
        inputs = tuple(_spec(argument, where) for argument in self._session.get_inputs())
        outputs = tuple(_spec(argument, where) for argument in self._session.get_outputs())
        self.inputs = tuple(spec for spec in inputs if spec.name not in state) + ((SEQUENCE,) if pairs else ())
        self.outputs = tuple(spec for spec in outputs if spec.name not in state)
        self.input_names = tuple(spec.name for spec in self.inputs)
        self.output_names = tuple(spec.name for spec in self.outputs)
        # Created once: creating them for each run costs a few per cent of the time of a small block.
        self._inputs, self._outputs = [spec.name for spec in inputs], [spec.name for spec in outputs]
        self._run_options = self._library.RunOptions()
        self._run_options.log_severity_level = 4  # errors are raised, so they need not be logged, too
        self._graph = self._recorded(inputs, outputs) if records else None

    def _options(self, threads: int, config: Mapping[str, str], *, optimise: bool, shared_arena: bool) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in config.items():
            options.add_session_config_entry(key, value)
        if shared_arena:
            _share_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
        else:
            options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        # A pattern is one large piece for all tensors of a run. The arena cannot make it of the pieces that the first
        # run has left, so it would keep both: up to 1.7 times the memory, for no gain in time.
        options.enable_mem_pattern = False
        level = self._library.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
        return options

    def _open(self, model: bytes | Path, options: Any, threads: int, *, records: bool) -> tuple[Any, bool]:
        """Return a session, and whether it may record runs, if it was to."""
        given = str(model) if isinstance(model, Path) else model
        refusal: Exception | None = None
        if records:
            recording = replace(self.provider, options={**self.provider.options, **self.provider.graph_options})
            try:
                return self._library.InferenceSession(given, options, providers=recording.for_session), True
            except Exception as error:  # noqa: BLE001 - said below, unless the model is at fault
                refusal = error
        session = self._library.InferenceSession(given, options, **self._providers(options, threads))
        if refusal is not None:
            say_plain(self._where, _reason(refusal))
        return session, False

    @property
    def records(self) -> bool:
        """Whether its runs are recorded and replayed, as far as is known."""
        return self._graph is not None and self._graph.on

    def _may_record(self) -> bool:
        """Return whether runs are to be recorded, as far as is known before there is a session."""
        if not self.provider.graph_options:
            return False
        if not copies_on_device(version := str(self._library.__version__)):
            say_plain(self._where, f"onnxruntime {version} is older than {'.'.join(map(str, COPIES_SINCE))}")
            return False
        return True

    def _recorded(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> GraphRuns | None:
        """Return the recorded runs of a session that may record; None, and plain runs from now on, if it cannot."""
        if self.state or not can_record([*inputs, *outputs]):
            self._run_options.add_run_config_entry(GRAPH_ID, PLAIN)
            return None
        recorded = self._library.RunOptions()
        recorded.log_severity_level = 4
        plain = self._run_options
        plain.add_run_config_entry(GRAPH_ID, PLAIN)
        return GraphRuns(
            self._library, self._session, inputs, outputs, device=self.provider.device or "cpu", options=recorded,
            plain_options=plain, where=self._where,
        )  # fmt: skip

    def _providers(self, options: Any, threads: int) -> dict[str, Any]:
        """Add the devices of a plug-in to the options of a session; return what else says where the session runs."""
        provider = self.provider
        if provider.plugin is None:
            return {"providers": provider.for_session}
        own = {key: value for key, value in provider.options.items() if key != DEVICE_OPTION}
        if provider.plugin.name == "openvino":
            own = openvino.with_threads(own, threads)
        options.add_provider_for_devices(provider.plugin.devices(provider.options.get(DEVICE_OPTION)), own)
        return {}

    def end_trace(self) -> Path:
        """Return the file with the times of the nodes in all runs so far, and write no more."""
        return Path(self._session.end_profiling())

    def _check_fallback(self, where: str) -> None:
        # onnxruntime silently falls back to the CPU if a provider's libraries cannot be loaded.
        wanted, got = self.provider.execution_providers[0], self._session.get_providers()[0]
        if got != wanted:
            raise RuntimeSessionError(
                f"{wanted} did not start; its libraries may be missing", where=where, value=got, expected=wanted
            )

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the block on tensors in host memory.

        Parameters
        ----------
        tensors
            Tensors by name; those that the block does not need are ignored.

        Returns
        -------
        dict
            Outputs of the block, by name.

        Raises
        ------
        RuntimeSessionError
            If an input is missing or has the wrong dtype or shape, or onnxruntime fails.
        """
        # onnxruntime checks its inputs. A second check would slow down small blocks, so it only explains failures.
        try:
            if self._states is not None:
                return self._run_with_state(tensors, self._states)
            needed = {name: native(tensors[name]) for name in self._inputs}
            if self.provider.device is None:
                made = self._session.run(self._outputs, needed, self._run_options)
                return dict(zip(self._outputs, made, strict=True))
            return download(self._run_bound(needed))
        except StateError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            candidates = (tensor_fault(spec, tensors.get(spec.name)) for spec in self.inputs)
            faults = [
                replace(fault, what=f"{fault.where}: {fault.what}", where=self._where) for fault in candidates if fault
            ]
            raise (RuntimeSessionError(faults) if faults else self._failure(error)) from error

    def run_on_device(self, tensors: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Run the block on tensors in device memory (see :func:`upload`); its outputs stay there."""
        try:
            if self._states is None:
                return self._run_bound(tensors)
            return self._states.after(tensors, self._run_bound({**tensors, **self._states.before(tensors)}))
        except StateError:
            raise
        except Exception as error:  # see `run`
            raise self._failure(error) from error

    def _run_with_state(self, tensors: Mapping[str, NDArray[Any]], states: SequenceStates) -> dict[str, NDArray[Any]]:
        together = {**tensors, **states.before(tensors)}
        if self.provider.device is None:
            needed = {name: native(together[name]) for name in self._inputs}
            made = dict(zip(self._outputs, self._session.run(self._outputs, needed, self._run_options), strict=True))
        else:
            given = {name: tensors[name] for name in self.input_names}
            made = self._run_bound({**together, **upload(given, self.provider)})
        others = states.after(tensors, dict(made))
        shown = made if self._show_state else others
        return shown if self.provider.device is None else download(shown)

    def _place(self, arrays: dict[str, NDArray[Any]]) -> dict[str, DeviceTensor]:
        return arrays if self.provider.device is None else upload(arrays, self.provider)

    def _failure(self, error: Exception) -> RuntimeSessionError:
        return _no_room(error, self._where) or BlockRunError(
            f"onnxruntime fails to run the block: {_first_line(error)}", where=self._where
        )

    def _run_bound(self, tensors: Mapping[str, Any]) -> dict[str, DeviceTensor]:
        """Run the block on tensors in either memory; its outputs are on the device."""
        made = self._graph.run(tensors) if self._graph is not None else None
        if made is not None:
            return made
        on_host = {name: tensors[name] for name in self._inputs if isinstance(tensors[name], np.ndarray)}
        if on_host:
            tensors = {**tensors, **upload(on_host, self.provider)}
        binding = self._session.io_binding()
        for name in self._inputs:
            binding.bind_ortvalue_input(name, tensors[name])
        for name in self._outputs:
            binding.bind_output(name, self.provider.device)
        self._session.run_with_iobinding(binding, self._run_options)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


@cache
def _share_arena() -> None:
    """Create the arena of host memory that all sessions of this process share."""
    library = import_onnxruntime()
    kind, default = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR, library.OrtMemType.DEFAULT
    config = library.OrtArenaCfg(0, -1, -1, _WASTE_BYTES)
    library.create_and_register_allocator(library.OrtMemoryInfo("Cpu", kind, 0, default), config)


def upload(tensors: Mapping[str, NDArray[Any]], provider: Provider) -> dict[str, DeviceTensor]:
    """Return copies of tensors in the memory of the provider's device."""
    to_device = import_onnxruntime().OrtValue.ortvalue_from_numpy
    return {name: to_device(native(tensor), provider.device) for name, tensor in tensors.items()}


def download(tensors: Mapping[str, DeviceTensor]) -> dict[str, NDArray[Any]]:
    """Return copies of device tensors in host memory, and those that are there as they are."""
    # For a tensor in host memory, numpy() returns a view that does not keep the uploaded array alive, so it is copied.
    return {
        name: tensor
        if isinstance(tensor, np.ndarray)
        else tensor.numpy().copy()
        if tensor.device_name() == "cpu"
        else tensor.numpy()
        for name, tensor in tensors.items()
    }


def _spec(argument: Any, where: str) -> TensorSpec:
    if argument.type not in _DTYPES:
        raise RuntimeSessionError(
            "tensor type not supported by numpy", where=f"{where}, {argument.name}", value=argument.type
        )
    shape = tuple(length if isinstance(length, int) else ANY_LENGTH for length in argument.shape)
    varies = tuple(axis for axis, length in enumerate(shape) if length == ANY_LENGTH)
    return TensorSpec(argument.name, _DTYPES[argument.type], shape, varies=varies)


def tensor_fault(spec: TensorSpec, tensor: NDArray[Any] | None) -> Fault | None:
    """Return a fault if an input is invalid, else None."""
    where = f"input {spec.name}"
    if tensor is None:
        return Fault("input is missing", where, expected=f"{spec.dtype} {list(spec.shape)}")
    if tensor.dtype.name != spec.dtype:
        return Fault("wrong dtype", where, tensor.dtype.name, spec.dtype)
    # For an unknown rank, onnxruntime reports an empty shape, as for a scalar.
    if spec.shape and not spec.fits(tensor.shape):
        return Fault("wrong shape", where, list(tensor.shape), str(list(spec.shape)))
    return None


def _no_room(error: Exception, where: str) -> RuntimeSessionError | None:
    """Return what to say if a device has no memory left; None for other errors."""
    match = _NO_ROOM.search(str(error))
    if match is None:
        return None
    size = format_quantity(int(match["bytes"]), "memory") if match["bytes"] else "memory"
    return RuntimeSessionError(
        f"the device has no room for the block: it needed {size} more",
        where=where, expected="fewer blocks, smaller batches or less else on the device, or another provider",
    )  # fmt: skip


def _reason(error: Exception) -> str:
    """Return the first line of an error, and of its others the first one that names a node."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    node = next((line.strip() for line in others if _NODE.search(line)), "")
    return f"{first.rstrip(':')}: {node}" if node and not _NODE.search(first) else first


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
