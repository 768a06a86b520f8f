"""Check that stage models, run one after the other, produce the outputs of the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import Fault, ModelError, RuntimeSessionError
from planner.model.chain import SEQUENCE, Chain
from planner.model.tokens import fill, roles
from planner.runtime.difference import OutputDifference, compare, largest
from planner.runtime.inputs import random_inputs
from planner.runtime.providers import REFERENCE_PROVIDER, find_provider
from planner.runtime.session import BlockSession
from planner.runtime.tolerance import TOLERANCE, Tolerance, base_tolerance, measure_tolerance

Arrays = Mapping[str, NDArray[Any]]

NEARBY: Final = 3
"""Number of inputs near the given ones on which the whole model is run if the stages differ from it."""

NEARBY_DISTANCE: Final = 1e-3

PROMPT: Final = 5
"""Tokens of the first run of the sequence that is compared."""

STEPS: Final = 3
"""Further runs of that sequence."""


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
    runs
        Number of runs that were compared.
    """

    plain: OutputDifference
    optimised: OutputDifference
    tolerance: Tolerance
    runs: int = 1

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
    """Run the whole model and its stages on the same inputs, and compare all outputs including exits and state.

    Where the model keeps state, a sequence of runs is compared as well, if it is known how to make their inputs.

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
    plain_whole = BlockSession(whole, name=chain.name, optimise=False, show_state=True)
    given = [inputs, *sequence_inputs(chain)]
    runs = [(each, plain_whole.run(each)) for each in given]

    def difference(*, optimise: bool) -> OutputDifference:
        found = run_stages(chain, stages, given, optimise=optimise)
        return largest([compare(outputs, expected) for outputs, (_, expected) in zip(found, runs, strict=True)])

    plain, optimised = difference(optimise=False), difference(optimise=True)
    if optimised.max_rel_error > base:
        # By chance a quantised model may round to the same steps on one input.
        runs += [(near, plain_whole.run(near)) for near in _nearby(inputs)]
    tolerance = measure_tolerance(whole, find_provider(REFERENCE_PROVIDER), runs, base, name=chain.name)
    return SplitCheck(plain, optimised, tolerance, len(given))


def sequence_inputs(chain: Chain) -> list[dict[str, NDArray[Any]]]:
    """Return the inputs of the runs of a random sequence: a prompt, then steps.

    There are none if the model keeps no state, or has inputs of varying length and unknown meaning.
    """
    rng = np.random.default_rng(0)
    specs = [spec for spec in chain.cuts[0].tensors if spec.name != SEQUENCE.name]
    if len(specs) == len(chain.cuts[0].tensors):
        return []
    if not any(spec.varies for spec in specs):
        return [{**random_inputs(specs, rng), SEQUENCE.name: _run(0, run)} for run in range(1 + STEPS)]
    try:
        meanings = roles(chain.cuts[0].tensors, chain.name)
    except ModelError:
        return []
    tokens = next(spec for spec, role in meanings.items() if role == "tokens")
    low, high = tokens.bounds or (0, 1)
    known = rng.integers(low, high, PROMPT + STEPS, endpoint=True).tolist()
    return fill_sequence(chain, known, [PROMPT, *[1] * STEPS])


def fill_sequence(
    chain: Chain, tokens: Sequence[int], lengths: Sequence[int], *, number: int = 0
) -> list[dict[str, NDArray[Any]]]:
    """Return the inputs of the runs of a decoder on these tokens.

    Parameters
    ----------
    lengths
        Number of tokens of each run.
    number
        That of the sequence.

    Raises
    ------
    ModelError
        As :func:`planner.model.tokens.roles`.
    """
    meanings = roles(chain.cuts[0].tensors, chain.name)
    ends = list(accumulate(lengths))
    return [
        {spec.name: fill(spec, role, tokens[end - length : end], end - length) for spec, role in meanings.items()}
        | {SEQUENCE.name: _run(number, run)}
        for run, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def _run(number: int, run: int) -> NDArray[Any]:
    return np.array([number, run], np.int64)


def run_stages(
    chain: Chain, stages: Sequence[StageModel], runs: Sequence[Arrays], *, optimise: bool
) -> list[dict[str, NDArray[Any]]]:
    """Run stages one after the other, and return all outputs of each run, including exits and state.

    Parameters
    ----------
    chain, stages
        As for :func:`check_split`.
    runs
        Tensors of cut 0 of each run, by name.
    optimise
        Whether onnxruntime may optimise the graphs. Without optimisation the outputs are bit-equal to those of the
        whole model, except with half precision.
    """
    crossing = [dict(inputs) for inputs in runs]
    results: list[dict[str, NDArray[Any]]] = [{} for _ in runs]
    for stage in stages:
        name = f"{chain.name}, blocks {stage.first} to {stage.last}"
        session = BlockSession(stage.model, name=name, optimise=optimise, show_state=True)
        onward = {tensor.name for tensor in chain.cuts[stage.last + 1].tensors}
        leaving = {exit_.name for exit_ in chain.exits if stage.first < exit_.cut <= stage.last + 1}
        for run, alive in enumerate(crossing):
            made = session.run(alive)
            results[run] |= {name: made[name] for name in made if name in leaving or name not in session.output_names}
            crossing[run] = {name: value for name, value in {**alive, **made}.items() if name in onward}
    return [result | alive for result, alive in zip(results, crossing, strict=True)]


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
