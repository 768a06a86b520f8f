"""What the inputs and outputs of a decoder are: tokens, their positions, the mask of all tokens, and the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.errors import ModelError
from planner.model.chain import SEQUENCE, TensorSpec

Role = Literal["tokens", "positions", "mask"]

Inputs: TypeAlias = dict[str, NDArray[Any]]


def roles(inputs: Sequence[TensorSpec], where: str) -> dict[TensorSpec, Role]:
    """Return what each input of a model with state is, apart from :data:`~planner.model.chain.SEQUENCE`.

    Raises
    ------
    ModelError
        If the model keeps no state, takes a fixed number of tokens, or has an input of unknown meaning.
    """
    specs = [spec for spec in inputs if spec.name != SEQUENCE.name]
    if len(specs) == len(inputs):
        raise ModelError("the model keeps no state", where=where, expected="a model with past and present inputs")
    found = {spec: _role(spec) for spec in specs}
    tokens = [spec.name for spec, role in found.items() if role == "tokens"]
    if len(tokens) != 1:
        names = ", ".join(tokens) or ", ".join(spec.name for spec in specs)
        raise ModelError("it is unclear which input has the tokens", where=where, value=names, expected="one")
    unknown = [f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec, role in found.items() if role is None]
    if unknown:
        expected = "tokens, mask, positions"
        raise ModelError("inputs of unknown meaning", where=where, value=", ".join(unknown), expected=expected)
    fixed = [spec.name for spec in specs if 1 not in spec.varies]
    if fixed:
        raise ModelError(
            "the model takes a fixed number of tokens",
            where=where,
            value=", ".join(fixed),
            expected="an input whose second axis is open and named",
        )
    return {spec: role for spec, role in found.items() if role is not None}


def _role(spec: TensorSpec) -> Role | None:
    if len(spec.shape) != 2 or spec.shape[0] != 1:
        return None
    name = spec.name.lower()
    if "mask" in name:
        return "mask"
    if np.dtype(spec.dtype).kind not in "iu":
        return None
    return "positions" if "position" in name else "tokens"


def fill(spec: TensorSpec, role: Role, tokens: Sequence[int], seen: int) -> NDArray[Any]:
    """Return an input of a run on some tokens after ``seen`` others; shape [1, tokens], of a mask [1, all tokens]."""
    if role == "mask":
        return np.ones((1, seen + len(tokens)), spec.dtype)
    if role == "positions":
        return np.arange(seen, seen + len(tokens), dtype=spec.dtype)[None]
    return np.array([tokens], spec.dtype)


def inputs_of(found: Mapping[TensorSpec, Role], tokens: Sequence[int], seen: int, sequence: int, runs: int) -> Inputs:
    """Return all inputs of a run of a sequence on some tokens.

    Parameters
    ----------
    found
        What each input is, by :func:`roles`.
    seen, runs
        Number of tokens and of runs before, whose state is there.
    """
    inputs = {spec.name: fill(spec, role, tokens, seen) for spec, role in found.items()}
    inputs[SEQUENCE.name] = np.array([sequence, runs], np.int64)
    return inputs


def logits_of(outputs: Sequence[TensorSpec], where: str) -> TensorSpec:
    """Return the output that scores each token of the vocabulary, along its last axis, as the next one.

    Raises
    ------
    ModelError
        If there is no such output, or more than one.
    """
    scores = [spec for spec in outputs if len(spec.shape) >= 2 and np.dtype(spec.dtype).kind == "f"]
    named = [spec for spec in scores if "logits" in spec.name.lower()] or scores
    if len(named) != 1:
        found = ", ".join(spec.name for spec in outputs)
        raise ModelError("it is unclear which output has the logits", where=where, value=found, expected="one")
    return named[0]


def vocabulary(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str) -> int:
    """Return the number of tokens that a model both takes and gives; errors are those of the functions above."""
    size = logits_of(outputs, where).shape[-1]
    limits = [spec.bounds[1] + 1 for spec, role in roles(inputs, where).items() if role == "tokens" and spec.bounds]
    return min([size, *limits])


def likeliest(logits: NDArray[Any]) -> int:
    """Return the likeliest token after a run with these logits, along their last axis."""
    return int(logits.reshape(-1, logits.shape[-1])[-1].argmax())


def choose(logits: NDArray[Any], temperature: float, seed: Sequence[int] = (), index: int = 0) -> int:
    """Return the token that follows a run with these logits, along their last axis.

    It is the likeliest one at temperature 0, and otherwise drawn: the ``index``-th token of a sequence by a draw of its
    own, so whoever draws it, and after whatever restart, it is the same.

    Raises
    ------
    ModelError
        If tokens are to be drawn and some likelihood is no number.
    """
    if temperature == 0:
        return likeliest(logits)
    last = logits.reshape(-1, logits.shape[-1])[-1]
    scaled = last.astype(np.float64) / temperature
    likelihoods = np.exp(scaled - scaled.max())
    bounds = np.cumsum(likelihoods)
    if not np.isfinite(bounds[-1]):
        raise ModelError("a score of the next token is no number", where="logits")
    point = np.random.default_rng([*seed, index]).random() * bounds[-1]
    return int(min(np.searchsorted(bounds, point, side="right"), len(bounds) - 1))


def longest_context(found: Mapping[TensorSpec, Role]) -> int | None:
    """Return the number of positions that a model has; None if it states no limit."""
    limits = [spec.bounds[1] + 1 for spec, role in found.items() if role == "positions" and spec.bounds]
    return min(limits, default=None)
