"""Runs that a device records once and replays, such as those of CUDA graphs.

A recorded run reads and writes the same addresses each time, so inputs and outputs are bound once: what comes is copied
there, and what a run has made is copied from there before the next run. onnxruntime records only if the provider runs
all nodes and no shape is open. It records again in each thread that runs the session.

Before recorded runs are relied on, one is compared with a plain run on the same inputs. Where a device cannot record,
or another thread's use of it breaks a recording, the session goes on with plain runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from sys import getrefcount
from types import ModuleType
from typing import Any, Final

import numpy as np

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.difference import compare

_LOG = logging.getLogger(__name__)

GRAPH_ID: Final = "gpu_graph_id"
"""Entry of a run's options; with ``PLAIN`` the run is not recorded, nor a recorded one replayed."""
PLAIN: Final = "-1"

COPIES_SINCE: Final = [1, 26]
"""First onnxruntime whose ``OrtValue.update_inplace`` takes another ``OrtValue``; earlier ones take arrays only."""

SAME: Final = 1e-3
"""Largest relative difference of a replayed run from a plain one: kernels may be chosen otherwise, with TF32, too."""


def _references(made: Mapping[str, object]) -> int:
    """Return the largest number of references to a tensor of some that are in a pool."""
    return max(getrefcount(value) for value in made.values())


_UNHELD: Final = _references({"": object()})
"""The same for tensors that no one else holds; Python's versions count differently."""

_said: set[str] = set()
"""Reasons for plain runs that were logged as warnings."""

Tensor = Any
"""A numpy array, or an onnxruntime ``OrtValue``."""


def can_record(specs: Sequence[TensorSpec]) -> bool:
    """Return whether no shape is open, and all tensors are numbers."""
    return all(not spec.varies and spec.dtype != "object" for spec in specs)


def copies_on_device(version: str) -> bool:
    """Return whether a version of onnxruntime copies from one tensor of a device to another, as recorded runs need."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return numbers >= COPIES_SINCE


def say_plain(where: str, reason: str) -> None:
    """Log that a session runs without recording; as a warning for the first session with that reason."""
    _LOG.log(
        logging.DEBUG if reason in _said else logging.WARNING, "%s: no recorded runs, but plain ones: %s", where, reason
    )
    _said.add(reason)


class GraphRuns:
    """Recorded runs of one session.

    Parameters
    ----------
    library
        onnxruntime.
    inputs, outputs
        Those of the session, none of whose shapes is open.
    device
        Where they are, as named by onnxruntime's IO binding.
    options
        Options of the runs.
    plain_options
        Options of runs that are not recorded.
    """

    def __init__(
        self,
        library: ModuleType,
        session: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        device: str,
        options: Any,
        plain_options: Any,
        where: str = "",
    ) -> None:
        self._library, self._session, self._device, self._where = library, session, device, where
        self._options, self._plain_options = options, plain_options
        self._specs = {spec.name: spec for spec in outputs}
        self._types = {spec.name: self._new(spec).data_type() for spec in inputs}
        self._inputs = {spec.name: (spec, self._new(spec)) for spec in inputs}
        self._outputs = {spec.name: self._new(spec) for spec in outputs}
        self._binding = session.io_binding()
        for name, (_, place) in self._inputs.items():
            self._binding.bind_ortvalue_input(name, place)
        for name, place in self._outputs.items():
            self._binding.bind_ortvalue_output(name, place)
        self._pool: list[dict[str, Any]] = []
        self.on = True
        """Whether runs are recorded: not any more once that has failed."""
        self._checked = False

    def _new(self, spec: TensorSpec) -> Any:
        return self._library.OrtValue.ortvalue_from_shape_and_type(spec.shape, np.dtype(spec.dtype), self._device)

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the outputs for inputs in any memory, on the device; None if a plain run is to be made.

        That is so for inputs of other dtypes or shapes, which the plain run explains, and once recording has failed.
        """
        if not self.on or not all(self._fits(name, tensors.get(name)) for name in self._inputs):
            return None
        try:
            for name, (_, place) in self._inputs.items():
                place.update_inplace(tensors[name])
            if not self._checked:
                self._check()
            self._session.run_with_iobinding(self._binding, self._options)
            return self._taken()
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base but Exception
            self.on = False
            self._pool.clear()
            say_plain(self._where, (str(error).strip() or type(error).__name__).splitlines()[0])
            return None

    def _fits(self, name: str, tensor: Tensor | None) -> bool:
        spec = self._inputs[name][0]
        if isinstance(tensor, np.ndarray):
            return bool(tensor.dtype == spec.dtype) and tensor.shape == spec.shape  # of this machine's byte order
        return tensor is not None and bool(
            tensor.data_type() == self._types[name] and tuple(tensor.shape()) == spec.shape
        )

    def _check(self) -> None:
        """Compare a run that is replayed with one that is not.

        Raises
        ------
        RuntimeSessionError
            If they differ.
        """
        self._session.run_with_iobinding(self._binding, self._plain_options)
        expected = {name: place.numpy().copy() for name, place in self._outputs.items()}
        for _ in range(2):  # the first one is recorded
            self._session.run_with_iobinding(self._binding, self._options)
        found = {name: place.numpy().copy() for name, place in self._outputs.items()}
        error = compare(found, expected).max_rel_error
        if not error <= SAME:
            raise RuntimeSessionError("a replayed run has other outputs", value=error, expected=f"at most {SAME:g}")
        self._checked = True

    def _taken(self) -> dict[str, Any]:
        """Return copies of the outputs, in tensors that no one holds any more."""
        for made in self._pool:
            if _references(made) <= _UNHELD:
                break
        else:
            made = {name: self._new(spec) for name, spec in self._specs.items()}
            self._pool.append(made)
        for name, place in self._outputs.items():
            made[name].update_inplace(place)
        return dict(made)
