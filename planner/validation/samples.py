"""Samples of a source for a validation: inputs from a file, and labels if it has them; or prompts of its sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import Field, TypeAdapter

from planner.errors import UsageError, explain
from planner.files import StrPath, read_bounded
from planner.formats.json import parse_json
from planner.model.chain import Chain
from planner.profiling.operating_points import LabelledSamples, check_labels, load_samples
from planner.profiling.sequences import SequenceCosts
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance

Prompt: TypeAlias = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

PROMPTS: Final[TypeAdapter[list[list[int]]]] = TypeAdapter(Annotated[list[Prompt], Field(min_length=1)])


def read_samples(
    files: Mapping[str, StrPath], instance: Instance, chains: Mapping[str, Chain]
) -> dict[str, LabelledSamples]:
    """Return the samples of sources.

    Parameters
    ----------
    files
        ``.npz`` file of each source that has its own samples.
    chains
        The scenario's models.

    Raises
    ------
    UsageError
        If there is no such source.
    ProfileError
        If a file does not fit the models of its source.
    RuntimeSessionError
        If a file cannot be read.
    """
    for name in files:
        if name not in instance.sources:
            expected = f"one of {', '.join(instance.sources)}"
            raise UsageError("no such source", where="samples", value=name, expected=expected)
    return {
        name: _read(Path(file), [chains[model] for model in instance.scenario.sources[name].models])
        for name, file in files.items()
        if instance.scenario.sources[name].decode is None
    }


def read_prompts(files: Mapping[str, StrPath], instance: Instance) -> dict[str, list[list[int]]]:
    """Return the prompts of the sources of sequences among ``files``: JSON lists of lists of tokens.

    Raises
    ------
    UsageError
        If a file cannot be read or is no such list, or a prompt is empty, has a token outside the vocabulary, or is too
        long for the model.
    """
    specs = instance.scenario.sources
    return {
        name: _read_prompts(Path(file), decode, [instance.any_profile(model).sequences for model in specs[name].models])
        for name, file in files.items()
        if name in specs and (decode := specs[name].decode) is not None
    }


def _read_prompts(path: Path, decode: DecodeSpec, costs: Sequence[SequenceCosts | None]) -> list[list[int]]:
    try:
        prompts = PROMPTS.validate_python(parse_json(read_bounded(path)), strict=True)
    except OSError as error:
        raise UsageError("the prompts cannot be read", where=str(path), value=explain(error)) from error
    except ValueError as error:
        expected = "a list of lists of tokens, each of at least one, such as [[5, 17, 99], [3]]"
        raise UsageError("no prompts", where=str(path), expected=expected) from error
    vocabulary = min(it.vocabulary for it in costs if it is not None)
    longest = min((it.max_context for it in costs if it is not None and it.max_context is not None), default=None)
    for number, prompt in enumerate(prompts):
        where = f"{path}: prompt {number}"
        if (most := max(prompt)) >= vocabulary:
            expected = f"0 to {vocabulary - 1}"
            raise UsageError("a token outside the vocabulary", where=where, value=most, expected=expected)
        if longest is not None and (context := len(prompt) + decode.max_new) > longest:
            found = f"{len(prompt)} + {decode.max_new} = {context} tokens"
            raise UsageError("a longer sequence than the model takes", where=where, value=found, expected=str(longest))
    return prompts


def _read(path: Path, chains: Sequence[Chain]) -> LabelledSamples:
    for chain in chains:
        samples = load_samples(path, chain)
        if samples.labels is not None:
            check_labels(chain, samples.labels)
    return samples
