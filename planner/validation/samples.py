"""Samples of a source for a validation: inputs from a file, and labels if it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import UsageError
from planner.model.chain import Chain
from planner.profiling.operating_points import LabelledSamples, check_labels, load_samples
from planner.scenario.instance import Instance


def read_sources(words: Sequence[str], instance: Instance, chains: Mapping[str, Chain]) -> dict[str, LabelledSamples]:
    """Return the samples of sources given as ``NAME=FILE.npz``.

    Parameters
    ----------
    chains
        The scenario's models.

    Raises
    ------
    UsageError
        If a word is malformed, or names an unknown source or one that was named before.
    ProfileError
        If a file does not fit the models of its source.
    RuntimeSessionError
        If a file cannot be read.
    """
    samples: dict[str, LabelledSamples] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals or not file or name not in instance.sources or name in samples:
            expected = f"NAME=FILE.npz, each NAME once, one of {', '.join(instance.sources)}"
            raise UsageError("not the samples of a source", where="--source", value=word, expected=expected)
        models = instance.scenario.sources[name].models
        samples[name] = _read(Path(file), [chains[model] for model in models])
    return samples


def _read(path: Path, chains: Sequence[Chain]) -> LabelledSamples:
    for chain in chains:
        samples = load_samples(path, chain)
        if samples.labels is not None:
            check_labels(chain, samples.labels)
    return samples
