"""Check that stage models, run one after the other, produce the outputs of the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import Chain
from planner.runtime.difference import OutputDifference, compare
from planner.runtime.providers import REFERENCE_PROVIDER, find_provider
from planner.runtime.session import BlockSession
from planner.runtime.tolerance import TOLERANCE, Tolerance, base_tolerance, measure_tolerance

Arrays = Mapping[str, NDArray[Any]]

NEARBY: Final = 3
"""Number of inputs near the given ones on which the whole model is run if the stages differ from it."""

NEARBY_DISTANCE: Final = 1e-3


@dataclass(frozen=True)
class StageModel:
    """Blocks ``first`` to ``last``, inclusive, as one model, serialised or in a file."""

    first: int
    last: int
    model: bytes | Path


@dataclass(frozen=True)
class SplitCheck:
    """Chained stages against the reference: the whole model on the CPU without graph optimisation.

    Parameters
    ----------
    plain
        Difference of the stages, without graph optimisation.
    optimised
        Difference of the stages, each optimised.
    tolerance
        How much graph optimisation alone does to the whole model, and the error that is therefore acceptable.
    """

    plain: OutputDifference
    optimised: OutputDifference
    tolerance: Tolerance

    @property
    def exact(self) -> bool:
        """Whether the stages without graph optimisation are right: bit-equal, except with half precision."""
        rounded_at_cuts = self.tolerance.base > TOLERANCE
        return self.plain.bit_equal or (rounded_at_cuts and self.plain.max_rel_error <= self.tolerance.base)

    @property
    def passed(self) -> bool:
        """Whether the stages compute the same as the whole model."""
        return self.exact and self.optimised.max_rel_error <= self.tolerance.limit


def check_split(chain: Chain, whole: bytes | Path, stages: Sequence[StageModel], inputs: Arrays) -> SplitCheck:
    """Run the whole model and its stages on the same inputs, and compare all outputs including exits.

    Parameters
    ----------
    chain
        The model's chain.
    whole
        The whole model.
    stages
        Stages that cover the chain, in order. Only one of them is loaded at a time.
    inputs
        Tensors of cut 0, by name.

    Raises
    ------
    RuntimeSessionError
        If inputs are unknown or do not match the model, or onnxruntime rejects a model.
    """
    _check_names(chain, inputs)
    base = base_tolerance([cut.tensors for cut in chain.cuts])
    plain_whole = BlockSession(whole, name=chain.name, optimise=False)
    expected = plain_whole.run(inputs)
    plain = compare(run_stages(chain, stages, inputs, optimise=False), expected)
    optimised = compare(run_stages(chain, stages, inputs, optimise=True), expected)
    runs = [(inputs, expected)]
    if optimised.max_rel_error > base:
        # By chance a quantised model may round to the same steps on one input.
        runs += [(near, plain_whole.run(near)) for near in _nearby(inputs)]
    return SplitCheck(
        plain, optimised, measure_tolerance(whole, find_provider(REFERENCE_PROVIDER), runs, base, name=chain.name)
    )


def run_stages(
    chain: Chain, stages: Sequence[StageModel], inputs: Arrays, *, optimise: bool
) -> dict[str, NDArray[Any]]:
    """Run stages one after the other, and return all outputs including exits.

    Parameters
    ----------
    chain, stages, inputs
        As for :func:`check_split`.
    optimise
        Whether onnxruntime may optimise the graphs. Without optimisation the outputs are bit-equal to those of the
        whole model, except with half precision.
    """
    crossing = dict(inputs)
    results: dict[str, NDArray[Any]] = {}
    for stage in stages:
        name = f"{chain.name}, blocks {stage.first} to {stage.last}"
        crossing |= BlockSession(stage.model, name=name, optimise=optimise).run(crossing)
        names = {tensor.name for tensor in chain.cuts[stage.last + 1].tensors}
        results |= {
            exit_.name: crossing[exit_.name] for exit_ in chain.exits if stage.first < exit_.cut <= stage.last + 1
        }
        crossing = {name: value for name, value in crossing.items() if name in names}
    return results | crossing


def _nearby(inputs: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the inputs with each floating-point number changed by about a thousandth."""
    rng = np.random.default_rng(0)
    for _ in range(NEARBY):
        yield {
            name: (array * (1 + NEARBY_DISTANCE * rng.standard_normal(array.shape))).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in inputs.items()
        }


def _check_names(chain: Chain, inputs: Arrays) -> None:
    names = [tensor.name for tensor in chain.cuts[0].tensors]
    wrong = [name for name in inputs if name not in names]
    if wrong:
        expected = f"inputs named {', '.join(names)}"
        raise RuntimeSessionError(Fault("not an input of the model", chain.name, name, expected) for name in wrong)
