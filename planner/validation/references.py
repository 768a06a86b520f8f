"""Reference outputs: those of the whole models, run in one piece here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from planner.execution.wire.frames import Tensors
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance

References: TypeAlias = Mapping[tuple[str, str], Sequence[Tensors]]
"""By source and model: outputs of the whole model for each input of the source, including those of its exits."""


def references(
    instance: Instance,
    whole: Mapping[str, bytes],
    inputs: Mapping[str, Sequence[Tensors]],
    progress: Callable[[int, int], None] | None = None,
) -> References:
    """Run the whole models of sources on all their inputs, on the CPU of this process, without graph optimisation.

    Parameters
    ----------
    whole
        Serialised models.
    inputs
        Inputs of the sources.
    """
    pairs = [(source, model) for source in inputs for model in instance.scenario.sources[source].models]
    names = dict.fromkeys(model for _, model in pairs)
    sessions = {model: BlockSession(whole[model], name=model, optimise=False) for model in names}
    total = sum(len(inputs[source]) for source, _ in pairs)
    outputs: dict[tuple[str, str], list[Tensors]] = {pair: [] for pair in pairs}
    done = 0
    for source, model in pairs:
        for tensors in inputs[source]:
            outputs[source, model].append(sessions[model].run(tensors))
            done += 1
            if progress is not None:
                progress(done, total)
    return outputs
