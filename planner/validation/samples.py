"""Samples of a source for a validation: inputs from a file, and labels if it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import UsageError
from planner.files import StrPath
from planner.model.chain import Chain
from planner.profiling.operating_points import LabelledSamples, check_labels, load_samples
from planner.scenario.instance import Instance


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
        If there is no such source, or it produces sequences.
    ProfileError
        If a file does not fit the models of its source.
    RuntimeSessionError
        If a file cannot be read.
    """
    for name in files:
        if name not in instance.sources:
            expected = f"one of {', '.join(instance.sources)}"
            raise UsageError("no such source", where="samples", value=name, expected=expected)
        if instance.scenario.sources[name].decode is not None:
            expected = "no samples for a source with decode:, whose prompts are drawn"
            raise UsageError("a sequence is no sample of inputs", where="samples", value=name, expected=expected)
    return {
        name: _read(Path(file), [chains[model] for model in instance.scenario.sources[name].models])
        for name, file in files.items()
    }


def _read(path: Path, chains: Sequence[Chain]) -> LabelledSamples:
    for chain in chains:
        samples = load_samples(path, chain)
        if samples.labels is not None:
            check_labels(chain, samples.labels)
    return samples
