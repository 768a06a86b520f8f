"""How far the outputs of a split model may be from those of the whole one.

The reference is the whole model on the CPU without graph optimisation, which computes every operator as the file says.
Block models computed like this give the same bits. Where they are optimised, or run on another provider, rounding
differs: fused operators round less often, quantised ones may fall on the neighbouring step, and a GPU computes float32
with the ten bits of mantissa of TF32. The same happens to the whole model, so what the outputs of a split model may
differ is measured there: on the same provider with the same options.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import RuntimeSessionError
from planner.model.chain import TensorSpec
from planner.runtime.difference import compare
from planner.runtime.providers import FULL_PRECISION, Provider, find_provider
from planner.runtime.session import BlockSession

Arrays = Mapping[str, NDArray[Any]]

TOLERANCE: Final = 1e-4
"""Relative error that is always acceptable: graph optimisation may fuse differently in stages."""

HALF_TOLERANCE: Final = 8 * float(np.finfo(np.float16).eps)
"""The same if half-precision tensors cross cuts and are rounded there.

A CPU computes in single precision, and onnxruntime omits the rounding between its operators even if graph optimisation
is disabled (``InsertCastTransformer``). Outputs of such models are therefore not bit-equal either. TF32 has as many
bits of mantissa, so this is also the tolerance of a provider of reduced precision that cannot be measured here.
"""

MARGIN: Final = 2.0
"""A split model may differ from the reference this many times as much as the whole model does."""

LARGEST: Final = 0.1
"""No error above this is acceptable: it is no rounding."""

TIMED_RUNS: Final = 5


@dataclass(frozen=True)
class Tolerance:
    """Largest acceptable relative error of the outputs of one model on one provider.

    Parameters
    ----------
    provider
        Name of the provider.
    precision
        Precision in which it computes float32 operators.
    base
        Acceptable relative error whatever the whole model does; see :func:`base_tolerance`.
    whole_error
        Relative error of the whole model on the provider against the reference; None if it was not measured.
    exact
        Name of a provider of the same device that computes in full precision; None if there is none, or this one does.
    exact_time_ratio
        Time of the whole model on that provider divided by the time on this one; None if it was not measured.
    """

    provider: str
    precision: str
    base: float
    whole_error: float | None = None
    exact: str | None = None
    exact_time_ratio: float | None = None

    @property
    def limit(self) -> float:
        """The largest acceptable relative error."""
        if self.whole_error is None:
            return self.base if self.precision == FULL_PRECISION else max(self.base, HALF_TOLERANCE)
        return max(self.base, min(MARGIN * self.whole_error, LARGEST))

    def __str__(self) -> str:
        text = f"{self.provider}: {self._effect}; {self.limit:.1e} is allowed"
        if self.exact is None:
            return text
        cost = "" if self.exact_time_ratio is None else f" and takes {self.exact_time_ratio:.2f} times as long"
        return f"{text}; `--provider {self.exact}` computes in {FULL_PRECISION}{cost}"

    @property
    def _effect(self) -> str:
        if self.whole_error is None:
            return f"{self.precision}, not measured: this machine lacks the provider, and its profile has no error"
        full = self.precision == FULL_PRECISION
        causes = "graph optimisation alone changes" if full else f"{self.precision} and graph optimisation alone change"
        return f"{causes} the whole model's outputs by {self.whole_error:.1e}"


def base_tolerance(cuts: Sequence[Sequence[TensorSpec]]) -> float:
    """Return the relative error that is always acceptable in a chain whose cuts these tensors cross."""
    half = any(tensor.dtype == "float16" for cut in cuts[1:-1] for tensor in cut)
    return HALF_TOLERANCE if half else TOLERANCE


def measure_tolerance(
    whole: bytes | Path,
    provider: Provider,
    runs: Sequence[tuple[Arrays, Arrays]],
    base: float,
    *,
    name: str = "",
) -> Tolerance:
    """Measure what a provider of this machine does to the outputs of a whole model.

    Parameters
    ----------
    whole
        The whole model.
    runs
        Inputs of the model, and the outputs of the reference for them; in order, where they continue a sequence.
    base
        Relative error that is always acceptable.
    name
        Name of the model in messages.

    Raises
    ------
    RuntimeSessionError
        If onnxruntime rejects the model or fails to run it.
    """
    session = BlockSession(whole, name=name, provider=provider, show_state=True)
    error = max((compare(session.run(inputs), expected).max_rel_error for inputs, expected in runs), default=0.0)
    ratio = None
    if provider.exact is not None and runs:
        own_s = _time_s(session, runs[0][0])
        ratio = _exact_time_ratio(whole, find_provider(provider.exact), runs[0][0], own_s)
    return Tolerance(provider.name, provider.precision, base, error, provider.exact, ratio)


def known_tolerance(provider: Provider, base: float, whole_error: float | None = None) -> Tolerance:
    """Return the tolerance of a provider that this machine lacks, given its error if that was measured elsewhere."""
    return Tolerance(provider.name, provider.precision, base, whole_error, provider.exact)


def _exact_time_ratio(whole: bytes | Path, exact: Provider, inputs: Arrays, own_s: float) -> float | None:
    try:
        return _time_s(BlockSession(whole, provider=exact), inputs) / own_s
    except RuntimeSessionError:  # a word on cost is not worth a run's verdict
        return None


def _time_s(session: BlockSession, inputs: Arrays) -> float:
    """Return the median time of a run, after one that is not counted."""
    times_s = []
    for _ in range(TIMED_RUNS + 1):
        start_s = time.monotonic()
        session.run(inputs)
        times_s.append(time.monotonic() - start_s)
    return median(times_s[1:])
